"""What accepts and delivers: all of the daemon's work, in the daemon's process or in one of several."""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, ensureDeferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.backends.http import HttpBackend
from smsdaemon.deferreds import InFlight, follower
from smsdaemon.dispatch import Dispatcher
from smsdaemon.doors import PublicDoor
from smsdaemon.drift import DriftWatch
from smsdaemon.drift_keeper import DriftKeeper
from smsdaemon.metrics import Metrics
from smsdaemon.ports import MessageStore
from smsdaemon.refusals import Refusals
from smsdaemon.store.deliveries import PostgresDeliveries
from smsdaemon.store.directory import DirectorySnapshot
from smsdaemon.store.journal import Journal
from smsdaemon.store.journaled import JournaledMessages
from smsdaemon.store.messages import PostgresMessages
from smsdaemon.store.nonces import PostgresNonces
from smsdaemon.store.pool import Listener, Pool
from smsdaemon.store.refused import PostgresRefused
from smsdaemon.worker_state import JournalState, WorkerState

REFUSED_SECONDS = 1.0
"""At the end, for writing down what was refused."""
_REQUESTS_SECONDS = 1.0
"""At least, for acceptances under way, whatever attempts have left of shutdown_seconds."""
_GIVING_BACK_SECONDS = 1.0
_COUNT_SECONDS = 1.0


@frozen(kw_only=True)
class Journaling:
    """What accepts while PostgreSQL is away."""

    journal: Journal
    messages: JournaledMessages


@frozen(kw_only=True)
class WorkerParts:
    """What runs, in the order in which it is started."""

    journaling: Journaling | None
    pool: Pool
    listener: Listener
    directory: DirectorySnapshot
    postgres: PostgresMessages
    nonces: PostgresNonces
    deliveries: PostgresDeliveries
    http_backend: HttpBackend
    dispatcher: Dispatcher
    refused: PostgresRefused
    refusals: Refusals
    requests: InFlight
    """Acceptances under way."""
    drift: DriftWatch
    drift_keeper: DriftKeeper

    @property
    def messages(self) -> MessageStore:
        """Where accepted SMS go first."""
        return self.postgres if self.journaling is None else self.journaling.messages


class Readiness:
    """Whether an SMS could be accepted now."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self.journal_opened = self.stopping = False

    def __call__(self) -> bool:
        return not self.stopping and self._parts.directory.loaded and (self._commits() or self._journals())

    def _commits(self) -> bool:
        journaling = self._parts.journaling
        return self._parts.pool.alive > 0 and not (journaling is not None and journaling.messages.away)

    def _journals(self) -> bool:
        journaling = self._parts.journaling
        return self.journal_opened and journaling is not None and _is_sound(journaling.journal)

    def state(self) -> WorkerState:
        parts = self._parts
        return WorkerState(
            accepts=self(),
            database=self._commits(),
            directory=parts.directory.loaded,
            journal=None if parts.journaling is None else self._journal_state(parts.journaling.journal),
            breakers=len(parts.dispatcher.open_breakers),
            drift=parts.drift.states(),
        )

    def _journal_state(self, journal: Journal) -> JournalState:
        if not self.journal_opened:
            return JournalState(usable=False, pending=0, aside=0, trouble="it is not opened yet")
        return JournalState(
            usable=_is_sound(journal),
            pending=journal.pending,
            aside=journal.aside,
            trouble=journal.trouble or "",
        )


def _is_sound(journal: Journal) -> bool:
    return journal.usable and journal.trouble is None


class Worker:
    """Starts the parts in order and stops them in the reverse. Its listening is its owner's business."""

    def __init__(
        self,
        *,
        parts: WorkerParts,
        readiness: Readiness,
        door: PublicDoor,
        metrics: Metrics,
        journal_after: float,
        shutdown_seconds: float,
        reactor: Any,
    ) -> None:
        self._parts, self._readiness, self.door, self._metrics = parts, readiness, door, metrics
        self._journal_after, self._shutdown_seconds = journal_after, shutdown_seconds
        self._reactor = reactor
        self._log = Logger(namespace="smsdaemon")
        self._starting: list[Deferred[None]] = []
        self._counting = LoopingCall(self._count)
        self._counting.clock = reactor
        self._journaled = self._not_journaled = 0

    @property
    def accepts(self) -> bool:
        """Whether an SMS could be accepted now."""
        return self._readiness()

    def state(self) -> WorkerState:
        return self._readiness.state()

    # --- start --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what needs no PostgreSQL: with the journal it may be possible to accept."""
        self._parts.drift_keeper.start()
        if self._parts.journaling is not None:
            self._begin(self._with_journal(self._parts.journaling))
            self._counting.start(_COUNT_SECONDS, now=False).addErrback(self._not_started)

    def database_ready(self) -> None:
        """PostgreSQL has the schema, so that the rest can start; it may be away again by now."""
        self._begin(self._with_database())

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        begun = ensureDeferred(step)
        self._starting.append(begun)
        begun.addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a part of the worker could not be started", failure=failure)

    async def _with_journal(self, journaling: Journaling) -> None:
        await follower(journaling.journal.start())  # which our end must not break off
        self._readiness.journal_opened = True
        journaling.messages.start()
        await deferLater(self._reactor, self._journal_after)
        if not self._parts.directory.loaded:
            await self._parts.directory.use_copy()

    async def _with_database(self) -> None:
        parts = self._parts
        parts.pool.start()
        parts.listener.start()
        await parts.directory.start()
        parts.dispatcher.start()
        # What lives now lives to the end; the collector need not look at it again.
        gc.collect()
        gc.freeze()

    # --- what the journal counts, for the metrics ---------------------------------------------

    def _count(self) -> None:
        journaling = self._parts.journaling
        if journaling is None:
            return
        appended, failures = journaling.journal.appended, journaling.journal.failures
        self._metrics.journaled(appended - self._journaled)
        self._metrics.journal_failed(failures - self._not_journaled)
        self._journaled, self._not_journaled = appended, failures

    # --- stop ---------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Let requests and attempts under way end; what is pending stays pending.

        Nothing may listen any more.
        """
        parts = self._parts
        self.wind_down()
        for starting in self._starting:
            starting.cancel()
        until = self._reactor.seconds() + self._shutdown_seconds
        await parts.dispatcher.stop(self._shutdown_seconds)
        left = max(_REQUESTS_SECONDS, until - self._reactor.seconds())
        # Where PostgreSQL is frozen they would never end; their peers hear 500 in time.
        with suppress(TimeoutError):
            await parts.requests.drained().addTimeout(left, self._reactor)
        # What these were still given a lease for goes back: else it would wait for the lease's end.
        await parts.dispatcher.stop(_GIVING_BACK_SECONDS)
        parts.drift_keeper.stop()
        parts.directory.stop()
        parts.listener.close()
        await parts.refused.stop(REFUSED_SECONDS)
        parts.postgres.close()
        parts.nonces.close()
        parts.deliveries.close()
        await parts.http_backend.close()
        # A batch on its way from the journal to PostgreSQL ends with the pool.
        closing = [parts.pool.close()]
        if parts.journaling is not None:
            closing.append(ensureDeferred(parts.journaling.messages.close()))
        for closed in closing:
            await closed
        await self._close_journal()

    async def _close_journal(self) -> None:
        if self._counting.running:
            self._counting.stop()
        if self._parts.journaling is not None:
            self._count()
            await self._parts.journaling.journal.close()

    def wind_down(self) -> None:
        """Not ready any more, and every further answer closes its connection."""
        self._readiness.stopping = True
        self.door.wind_down()
