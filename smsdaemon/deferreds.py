"""Deferreds with an owner."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import SmsDaemonError

_log = Logger()
_T = TypeVar("_T")


def follower(leader: Deferred[_T]) -> Deferred[_T]:
    """A Deferred that fires as ``leader`` does and may be cancelled without touching it.

    The leader's result is used up. A failure that comes after the follower was cancelled is of no
    use to anybody; it is logged where it is not one of ours.
    """
    followed: Deferred[_T] = Deferred()

    def follow(result: _T | Failure) -> None:
        if not followed.called:
            followed.callback(result)
        elif isinstance(result, Failure) and not result.check(SmsDaemonError):
            _log.failure("nobody waited any more for what failed", failure=result)

    leader.addBoth(follow)
    return followed


class InFlight:
    """What is under way, so that an ordered stop can wait for it."""

    def __init__(self) -> None:
        self._under_way: set[Deferred[Any]] = set()
        self._drained: Deferred[None] | None = None

    def add(self, d: Deferred[_T]) -> Deferred[_T]:
        """Own ``d`` until it fires; gives it back with its result untouched."""
        self._under_way.add(d)
        return d.addBoth(self._ended, d)

    def drained(self) -> Deferred[None]:
        """Fires when nothing is under way."""
        drained: Deferred[None] = Deferred()
        self._drained = drained
        self._check()
        return drained

    def _ended(self, result: _T, d: Deferred[Any]) -> _T:
        self._under_way.discard(d)
        self._check()
        return result

    def _check(self) -> None:
        if self._drained is not None and not self._under_way:
            drained, self._drained = self._drained, None
            drained.callback(None)
