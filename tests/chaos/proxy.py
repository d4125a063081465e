"""Stands between the daemon and PostgreSQL, and cuts, silences or refuses connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

_WRITES = (b"EXECUTE accept_", b"EXECUTE settle_")
"""What the hot path sends that commits by itself (the protocol's implicit transaction)."""
_COMMIT = b"COMMIT"
_SWALLOWING_SECONDS = 3.0


class Proxy:
    """Forwards TCP connections to a server's Unix socket, as long as nobody minds."""

    def __init__(self, reactor: Any, socket: str) -> None:
        self._reactor, self._socket = reactor, socket
        self._listening: IListeningPort | None = None
        self._connections: set[_FromDaemon] = set()
        self._port = 0
        self._cut: Callable[[], None] | None = None
        self.silent = False

    def listen(self) -> int:
        """Begin to accept connections; gives the port, the same each time."""
        factory = Factory.forProtocol(lambda: _FromDaemon(self))
        factory.noisy = False
        self._listening = self._reactor.listenTCP(self._port, factory, interface="127.0.0.1")
        self._port = cast(IPv4Address, self._listening.getHost()).port
        return self._port

    def refuse(self) -> Deferred[object]:
        """Cut everything and listen no more, until ``listen``."""
        assert self._listening is not None
        listening, self._listening = self._listening, None
        self.cut_all()
        return Deferred.fromCoroutine(_done(listening.stopListening()))

    def cut_all(self) -> None:
        for connection in list(self._connections):
            connection.cut()

    def silence(self) -> None:
        """Forward nothing, and take connections without saying a word, until ``speak``."""
        self.silent = True
        for connection in self._connections:
            connection.pause()

    def speak(self) -> None:
        self.silent = False
        for connection in list(self._connections):
            connection.resume()

    def cut_next_commit(self) -> Deferred[None]:
        """Fires when a connection was cut after its COMMIT had been answered, and before anybody heard."""
        done: Deferred[None] = Deferred(lambda _: setattr(self, "_cut", None))
        self._cut = lambda: done.callback(None)
        return done

    # --- for its connections ------------------------------------------------------------------

    def opened(self, connection: _FromDaemon) -> None:
        self._connections.add(connection)
        if not self.silent:
            connection.reach(self._reactor, self._socket)

    def reach(self, connection: _FromDaemon) -> None:
        connection.reach(self._reactor, self._socket)

    def closed(self, connection: _FromDaemon) -> None:
        self._connections.discard(connection)

    def forwarded(self, statement: bytes, connection: _FromDaemon) -> None:
        """Called with each statement before it is forwarded."""
        if self._cut is None or not _commits(statement):
            return
        cut, self._cut = self._cut, None
        connection.swallow(cut)
        self._reactor.callLater(_SWALLOWING_SECONDS, connection.cut_swallowing)


def _commits(statement: bytes) -> bool:
    return statement.rstrip(b"\0; ") == _COMMIT or any(write in statement for write in _WRITES)


async def _done(maybe: Any) -> object:
    return None if maybe is None else await maybe


class _FromDaemon(Protocol):
    """A connection of the daemon's."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._server: _ToServer | None = None
        self._unsent: list[bytes] = []
        self._frames = _Frames(greeting=True)
        self._swallowed: tuple[_Frames, Callable[[], None]] | None = None
        self._reaching = False

    def connectionMade(self) -> None:
        self._proxy.opened(self)
        if self._proxy.silent:
            self.pause()

    def reach(self, reactor: Any, socket: str) -> None:
        self._reaching = True
        reactor.connectUNIX(socket, _Connecting(self))

    def reached(self, server: _ToServer) -> None:
        self._server = server
        for data in self._unsent:
            server.transport.write(data)  # type: ignore[union-attr]
        self._unsent.clear()
        if self._proxy.silent:
            self.pause()

    def dataReceived(self, data: bytes) -> None:
        for tag, content in self._frames.read(data):
            if tag == b"Q":
                self._proxy.forwarded(content, self)
        if self._server is None:
            self._unsent.append(data)
        else:
            self._server.transport.write(data)  # type: ignore[union-attr]

    def answered(self, data: bytes) -> None:
        """The server said something."""
        if self._swallowed is None:
            self.transport.write(data)  # type: ignore[union-attr]
            return
        frames, _ = self._swallowed
        if any(tag == b"Z" for tag, _ in frames.read(data)):
            self.cut_swallowing()

    def swallow(self, then: Callable[[], None]) -> None:
        """Forward no more of what the server says, and cut the connection when its answer is complete."""
        self._swallowed = (_Frames(greeting=False), then)

    def cut_swallowing(self) -> None:
        if self._swallowed is not None:
            _, then = self._swallowed
            self._swallowed = None
            self.cut()
            then()

    def pause(self) -> None:
        for end in (self, self._server):
            if end is not None and end.transport is not None:
                end.transport.pauseProducing()  # type: ignore[attr-defined]

    def resume(self) -> None:
        if not self._reaching:
            self._proxy.reach(self)
        for end in (self, self._server):
            if end is not None and end.transport is not None:
                end.transport.resumeProducing()  # type: ignore[attr-defined]

    def cut(self) -> None:
        """End both connections at once."""
        for end in (self, self._server):
            if end is not None and end.transport is not None:
                end.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._proxy.closed(self)
        if self._server is not None and self._server.transport is not None:
            self._server.transport.loseConnection()


class _Connecting(ClientFactory):
    """Ends the daemon's connection where the server cannot be reached."""

    noisy = False

    def __init__(self, connection: _FromDaemon) -> None:
        self._connection = connection

    def buildProtocol(self, _address: object) -> _ToServer:
        return _ToServer(self._connection)

    def clientConnectionFailed(self, _connector: object, _reason: object) -> None:
        self._connection.cut()


class _ToServer(Protocol):
    """The connection to PostgreSQL that belongs to one of the daemon's."""

    def __init__(self, connection: _FromDaemon) -> None:
        self._connection = connection

    def connectionMade(self) -> None:
        self._connection.reached(self)

    def dataReceived(self, data: bytes) -> None:
        self._connection.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._connection.transport is not None:
            self._connection.transport.loseConnection()


class _Frames:
    """The messages of PostgreSQL's protocol in a stream: a tag, a length that counts itself, the content."""

    def __init__(self, greeting: bool) -> None:
        """``greeting``: the first message has no tag (a client's)."""
        self._greeting = greeting
        self._buffer = bytearray()

    def read(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Those that are complete now."""
        self._buffer += data
        found: list[tuple[bytes, bytes]] = []
        while True:
            start = 0 if self._greeting else 1
            if len(self._buffer) < start + 4:
                return found
            end = start + int.from_bytes(self._buffer[start : start + 4], "big")
            if len(self._buffer) < end:
                return found
            found.append((bytes(self._buffer[:start]), bytes(self._buffer[start + 4 : end])))
            del self._buffer[:end]
            self._greeting = False
