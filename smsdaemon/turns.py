"""So many beginnings in one turn of the reactor, so that what is accepted goes before what is dispatched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from smsdaemon.ports import Timer

T = TypeVar("T")

AT_ONCE = 8


class Turns(Generic[T]):
    """Lets a few begin at once and the others in the turns that follow.

    A batch that is committed sets dozens of deliveries free at the same moment. To begin them all would
    keep waiting those who are to hear their 200, and those who ask; in a turn of the reactor all of these
    are served once. Where nobody asks, a turn is short, and beginning goes on as fast as it can.
    """

    def __init__(self, *, timer: Timer, at_once: int, begin: Callable[[T], object]) -> None:
        self._timer, self._at_once, self._begin = timer, at_once, begin
        self._left = at_once
        self._waiting: deque[T] = deque()
        self._next: Any = None

    def begin(self, one: T) -> None:
        """Now, or in one of the next turns."""
        if self._left:
            self._left -= 1
            if self._next is None:
                self._next = self._timer.callLater(0, self._next_turn)
            self._begin(one)
        else:
            self._waiting.append(one)

    def begin_all(self) -> None:
        """Have nothing wait any longer, and no timer."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._left = self._at_once
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            self._begin(one)

    def _next_turn(self) -> None:
        self._next = None
        self._left = self._at_once
        while self._waiting and self._left:
            self.begin(self._waiting.popleft())
