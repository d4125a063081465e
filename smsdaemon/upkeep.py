"""What has to be done in the database now and then, by one process of a daemon."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import SmsDaemonError
from smsdaemon.store.messages import forget_repeats
from smsdaemon.store.migrate import migrate
from smsdaemon.store.nonces import forget_nonces
from smsdaemon.store.pool import Pool
from smsdaemon.store.refused import forget_refused
from smsdaemon.store.safety import GuaranteeInForce

UPKEEP_SECONDS = 3600.0
GUARANTEE_SECONDS = 60.0


class Upkeep:
    """Runs from the time when the schema is there."""

    def __init__(self, *, pool: Pool, guarantee: GuaranteeInForce, reactor: Any) -> None:
        self._pool, self._guarantee = pool, guarantee
        self._log = Logger(namespace="smsdaemon")
        self._hourly = LoopingCall(lambda: ensureDeferred(self._once()))
        self._looks = LoopingCall(self._look)
        self._hourly.clock = self._looks.clock = reactor

    def start(self) -> None:
        self._hourly.start(UPKEEP_SECONDS, now=False).addErrback(self._failed)
        self._looks.start(GUARANTEE_SECONDS, now=False).addErrback(self._failed)

    def stop(self) -> None:
        """What is under way ends with the pool."""
        for call in (self._hourly, self._looks):
            if call.running:
                call.stop()

    async def _once(self) -> None:
        try:
            await migrate(self._pool)  # makes the coming months' partitions
            await forget_repeats(self._pool)
            await forget_refused(self._pool)
            await forget_nonces(self._pool)
        except SmsDaemonError as error:
            self._log.warn("upkeep failed, next try in an hour: {why}", why=str(error))

    def _look(self) -> Deferred[None]:
        return self._guarantee.look_again()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("upkeep stopped", failure=failure)
