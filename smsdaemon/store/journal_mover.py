"""Moves what is in the journal to PostgreSQL, in its order, once each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.errors import SmsDaemonError
from smsdaemon.store.batch import MAX_ROWS
from smsdaemon.store.journal import Journal, JournalEntry
from smsdaemon.store.messages import PostgresMessages
from smsdaemon.store.pool import Pool

PAUSE_SECONDS = 0.5
"""After a round that failed."""


class Mover:
    """Of all processes one has the turn (Journal.begin_moving); the others only ask for PostgreSQL.

    An entry is taken out of the journal after PostgreSQL has committed it. Whoever dies in between
    leaves it there, and the next recognises it by its id.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        messages: PostgresMessages,
        pool: Pool,
        timer: IReactorTime,
        on_moved: Callable[[], object],
    ) -> None:
        """``on_moved``: told after every batch, as there is something to deliver."""
        self._journal, self._messages, self._pool = journal, messages, pool
        self._timer, self._on_moved = timer, on_moved
        self._log = Logger(namespace="smsdaemon.journal")
        self._on_answered: Callable[[], object] = lambda: None
        self._round: Deferred[None] | None = None
        self._not_before = 0.0
        self._said = ""

    def follow(self, answered: Callable[[], object]) -> None:
        """Have ``answered`` called whenever PostgreSQL has answered."""
        self._on_answered = answered

    def wake(self) -> None:
        """There may be something to move; or PostgreSQL was away and may be back."""
        if self._round is not None or not self._pool.alive or self._timer.seconds() < self._not_before:
            return
        self._round = ensureDeferred(self._one_round())
        self._round.addErrback(self._failed).addBoth(self._ended)

    async def close(self) -> None:
        """Come back when nothing is under way; a round that is ends with the pool."""
        self._not_before = float("inf")
        if self._round is not None:
            ended: Deferred[None] = Deferred()
            self._round.addBoth(ended.callback)
            await ended

    async def _one_round(self) -> None:
        if not (self._journal.pending and self._journal.begin_moving()):
            await self._pool.query("SELECT 1")
            self._on_answered()
            return
        try:
            moved = 0
            while entries := await self._journal.oldest(MAX_ROWS):
                await self._move(entries)
                moved += len(entries)
            self._on_answered()
            self._said = ""
            if moved:
                self._log.info("{moved} SMS moved from the journal to PostgreSQL", moved=moved)
        finally:
            self._journal.end_moving()

    async def _move(self, entries: list[JournalEntry]) -> None:
        outcomes = await self._messages.replay([entry.row for entry in entries])
        self._on_answered()
        self._on_moved()
        for entry, refusal in zip(entries, outcomes, strict=True):
            if refusal is not None:
                await self._journal.set_aside(entry, refusal)
        await self._journal.remove(
            [entry for entry, refusal in zip(entries, outcomes, strict=True) if refusal is None]
        )

    def _failed(self, failure: Failure) -> None:
        self._not_before = max(self._not_before, self._timer.seconds() + PAUSE_SECONDS)
        why = str(failure.value)
        if not failure.check(SmsDaemonError):
            self._log.failure("the journal could not be moved", failure=failure)
        elif why != self._said:
            self._log.warn("the journal could not be moved yet: {why}", why=why)
            self._said = why

    def _ended(self, _: Any) -> None:
        self._round = None
