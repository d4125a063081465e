"""Has the store record an outcome that it could not, over and over until it is known whether it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smsdaemon.domain.model import Delivery
from smsdaemon.errors import StoreUnavailable
from smsdaemon.ports import Timer

AGAIN_SECONDS = 0.5

Settled = Delivery | None
"""The next one of the conversation, where there is one."""


class Recording:
    """Of one outcome. However often it is tried, there is one Deferred for it.

    A Deferred of each try within that of the one before would be a chain that grows for as long as
    PostgreSQL is away, and that cancel() goes along by recursion.
    """

    def __init__(
        self, settle: Callable[[], Deferred[Settled]], *, timer: Timer, may_try_again: Callable[[], bool]
    ) -> None:
        """The first try comes after a while. ``may_try_again`` is asked after each that came to nothing."""
        self._settle, self._timer, self._may_try_again = settle, timer, may_try_again
        self._late: Any = timer.callLater(AGAIN_SECONDS, self._try)
        self.done: Deferred[Settled] = Deferred(lambda _: self._give_up())
        """Fires as the last try does, with StoreUnavailable where no more may be made; may be cancelled."""

    def _try(self) -> None:
        self._late = None
        self._trying = self._settle()
        self._trying.addCallbacks(self._recorded, self._not_recorded)

    def _recorded(self, next_one: Settled) -> None:
        if not self.done.called:
            self.done.callback(next_one)

    def _not_recorded(self, failure: Failure) -> None:
        if self.done.called:
            return
        if failure.check(StoreUnavailable) and self._may_try_again():
            self._late = self._timer.callLater(AGAIN_SECONDS, self._try)
        else:
            self.done.errback(failure)

    def _give_up(self) -> None:
        if self._late is None:
            self._trying.cancel()
        else:
            self._late.cancel()
