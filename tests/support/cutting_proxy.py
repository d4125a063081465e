"""A way to PostgreSQL that can be cut after a statement was carried out and before it is answered."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, cast

from psycopg2 import extensions
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.support.cases import ReactorTest
from tests.support.postgres import reachable_folder

reactor = cast(Any, _reactor)


class CuttingProxy:
    """Carries bytes both ways; on demand it swallows an answer and breaks the connection instead."""

    def __init__(self, test: ReactorTest, dsn: str, *, tcp: bool = False) -> None:
        """``dsn``: of a server on a Unix socket, as the test's own; ``tcp``: how the proxy is reached."""
        parts = extensions.parse_dsn(dsn)
        name = f".s.PGSQL.{parts.get('port', '5432')}"
        self.server = str(Path(parts["host"]) / name)
        factory: Any = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda _: _Front(self)
        if tcp:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            where = {"host": "127.0.0.1", "port": port.getHost().port}
        else:
            folder = reachable_folder()
            port = reactor.listenUNIX(str(folder / name), factory)
            test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
            where = {"host": str(folder)}
        test.addCleanup(port.stopListening)
        self.dsn: str = extensions.make_dsn(dsn, requirepeer="", **where)
        self.cut_when_asked = b""
        """The next answer to a statement that contains this is not passed on."""
        self.cuts = 0
        self.fronts: set[_Front] = set()

    def break_all(self) -> None:
        """Every connection that there is, with whatever is on its way."""
        for front in tuple(self.fronts):
            front.transport.abortConnection()


class _Front(Protocol):
    """Towards the client."""

    transport: Any

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.back: Any = None
        self._early: list[bytes] = []
        self.swallow = False

    def connectionMade(self) -> None:
        self.proxy.fronts.add(self)
        d = connectProtocol(UNIXClientEndpoint(reactor, self.proxy.server), _Back(self))
        d.addErrback(lambda _: self.transport.loseConnection())

    def ready(self, back: Any) -> None:
        self.back = back
        for data in self._early:
            back.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        wanted = self.proxy.cut_when_asked
        if wanted and wanted in data:
            self.proxy.cut_when_asked, self.swallow = b"", True
        if self.back is None:
            self._early.append(data)
        else:
            self.back.transport.write(data)

    def answered(self, data: bytes) -> None:
        if self.swallow:
            self.proxy.cuts += 1
            self.transport.abortConnection()
        else:
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.fronts.discard(self)
        if self.back is not None:
            self.back.transport.loseConnection()


class _Back(Protocol):
    """Towards the server."""

    transport: Any

    def __init__(self, front: _Front) -> None:
        self._front = front

    def connectionMade(self) -> None:
        self._front.ready(self)

    def dataReceived(self, data: bytes) -> None:
        self._front.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._front.transport.loseConnection()
