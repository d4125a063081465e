"""Servers for the HTTP backend to call: a proper one of twisted.web, and ones that follow a script."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import Factory as made_by
from attrs import define, frozen
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

reactor: Any = _reactor


def listen(test: TestCase, factory: Any, tls: CertificateOptions | None = None) -> int:
    """The port on 127.0.0.1 where ``factory`` listens until the test ends."""
    if tls is None:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    else:
        port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
    test.addCleanup(port.stopListening)
    return int(port.getHost().port)


# --- twisted.web --------------------------------------------------------------------------------


@frozen
class Received:
    """A request as the server got it."""

    method: bytes
    uri: bytes
    headers: dict[str, str]
    content: bytes
    connection: int
    """Which of the server's connections it came on, from 0."""


class Recorder(Resource):
    """Keeps every request and answers with what ``answer`` writes and returns."""

    isLeaf = True

    def __init__(self, answer: Callable[[Request], bytes]) -> None:
        super().__init__()
        self._answer = answer
        self._channels: list[object] = []
        self.received: list[Received] = []

    def render(self, request: Request) -> bytes:
        if request.channel not in self._channels:
            self._channels.append(request.channel)
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        content = request.content.read() if request.content else b""
        connection = self._channels.index(request.channel)
        self.received.append(Received(request.method, request.uri, headers, content, connection))
        return self._answer(request)

    def listen(self, test: TestCase, tls: CertificateOptions | None = None) -> int:
        return listen(test, Site(self), tls)


def answering(status: int, body: bytes = b"", **headers: str) -> Recorder:
    """Answers every request alike."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        return body

    return Recorder(answer)


# --- by script ----------------------------------------------------------------------------------


@define
class Script:
    """What happened to a scripted server, on all its connections."""

    play: Callable[[ScriptedPeer, int], None]
    """Called with the connection and the number of the request on it, from 1."""
    requests: list[bytes] = made_by(list)
    open: int = 0
    connections: int = 0
    asked: Deferred[None] = made_by(Deferred)
    """Fires with the first request."""
    _on_closed: list[Deferred[None]] = made_by(list)

    def listen(self, test: TestCase, tls: CertificateOptions | None = None) -> int:
        factory: Any = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda _address: ScriptedPeer(self)
        return listen(test, factory, tls)

    def closed(self) -> Deferred[None]:
        """Fires when no connection is open."""
        d: Deferred[None] = Deferred()
        self._on_closed.append(d)
        self.check_closed()
        return d

    def check_closed(self) -> None:
        while self.open == 0 and self._on_closed:
            self._on_closed.pop().callback(None)


class ScriptedPeer(Protocol):
    """Reads requests and does with each what the script says."""

    transport: Any

    def __init__(self, script: Script) -> None:
        self._script = script
        self._unread = b""
        self._count = 0

    def connectionMade(self) -> None:
        self._script.open += 1
        self._script.connections += 1

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        head, blank, rest = self._unread.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if not blank or len(rest) < size:
            return
        self._script.requests.append(head + blank + rest[:size])
        self._unread = rest[size:]
        self._count += 1
        self._script.play(self, self._count)
        if not self._script.asked.called:
            self._script.asked.callback(None)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self._script.open -= 1
        self._script.check_closed()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.loseConnection()
