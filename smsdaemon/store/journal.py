"""SMS that were accepted while PostgreSQL was away, fsynced in the state folder until they are moved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smsdaemon.errors import StoreOverloaded, StoreUnavailable
from smsdaemon.store.journal_file import JournalFile
from smsdaemon.store.journal_lock import ProcessLock
from smsdaemon.store.journal_place import JournalBusy
from smsdaemon.store.journal_rows import JournalEntry

__all__ = ["Journal", "JournalBusy", "JournalEntry"]

T = TypeVar("T")

PATIENCE_SECONDS = 1.4
"""After which an append fails that has not had its turn, in this process or among them."""
PROBE_SECONDS = 5.0
"""How often it is looked whether what was wrong still is."""
UNREADABLE_SECONDS = 10.0
"""What could not be read for so long counts as not there: everything else would wait for it in vain."""
SAY_AGAIN_SECONDS = 10.0


class Journal:
    """One SQLite file for all processes of a daemon; their entries have one order, that of acceptance.

    All work is done in a thread of its own, one step after the other. Nothing here waits for PostgreSQL.
    A failure is always a StoreUnavailable.
    """

    appended: int
    """Entries that this process has stored here since it began, without repeats."""
    failures: int
    """Entries that it could not store."""

    def __init__(
        self,
        *,
        folder: Path,
        reactor: Any,
        max_entries: int = 1_000_000,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        """``folder``: its own; made, closed to others, where it is missing."""
        self._reactor, self._probe_seconds = reactor, probe_seconds
        self._log = Logger(namespace="smsdaemon.journal")
        self._file = JournalFile(folder, max_entries=max_entries, say=self._say_from_thread)
        self._moving = ProcessLock(folder / "moving.lock")
        self._is_moving = False
        self._threads = ThreadPool(1, 1, name="journal")
        self._running = False
        self._trouble: str | None = None
        self._said: dict[str, float] = {}
        self._unreadable_since: float | None = None
        self._probe: Any = None
        self.appended = self.failures = 0

    def start(self) -> Deferred[None]:
        """Open it. Never fails: what is wrong shows in ``trouble``, and is tried again."""
        self._threads.start()
        self._running = True
        return self._look()

    def close(self) -> Deferred[None]:
        """Let go of it when what was asked before is done."""
        if not self._running:
            return succeed(None)
        self._running = False
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self.end_moving()
        self._moving.close()
        d: Deferred[None] = deferToThreadPool(self._reactor, self._threads, self._file.close)
        return d.addBoth(self._closed)

    def _closed(self, result: T) -> T:
        self._threads.stop()  # it has nothing more to do, so this does not wait
        return result

    # --- what it is like now: no system call -----------------------------------------------------

    @property
    def pending(self) -> int:
        """Entries of all processes that wait to be moved; never fewer than were answered.

        1 before the journal could be opened for the first time. 0 also where nothing can be read, which
        ``trouble`` tells.
        """
        since = self._unreadable_since
        if since is not None and self._reactor.seconds() - since > UNREADABLE_SECONDS:
            return 0
        return self._file.pending

    @property
    def aside(self) -> int:
        """Entries, of all processes, that PostgreSQL refused or that were damaged."""
        return self._file.aside

    @property
    def trouble(self) -> str | None:
        """Why nothing can be appended, as far as was seen last; one line for people, or None."""
        return self._trouble

    @property
    def usable(self) -> bool:
        """Whether an append can be tried: it may go through although there was trouble."""
        return self._running

    # --- accepting -----------------------------------------------------------------------------

    def append(self, entries: Sequence[JournalEntry]) -> Deferred[list[UUID]]:
        """Store them together; they are on disk when this fires.

        For each the id that names it: its own, or that of an entry with the same key which is here
        already. Cancelling undoes nothing that has begun.
        """
        if not self._running:
            return fail(StoreUnavailable("the journal is closed"))
        turn = threading.Lock()  # whoever takes it first: the thread, to do it, or the timer, to give it up
        deadline = time.monotonic() + PATIENCE_SECONDS

        def give_up(_: object) -> None:
            turn.acquire(blocking=False)

        done: Deferred[list[UUID]] = Deferred(give_up)

        def in_thread() -> list[UUID] | None:
            return self._file.append(entries, deadline) if turn.acquire(blocking=False) else None

        def too_late() -> None:
            if turn.acquire(blocking=False) and not done.called:
                failure = Failure(JournalBusy("the journal cannot be used: it is busy"))
                self._append_failed(entries, failure)
                done.errback(failure)

        def ended(result: Any) -> None:
            if alarm.active():
                alarm.cancel()
            if isinstance(result, Failure):
                self._append_failed(entries, result)
            elif result is not None:
                self._works(writing=True)
                self.appended += sum(named == entry.id for named, entry in zip(result, entries, strict=True))
            if result is not None and not done.called:
                done.callback(result)

        alarm = self._reactor.callLater(PATIENCE_SECONDS, too_late)
        deferToThreadPool(self._reactor, self._threads, in_thread).addBoth(ended)
        return done

    def _append_failed(self, entries: Sequence[JournalEntry], failure: Failure) -> None:
        self.failures += len(entries)
        self._set_trouble(failure)

    # --- moving --------------------------------------------------------------------------------

    def begin_moving(self) -> bool:
        """Whether this process may move now; if so it is the only one until end_moving() or its death."""
        try:
            self._is_moving = self._moving.try_take()
        except OSError:
            # Nothing can be written there. Two that move are slower than one, but do nothing wrong.
            self._is_moving = True
        return self._is_moving

    def end_moving(self) -> None:
        if self._is_moving:
            self._is_moving = False
            self._moving.release()

    def oldest(self, limit: int, after: int = 0) -> Deferred[list[JournalEntry]]:
        """Up to ``limit`` entries by position, behind that of ``after``; what is damaged is set aside."""
        return self._in_thread(lambda: self._file.oldest(limit, after)).addCallbacks(self._read, self._unread)

    def remove(self, entries: Sequence[JournalEntry]) -> Deferred[None]:
        """They were moved. Where that cannot be written it is remembered: they do not come again here."""
        return self._end(entries, None)

    def set_aside(self, entry: JournalEntry, why: str) -> Deferred[None]:
        """PostgreSQL refuses it as such: keep it where it is in nobody's way. ``why``: no text, no number."""
        self._say(
            LogLevel.critical,
            "the SMS {id} (position {n} of the journal) cannot be moved to PostgreSQL, set aside: {why}",
            id=entry.id,
            n=entry.n,
            why=why,
        )
        return self._end([entry], why)

    def _end(self, entries: Sequence[JournalEntry], why: str | None) -> Deferred[None]:
        d = self._in_thread(lambda: self._file.end(entries, why))
        return d.addCallbacks(lambda _: self._works(writing=True), self._not_ended)

    def _not_ended(self, failure: Failure) -> Failure | None:
        self._set_trouble(failure)
        return None if failure.check(StoreUnavailable) and not failure.check(JournalBusy) else failure

    def _read(self, entries: list[JournalEntry]) -> list[JournalEntry]:
        self._works(writing=False)
        return entries

    def _unread(self, failure: Failure) -> Failure:
        self._set_trouble(failure)
        if self._unreadable_since is None and not failure.check(JournalBusy):
            self._unreadable_since = self._reactor.seconds()
        return failure

    # --- trouble -------------------------------------------------------------------------------

    def _look(self) -> Deferred[None]:
        """See whether it can be written and read."""
        self._probe = None
        d = self._in_thread(self._file.probe)
        return d.addCallbacks(lambda _: self._works(writing=True), self._set_trouble)

    def _works(self, *, writing: bool) -> None:
        self._unreadable_since = None
        if writing and self._trouble is not None:
            self._trouble = None
            self._say(LogLevel.info, "the journal works again")

    def _set_trouble(self, failure: Failure) -> None:
        if failure.check(StoreUnavailable):
            self._trouble = str(failure.value)
        else:
            self._log.failure("the journal failed", failure=failure)
            self._trouble = f"the journal failed: {type(failure.value).__name__}"
        level = LogLevel.error if failure.check(JournalBusy, StoreOverloaded) else LogLevel.critical
        now = self._reactor.seconds()
        if now - self._said.get(self._trouble, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
            self._said = {line: at for line, at in self._said.items() if now - at < SAY_AGAIN_SECONDS}
            self._said[self._trouble] = now
            self._say(level, "nothing can be stored in the journal: {why}", why=self._trouble)
        if self._probe is None and self._running:
            self._probe = self._reactor.callLater(self._probe_seconds, self._look)

    # --- the thread ----------------------------------------------------------------------------

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        if not self._running:
            return fail(StoreUnavailable("the journal is closed"))
        d: Deferred[T] = deferToThreadPool(self._reactor, self._threads, work)
        return d

    def _say(self, level: Any, line: str, **fields: object) -> None:
        self._log.emit(level, line, **fields)

    def _say_from_thread(self, level: Any, line: str, **fields: object) -> None:
        self._reactor.callFromThread(self._say, level, line, **fields)
