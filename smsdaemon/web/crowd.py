"""Connections beyond the bound: each is told so in a few bytes, and those beyond that bound are closed."""

# mypy: allow-untyped-calls

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, cast

from twisted.internet import protocol
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReactorTime, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import StoreUnavailable
from smsdaemon.web.answers import Answer, refused, wants_json
from smsdaemon.web.errors import detail, refusal
from smsdaemon.web.heads import head_lines

QUIET_SECONDS = 60.0
"""Between two lines in the log."""

_HEAD_BYTES = 16384
"""As much is read of a request that is not served."""
_ACCEPT = re.compile(rb"(?im)^accept[ \t]*:([^\r\n]*)")


class CrowdBounds(Protocol):
    """The part of bounded.Bounds that is about many connections."""

    @property
    def connections(self) -> int: ...
    @property
    def told_connections(self) -> int: ...
    @property
    def telling_seconds(self) -> float: ...
    @property
    def swallowed_bytes(self) -> int: ...
    @property
    def swallowing_seconds(self) -> float: ...


class Crowd:
    """Counts the connections of a site."""

    _log = Logger()

    def __init__(
        self,
        *,
        bounds: CrowdBounds,
        clock: IReactorTime,
        date_line: Callable[[], bytes],
        observe: Callable[[int, float], object],
    ) -> None:
        self.bounds, self.clock = bounds, clock
        self.date_line, self.observe = date_line, observe
        self.served = 0
        """Connections that are open and get answers of the site."""
        self.told = 0
        """Connections that are open and are or will be told that there are too many."""
        self.turned_away = 0
        """All that were not served so far."""
        self._quiet_until = -QUIET_SECONDS

    def full(self) -> bool:
        """Whether a further connection is to be turned away."""
        return self.served >= self.bounds.connections

    def turn_away(self) -> bool:
        """Count a connection that is not served; says whether it is worth telling."""
        self.turned_away += 1
        if self.clock.seconds() >= self._quiet_until:
            self._quiet_until = self.clock.seconds() + QUIET_SECONDS
            self._log.warn(
                "too many connections: {served} are served, others hear 500 or are closed"
                " ({turned_away} since the start)",
                served=self.served,
                turned_away=self.turned_away,
            )
        return self.told < self.bounds.told_connections


class TurnedAway(protocol.Protocol):
    """One connection that is not served: as soon as its headers are there, or do not come, it hears 500."""

    transport: Any

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._head = b""
        self._swallowed = 0
        self._is_told = self._counts = False
        self._next: Any = None

    def connectionMade(self) -> None:
        if not self._crowd.turn_away():
            self.transport.abortConnection()
            return
        self._crowd.told += 1
        self._counts = True
        self._next = self._crowd.clock.callLater(self._crowd.bounds.telling_seconds, self._tell)

    def dataReceived(self, data: bytes) -> None:
        if not self._counts:
            return
        if not self._is_told:
            self._head += data
            if b"\r\n\r\n" in self._head or len(self._head) > _HEAD_BYTES:
                self._next.cancel()
                self._tell()
            return
        self._swallowed += len(data)
        if self._swallowed > self._crowd.bounds.swallowed_bytes:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._counts:
            self._counts = False
            self._crowd.told -= 1
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _tell(self) -> None:
        """Answer; then read on for a while, so that the peer gets to read that (RFC 9112, 9.6)."""
        crowd, answer = self._crowd, _answer(self._head)
        text = b"" if self._head.startswith(b"HEAD ") else answer.body
        self._is_told, self._head = True, b""
        self.transport.write(head_lines(answer, crowd.date_line(), closes=True) + text)
        crowd.observe(answer.status, 0.0)
        # Whoever has not read the answer by then does not want it: over TLS a proper close would wait.
        self._next = crowd.clock.callLater(crowd.bounds.swallowing_seconds, self.transport.abortConnection)
        if not ISSLTransport.providedBy(self.transport):
            half_close(self.transport)


def half_close(transport: object) -> None:
    """Say that nothing more will come, and go on reading; where that cannot be said, do nothing."""
    if IHalfCloseableDescriptor.providedBy(transport):
        cast(Any, transport).loseWriteConnection()


def _answer(head: bytes) -> Answer:
    """500 with Retry-After, as for everything that could not be stored."""
    error = StoreUnavailable("too many connections")
    row = refusal(error)
    accept = b",".join(_ACCEPT.findall(head.partition(b"\r\n\r\n")[0]))
    return refused(row, detail(error, row), wants_json(accept.strip()))
