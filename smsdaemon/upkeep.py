"""What has to be done in the database now and then, by one process of a daemon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import SmsDaemonError
from smsdaemon.store.concatenations import Patience, forget_concatenations, give_up_overdue
from smsdaemon.store.messages import forget_repeats
from smsdaemon.store.migrate import migrate
from smsdaemon.store.nonces import forget_nonces
from smsdaemon.store.pool import Pool
from smsdaemon.store.refused import forget_refused
from smsdaemon.store.safety import GuaranteeInForce

UPKEEP_SECONDS = 3600.0
GUARANTEE_SECONDS = 60.0
OVERDUE_SECONDS = 5.0
"""How often it is looked for concatenated SMS whose time is over; more often where that time is short."""
JOURNALED_SECONDS = 3600.0
"""How much longer parts are waited for while others may be in the journal: they have come, although
PostgreSQL does not know. Bounded, as a journal may be stuck."""


class Upkeep:
    """Runs from the time when the schema is there."""

    def __init__(
        self,
        *,
        pool: Pool,
        guarantee: GuaranteeInForce,
        patience: Patience,
        journaled: Callable[[], bool],
        reactor: Any,
    ) -> None:
        """``journaled``: whether the journal may hold what is not in PostgreSQL yet."""
        self._pool, self._guarantee, self._patience = pool, guarantee, patience
        self._journaled = journaled
        self._log = Logger(namespace="smsdaemon")
        self._hourly = LoopingCall(lambda: ensureDeferred(self._once()))
        self._looks = LoopingCall(self._look)
        self._gives_up = LoopingCall(lambda: ensureDeferred(self._give_up()))
        self._hourly.clock = self._looks.clock = self._gives_up.clock = reactor
        self._trouble = ""

    def start(self) -> None:
        self._hourly.start(UPKEEP_SECONDS, now=False).addErrback(self._failed)
        self._looks.start(GUARANTEE_SECONDS, now=False).addErrback(self._failed)
        seconds = min(OVERDUE_SECONDS, self._patience.seconds / 4)
        self._gives_up.start(seconds, now=True).addErrback(self._failed)

    def stop(self) -> None:
        """What is under way ends with the pool."""
        for call in (self._hourly, self._looks, self._gives_up):
            if call.running:
                call.stop()

    async def _once(self) -> None:
        try:
            await migrate(self._pool)  # makes the coming months' partitions
            await forget_repeats(self._pool)
            await forget_refused(self._pool)
            await forget_nonces(self._pool)
            await forget_concatenations(self._pool)
        except SmsDaemonError as error:
            self._log.warn("upkeep failed, next try in an hour: {why}", why=str(error))

    async def _give_up(self) -> None:
        try:
            count = await give_up_overdue(self._pool, self._patience_now())
        except SmsDaemonError as error:
            if str(error) != self._trouble:
                self._log.warn("overdue SMS could not be looked for: {why}", why=str(error))
            self._trouble = str(error)
            return
        self._trouble = ""
        if count:
            self._log.warn("{count} concatenated SMS given up: parts are missing", count=count)

    def _patience_now(self) -> Patience:
        longer = JOURNALED_SECONDS if self._journaled() else 0.0
        return evolve(self._patience, seconds=self._patience.seconds + longer)

    def _look(self) -> Deferred[None]:
        return self._guarantee.look_again()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("upkeep stopped", failure=failure)
