"""Requests that wait for the store, none of them longer than contract 3 allows."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from smsdaemon.deadlines import Deadlines
from smsdaemon.deferreds import follower
from smsdaemon.errors import StoreUnavailable

T = TypeVar("T")

ANSWER_SECONDS = 4.9
"""Contract 3 says 5; the rest is for the way there and back."""


class Waiting:
    """Follows what belongs to the store, for as long as a peer is kept waiting.

    Whoever hangs up, or Klein for them, and our own impatience cancel the follower only: a write that
    is cancelled breaks the pool (DESIGN, F1).
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._deadlines: Deadlines[Deferred[Any]] = Deadlines(
            seconds=ANSWER_SECONDS, clock=clock, on_late=_too_slow
        )

    def follow(self, stored: Deferred[T]) -> Deferred[T]:
        """Fires as ``stored`` does, or fails with StoreUnavailable when that takes too long."""
        followed = follower(stored)
        self._deadlines.begin(followed)
        return followed.addBoth(self._ended, followed)

    def _ended(self, result: T, followed: Deferred[Any]) -> T:
        self._deadlines.end(followed)
        return result


def _too_slow(followed: Deferred[Any]) -> None:
    followed.errback(StoreUnavailable(f"the SMS was not stored within {ANSWER_SECONDS} s"))
