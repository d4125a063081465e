"""One timer for everything that has the same time-out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K")


class Deadlines(Generic[K]):
    """Calls ``on_late`` with what was not ended ``seconds`` after it began.

    All have the same time, so the first to begin is the first to be late, and one timer is enough where
    Deferred.addTimeout() would set and cancel one for each.
    """

    def __init__(self, *, seconds: float, clock: IReactorTime, on_late: Callable[[K], object]) -> None:
        self._seconds, self._clock, self._on_late = seconds, clock, on_late
        self._until: dict[K, float] = {}
        self._timer: Any = None

    def begin(self, one: K) -> None:
        self._until[one] = self._clock.seconds() + self._seconds
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._ring)

    def end(self, one: K) -> None:
        if self._until.pop(one, None) is not None and not self._until:
            self.close()

    def all(self) -> tuple[K, ...]:
        """Everything that has begun and not ended."""
        return tuple(self._until)

    def close(self) -> None:
        """Nothing is late any more, until something else begins."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for one, until in list(self._until.items()):
            if until > now:
                self._timer = self._clock.callLater(until - now, self._ring)
                return
            del self._until[one]
            self._on_late(one)
