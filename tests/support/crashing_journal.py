"""A journal whose process comes to grief at a chosen await, on a real file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, ensureDeferred

from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.journal import Journal, JournalBusy, JournalEntry
from tests.support.crashing import Life, reactor

T = TypeVar("T")


class _Reactor:
    """The real one's threads, and the process' own time."""

    def __init__(self, life: Life) -> None:
        self.seconds, self.callLater = life.clock.seconds, life.clock.callLater
        self.callFromThread = reactor.callFromThread


class CrashingJournal(Journal):
    """Counts what is asked of it as awaits; what fails is what a busy or a full disk does."""

    def __init__(self, folder: Path, life: Life) -> None:
        super().__init__(folder=folder, reactor=_Reactor(life))
        self._life = life
        life.belongings.append(super().close)

    def open(self) -> Deferred[None]:
        """start(), which is not counted."""
        return ensureDeferred(self._life.work(super().start))

    def append(self, entries: Sequence[JournalEntry]) -> Deferred[list[UUID]]:
        return self._counted("append", lambda: super(CrashingJournal, self).append(entries))

    def oldest(self, limit: int, after: int = 0) -> Deferred[list[JournalEntry]]:
        return self._counted("oldest", lambda: super(CrashingJournal, self).oldest(limit, after))

    def remove(self, entries: Sequence[JournalEntry]) -> Deferred[None]:
        return self._counted("remove", lambda: super(CrashingJournal, self).remove(entries))

    def set_aside(self, entry: JournalEntry, why: str) -> Deferred[None]:
        return self._counted("set_aside", lambda: super(CrashingJournal, self).set_aside(entry, why))

    def end_moving(self) -> None:
        # The system gave back the lock of one that is dead; what of it is collected must not do it again.
        if not self._life.dead:
            super().end_moving()

    def _counted(self, what: str, do: Callable[[], Awaitable[T]]) -> Deferred[T]:
        async def steps() -> T:
            try:
                return await self._life.awaited(f"journal.{what}", do, _nothing)
            except StoreUnavailable as error:
                raise JournalBusy("the journal is busy") from error

        return self._life.lives(steps())


async def _nothing() -> Any:
    return None
