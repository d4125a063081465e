"""Connections to targets, and which of them wait for the next request."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from smsdaemon.backends.wire import Connection

IDLE_SECONDS = 30.0
CLOSING_SECONDS = 2.0
"""A TLS peer may leave our goodbye unanswered."""


class Connections:
    """Those to one host, by one scheme and port: any is as good as any other. Implements wire.Owner.

    The one that was used last is used next, so that those that are not needed get old.
    """

    def __init__(self, *, keep: int, clock: IReactorTime) -> None:
        """``keep``: so many stay open while there is nothing to do for them."""
        self._keep, self._clock = keep, clock
        self._all: set[Connection] = set()
        self._idle: deque[tuple[float, Connection]] = deque()
        self._sweep: Any = None
        self._closed: Deferred[None] | None = None

    def take(self) -> Connection | None:
        """An idle one that is open as far as is known, for the taker alone."""
        while self._idle:
            _, connection = self._idle.pop()
            if connection.open:
                return connection
        return None

    def made(self, connection: Connection) -> None:
        self._all.add(connection)

    def idle(self, connection: Connection) -> None:
        if self._closed is not None or len(self._idle) >= self._keep:
            connection.close()
            return
        self._idle.append((self._clock.seconds(), connection))
        if self._sweep is None:
            self._sweep = self._clock.callLater(IDLE_SECONDS, self._close_old)

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._check_closed()

    def close(self) -> Deferred[None]:
        """Close all of them, and those that come later; fires when that is done, or after a while."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        closed: Deferred[None] = Deferred()
        closed.addTimeout(CLOSING_SECONDS, self._clock)
        closed.addErrback(lambda failure: failure.trap(TimeoutError) and None)
        self._closed = closed
        for connection in tuple(self._all):
            connection.close()
        self._check_closed()
        return closed

    def _check_closed(self) -> None:
        if self._closed is not None and not self._all and not self._closed.called:
            self._closed.callback(None)

    def _close_old(self) -> None:
        now = self._clock.seconds()
        while self._idle and (self._idle[0][0] <= now - IDLE_SECONDS or not self._idle[0][1].open):
            self._idle.popleft()[1].close()
        self._sweep = None
        if self._idle:
            left = self._idle[0][0] + IDLE_SECONDS - now
            self._sweep = self._clock.callLater(left, self._close_old)
