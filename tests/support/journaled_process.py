"""Processes with a journal in front of PostgreSQL, on one state folder: a stage of the crash matrix."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from smsdaemon.store.journal_mover import Mover
from smsdaemon.store.journaled import JournaledMessages
from smsdaemon.store.pool import Pool
from tests.support.crash_ledger import Ledger
from tests.support.crash_stage import Stage, StoreProcess
from tests.support.crashing import How, Life
from tests.support.crashing_journal import CrashingJournal

JOURNAL_AFTER_SECONDS = 0.5


class JournaledProcess(StoreProcess):
    """A process that accepts by the journal while PostgreSQL is away."""

    def __init__(
        self, *, name: str, pool: Pool, life: Life, ledger: Ledger, start: datetime, folder: Path
    ) -> None:
        super().__init__(name=name, pool=pool, life=life, ledger=ledger, start=start)
        clock: Any = life.clock
        self.journal = CrashingJournal(folder, life)
        mover = Mover(
            journal=self.journal,
            messages=self.postgres,
            pool=self.pool,
            timer=clock,
            on_moved=self.claim,
        )
        self.journaled = JournaledMessages(
            messages=self.postgres,
            journal=self.journal,
            mover=mover,
            timer=clock,
            journal_after=JOURNAL_AFTER_SECONDS,
        )
        self.messages = self.journaled

    async def begin(self) -> None:
        await self.journal.open()
        self.journaled.start()

    @property
    def settled(self) -> bool:
        return super().settled and not self.journal.pending and not self.journaled.away


class JournaledStage(Stage):
    """Its processes share a journal."""

    def __init__(
        self, pool: Pool, folder: Path, start: datetime, at: int = 0, how: How | None = None
    ) -> None:
        super().__init__(pool, start, at, how)
        self._folder = folder

    def make(self, name: str, life: Life) -> StoreProcess:
        return JournaledProcess(
            name=name, pool=self.pool, life=life, ledger=self.ledger, start=self._start, folder=self._folder
        )

    async def faults(self) -> list[str]:
        found = await super().faults()
        [process] = [p for p in self.living if isinstance(p, JournaledProcess)][:1]
        left = await process.journal.oldest(10)
        if left or process.journal.pending:
            found.append(f"the journal holds {len(left)} and counts {process.journal.pending} after all")
        return found
