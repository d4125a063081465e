"""A peer that speaks HTTP byte by byte, so that it can also speak it badly."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

reactor: Any = _reactor


@frozen
class Response:
    """One answer, as it came."""

    status: int
    headers: dict[str, str]
    """Names in lower case; a name that comes twice fails to parse."""
    body: bytes


async def eventually(true: Callable[[], object]) -> None:
    """Wait until something is true; trial's own timeout says when that never happens."""
    while not true():
        await deferLater(reactor, 0.005, lambda: None)


def parse(raw: bytes, *, of_head: bool = False) -> tuple[list[Response], bytes]:
    """All whole answers in what came, and what is left; every answer must say its length."""
    responses: list[Response] = []
    while True:
        head, blank, rest = raw.partition(b"\r\n\r\n")
        if not blank:
            return responses, raw
        status_line, *lines = head.decode("ascii").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} comes twice"
            headers[name.lower()] = value
        version, status, _reason = status_line.split(" ", 2)
        assert version == "HTTP/1.1", version
        length = 0 if of_head else int(headers["content-length"])
        if len(rest) < length:
            return responses, raw
        responses.append(Response(int(status), headers, rest[:length]))
        raw = rest[length:]


class RawPeer(Protocol):
    """One connection."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.closed = False

    @classmethod
    async def connect(cls, port: int, trust_root: Any = None) -> RawPeer:
        """A connection to a port of this machine; over TLS where it is said whom to trust."""
        endpoint: Any = HostnameEndpoint(reactor, "127.0.0.1", port)
        if trust_root is not None:
            endpoint = wrapClientTLS(optionsForClientTLS("127.0.0.1", trust_root), endpoint)
        peer: RawPeer = await connectProtocol(endpoint, cls())
        return peer

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = True

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.loseConnection()

    def abort(self) -> None:
        self.transport.abortConnection()

    async def answers(self, count: int) -> list[Response]:
        """Wait for that many answers, or for the other side to close."""
        await eventually(lambda: self.closed or len(parse(self.received)[0]) >= count)
        return parse(self.received)[0]

    async def end(self) -> None:
        """Wait for the other side to close."""
        await eventually(lambda: self.closed)

    async def ask(self, request: bytes) -> Response:
        """Send a request and wait for the one answer that follows what has come so far."""
        before = len(parse(self.received)[0])
        self.send(request)
        return (await self.answers(before + 1))[before]


class BlockingPeer:
    """The same for threads, where Hypothesis runs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> Response:
        """Send a request, on a new connection where the last one was closed, and await the answer."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        with suppress(OSError):  # closed on us in the middle; the answer may have come before
            self._socket.sendall(request)
        received = b""
        while not (responses := parse(received)[0]):
            data = self._socket.recv(65536)
            assert data, f"closed after {received!r}"
            received += data
        if responses[0].headers.get("connection") == "close":
            self.close()
        return responses[0]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
