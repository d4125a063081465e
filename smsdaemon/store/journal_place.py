"""The place of the journal's file: one process at a time, and another file in it when one is damaged.

One process at a time has the journal, by an flock on its folder, for one transaction. So there is somebody
who may put another file in its place (a damaged one is read and replaced), and the others, which compare
what they have open with what is there, take that one. SQLite itself, finding its file moved, leaves alone
the log that is there by the same name.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from twisted.logger import LogLevel

from smsdaemon.errors import StoreUnavailable
from smsdaemon.store import journal_layout as layout
from smsdaemon.store.journal_counts import Counts, OwnCounts, SharedCounts
from smsdaemon.store.journal_layout import Damaged, OfLaterVersion
from smsdaemon.store.journal_lock import ProcessLock
from smsdaemon.store.journal_pages import DamagedFile, write_ahead_log

T = TypeVar("T")
Say = Callable[..., object]
"""Called with a LogLevel, a format and its fields."""

LOCK_SECONDS = 1.0
BETWEEN_RESCUES_SECONDS = 10.0


class JournalBusy(StoreUnavailable):
    """Another process has the journal, and may be stopped; it can be asked again at once."""


class JournalPlace:
    """Everything here blocks, and fails with StoreUnavailable where it is given work to do."""

    def __init__(self, folder: Path, say: Say) -> None:
        self._folder, self._say = folder, say
        self.path = folder / "journal"
        self._lock = ProcessLock(folder, folder=True)
        self._db: sqlite3.Connection | None = None
        self._opened = (0, 0)
        self.counts: Counts | None = None
        """As of the file that was open last; None before there was one."""
        self.known = False
        """Whether it was opened, or there is none that can be."""
        self._read_only = ""
        self._no_rescue_before = 0.0

    def with_file(self, work: Callable[[sqlite3.Connection], T], deadline: float | None = None) -> T:
        """Do it with the file that is in place, or, if that is damaged, with what was rescued from it."""
        try:
            self._take_lock(time.monotonic() + LOCK_SECONDS if deadline is None else deadline)
            try:
                try:
                    return work(self.current())
                except Damaged as damage:
                    self._rescue(str(damage))
                except sqlite3.Error as error:
                    if self._read_only or not layout.is_damage(error):
                        raise
                    self._rescue(f"SQLite finds it damaged: {error}")
                return work(self.current())
            finally:
                self._lock.release()
        except (sqlite3.Error, OSError, Damaged, OfLaterVersion) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> StoreUnavailable:
        if self._db is not None and self._db.in_transaction:
            self._forget_file()
        if isinstance(error, sqlite3.Error) and layout.is_busy(error):
            return JournalBusy("the journal cannot be used: another program has it locked")
        self.known = True
        if self.counts is None:
            self.counts = self._counts_of_others()
        return StoreUnavailable(f"the journal cannot be used: {layout.explained(error)}")

    def _take_lock(self, deadline: float) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "its folder is a file") from None
        if not self._lock.take_until(deadline):
            raise JournalBusy("the journal cannot be used: another process has it, and may be stopped")

    def current(self) -> sqlite3.Connection:
        if self._db is not None and self.counts is not None and not self._read_only:
            if self._is_in_place() and self.counts.is_in_place():
                return self._db
            if not self.path.exists() and self.counts.pending:
                gone = "the journal's file is gone, and {pending} SMS with it"
                self._say(LogLevel.critical, gone, pending=self.counts.pending)
        elif self._db is not None and not self._may_be_written():
            return self._db
        self._forget_file()
        return self._open()

    def _is_in_place(self) -> bool:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._opened

    def _may_be_written(self) -> bool:
        return all(os.access(path, os.W_OK) for path in (self._folder, self.path))

    def need_writing(self) -> Counts:
        if self._read_only or self.counts is None:
            raise StoreUnavailable(self._read_only)
        return self.counts

    def close(self) -> None:
        """SQLite empties the log where this is the last process to close it."""
        with suppress(OSError):
            self._lock.take_until(time.monotonic() + LOCK_SECONDS)
        self._forget_file()
        self.counts = None
        self._lock.close()

    # --- opening -------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            db = self._open_for_writing()
        except (sqlite3.Error, OSError) as error:
            full = layout.has_no_room(error)
            if not (full or layout.is_read_only(error)) or not self.path.exists():
                raise
            # What is in it goes before what comes, so it must be known, and can be moved.
            why = "the disk is full" if full else "it or its folder is read-only"
            self._read_only = f"the journal cannot be written to: {why}"
            db = self._open_for_reading()
        self.known = True
        return db

    def _open_for_writing(self) -> sqlite3.Connection:
        self._finish_replacing()
        log = self.path.with_name("journal-wal")
        if not self.path.exists() or not self.path.stat().st_size:
            if log.exists() and log.stat().st_size:
                raise Damaged("its file is missing or empty, its log is not")
            self.begin()
        # SQLite would take no notice: what follows a damaged part of the log never was, for it.
        if write_ahead_log(log).damaged:
            raise Damaged("its log is damaged")
        found = self.path.stat()
        db = layout.connect(self.path)
        try:
            db.execute(layout.WRITE_SOMETHING)
            counts = SharedCounts(self._folder / "pending")
            counted = counts.pending
            pending, aside = db.execute(layout.COUNT).fetchone()
            counts.set(pending=pending, aside=aside)
        except BaseException:
            db.close()
            raise
        self._db, self.counts, self._opened = db, counts, (found.st_dev, found.st_ino)
        if counts.pending < counted:
            fewer = (
                "the journal holds {pending} SMS, {counted} were counted: somebody was killed while writing"
            )
            self._say(LogLevel.warn, fewer, pending=counts.pending, counted=counted)
        return db

    def _open_for_reading(self) -> sqlite3.Connection:
        """A copy in memory: SQLite itself cannot read a log in a folder that it cannot write to."""
        file = DamagedFile(self.path, write_ahead_log(self.path.with_name("journal-wal")))
        try:
            db = layout.private_copy(file.rows())
        finally:
            file.close()
        pending, aside = db.execute(layout.COUNT).fetchone()
        # A full disk has room again some time, and then others write.
        self._db, self.counts = db, self._counts_of_others() or OwnCounts(pending, aside)
        return db

    def _counts_of_others(self) -> SharedCounts | None:
        """None on a disk that nobody can write to."""
        try:
            return SharedCounts(self._folder / "pending")
        except OSError:
            return None

    def begin(self, rows: Sequence[tuple[Any, ...]] = (), *, behind: int = 0) -> None:
        """Have an empty journal in place, but for ``rows``."""
        new = self._folder / "journal.making"
        layout.make(new, rows, behind=behind)
        for path in layout.beside(self.path)[1:]:
            path.unlink(missing_ok=True)
        new.rename(self.path)
        layout.sync_folder(self._folder)
        layout.sync_folder(self._folder.parent)

    def _forget_file(self) -> None:
        # What was counted last stays, for the other threads, until it is counted anew.
        db, self._db, self._read_only = self._db, None, ""
        if db is not None:
            with layout.swallow_errors():
                db.close()

    def count(self) -> None:
        """Put the counts right, should somebody have been killed between writing them and his commit."""
        pending, aside = self.current().execute(layout.COUNT).fetchone()
        if self.counts is not None and (self.counts.pending, self.counts.aside) != (pending, aside):
            self.counts.set(pending=pending, aside=aside)

    # --- damage --------------------------------------------------------------------------------

    def _rescue(self, why: str) -> None:
        """Put a new file in place that holds what can be read of the old one, which stays beside it."""
        if time.monotonic() < self._no_rescue_before:
            raise StoreUnavailable(f"the journal is damaged: {why}")
        self._no_rescue_before = time.monotonic() + BETWEEN_RESCUES_SECONDS
        counted = 0
        with suppress(OSError):
            counted = SharedCounts(self._folder / "pending").pending
        log = write_ahead_log(self.path.with_name("journal-wal"))
        file = DamagedFile(self.path, log)
        making = self._folder / "journal.making"
        try:
            layout.make(making, file.rows())
        finally:
            file.close()
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        # From this name on the rescue is finished by whoever opens the journal next.
        making.rename(self._folder / f"journal.rescued-{name}")
        layout.sync_folder(self._folder)
        self._finish_replacing()
        self._forget_file()
        db = self.current()
        pending, aside = db.execute(layout.COUNT).fetchone()
        self._say(
            LogLevel.critical,
            "the journal was damaged ({why}): {pending} SMS were read from it, {missing} of those counted are"
            " missing, {aside} are set aside; the damaged file is {file}",
            why=why,
            pending=pending,
            missing=max(0, counted - pending),
            aside=aside,
            file=f"journal.corrupt-{name}",
        )

    def _finish_replacing(self) -> None:
        """Move a damaged file away and the rescued one into its place, also for one who died doing that."""
        for rescued in sorted(self._folder.glob("journal.rescued-*")):
            name = rescued.name.replace("rescued", "corrupt")
            for path in layout.beside(self.path):
                with suppress(FileNotFoundError):
                    path.rename(self._folder / (name + path.name.removeprefix("journal")))
            rescued.rename(self.path)
            layout.sync_folder(self._folder)
