"""The entries of a journal: how they are stored together, read, and taken out again.

Everything here blocks; store.journal.Journal calls it in a thread of its own.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.logger import LogLevel

from smsdaemon.errors import StoreOverloaded, StoreUnavailable
from smsdaemon.store import journal_layout as layout
from smsdaemon.store.journal_place import JournalBusy, JournalPlace, Say
from smsdaemon.store.journal_rows import EntryColumns, JournalEntry, packed, unpacked

LARGE_BYTES = 16 << 20
"""An empty journal of this size is begun anew: SQLite does not give room back by itself."""


@frozen
class _Ended:
    """An entry that has left the journal for good, although its row may still be there."""

    id: bytes | None
    """None: of whatever is at this position."""
    why: str | None
    """Why it was set aside; None: it was moved."""


class JournalFile:
    """All methods raise StoreUnavailable, and JournalBusy of that."""

    def __init__(self, folder: Path, *, max_entries: int, say: Say) -> None:
        self._place = JournalPlace(folder, say)
        self._max_entries, self._say = max_entries, say
        self._ended: dict[int, _Ended] = {}
        self._counted_then = -1
        self._complained = False

    # --- counts, for any thread ----------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Entries of all processes; 1 while it is not known, 0 where none can be read."""
        counts = self._place.counts
        if counts is None:
            return 0 if self._place.known else 1
        pending = counts.pending
        # Once another process could write, what ended here may have been taken out by it.
        ended = len(self._ended) if pending == self._counted_then else 0
        return max(0, pending - ended)

    @property
    def aside(self) -> int:
        counts = self._place.counts
        return 0 if counts is None else max(0, counts.aside)

    def _counted(self) -> int:
        return -1 if self._place.counts is None else self._place.counts.pending

    # --- what can be asked ---------------------------------------------------------------------

    def probe(self) -> None:
        """Open it where that has not been done; fails where nothing could be appended or read."""

        def work(db: sqlite3.Connection) -> None:
            self._place.need_writing()
            db.execute(layout.WRITE_SOMETHING)
            db.execute(layout.OLDEST, (0, 1)).fetchall()
            self._write_ended(db)

        self._place.with_file(work)

    def append(self, entries: Sequence[JournalEntry], deadline: float) -> list[UUID]:
        """For each the id that names it; on disk when this comes back."""

        def work(db: sqlite3.Connection) -> list[UUID]:
            counts = self._place.need_writing()
            if counts.pending + len(entries) > self._max_entries:
                raise StoreOverloaded(f"the journal is full: {self._max_entries} SMS are in it")
            if self._ended:
                self._write_ended(db)
                db = self._place.current()
                counts = self._place.need_writing()
            before = counts.pending
            try:
                with _transaction(db):
                    ids, rows = self._new_rows(db, entries)
                    db.executemany(layout.INSERT, rows)
                    # Before the commit: no process may see less than what was answered.
                    counts.set(pending=before + len(rows), aside=counts.aside)
            except BaseException:
                # It was not committed, and nobody else has the journal.
                counts.set(pending=before, aside=counts.aside)
                raise
            return ids

        return self._place.with_file(work, deadline)

    def oldest(self, limit: int, after: int) -> list[JournalEntry]:
        """In the order of positions, beginning behind ``after``."""

        def work(db: sqlite3.Connection) -> list[JournalEntry]:
            found: list[JournalEntry] = []
            for row in self._rows_after(db, after):
                entry = unpacked(row)
                if entry is None:
                    self._end_damaged(row[0])
                else:
                    found.append(entry)
                if len(found) == limit:
                    break
            try:
                self._write_ended(db)
            except (sqlite3.Error, OSError, StoreUnavailable):
                self._counted_then = self._counted()
            if not found and self.pending:
                self._place.count()
            return found

        return self._place.with_file(work)

    def end(self, entries: Sequence[JournalEntry], why: str | None) -> None:
        """Take them out: they were moved, or are set aside for a reason.

        Where that cannot be written, this fails, but it is remembered, so that this process does not see
        them again; except where that is only for now (JournalBusy).
        """
        ended = {entry.n: _Ended(entry.id.bytes, why) for entry in entries}
        self._ended.update(ended)
        try:
            self._place.with_file(self._write_ended)
        except JournalBusy:
            for n in ended:
                self._ended.pop(n, None)
            raise
        except StoreUnavailable as error:
            self._counted_then = self._counted()
            if not self._complained:
                self._say(
                    LogLevel.critical,
                    "SMS that were moved cannot be taken out of the journal ({why}); this process remembers"
                    " which, but the next one will move them again, to be recognised by their ids",
                    why=str(error),
                )
            self._complained = True
            raise

    def close(self) -> None:
        self._place.close()

    # --- entries -------------------------------------------------------------------------------

    def _new_rows(
        self, db: sqlite3.Connection, entries: Sequence[JournalEntry]
    ) -> tuple[list[UUID], list[EntryColumns]]:
        """For each the id that names it; and the rows of those that are not repeats."""
        (n,) = db.execute(layout.NEXT).fetchone()
        ids: list[UUID] = []
        rows: list[EntryColumns] = []
        by_key: dict[bytes, UUID] = {}
        for entry in entries:
            named = None
            if entry.key is not None:
                named = by_key.get(entry.key) or _named(db, entry.key)
                by_key[entry.key] = named or entry.id
            if named is None:
                rows.append(packed(entry, n + len(rows)))
            ids.append(named or entry.id)
        return ids, rows

    def _rows_after(self, db: sqlite3.Connection, after: int) -> Iterator[tuple[Any, ...]]:
        """Those that have not ended, however many have in front of them."""
        some = 500
        while rows := db.execute(layout.OLDEST, (after, some)).fetchall():
            for row in rows:
                ended = self._ended.get(row[0])
                if ended is None or ended.id not in (None, row[1]):
                    yield row
            after = rows[-1][0]

    def _end_damaged(self, n: int) -> None:
        self._ended[n] = _Ended(None, "damaged")
        self._say(LogLevel.critical, "the SMS at position {n} of the journal is damaged, set aside", n=n)

    def _write_ended(self, db: sqlite3.Connection) -> None:
        """Write down what has ended; makes room where there is none for that."""
        if not self._ended:
            return
        counts = self._place.need_writing()
        try:
            gone, set_aside = self._take_out(db)
        except sqlite3.Error as error:
            if not layout.is_full(error):
                raise
            with layout.swallow_errors():
                db.execute(layout.EMPTY_LOG)
            set_aside_yet = any(ended.why is not None for ended in self._ended.values())
            if not set_aside_yet and next(self._rows_after(db, 0), None) is None:
                self._begin_without(db)
                return
            gone, set_aside = self._take_out(db)
        # In this order a process sees too many for a moment, never too few.
        self._ended.clear()
        self._complained = False
        counts.set(pending=max(0, counts.pending - gone), aside=counts.aside + set_aside)
        if not counts.pending:
            self._tidy(db)

    def _take_out(self, db: sqlite3.Connection) -> tuple[int, int]:
        """How many rows are gone, and how many of them were set aside."""
        all_ended = [{"n": n, "id": ended.id, "why": ended.why} for n, ended in self._ended.items()]
        with _transaction(db):
            set_aside = [ended for ended in all_ended if ended["why"] is not None]
            kept = db.executemany(layout.SET_ASIDE, set_aside).rowcount if set_aside else 0
            gone = db.executemany(layout.REMOVE, all_ended).rowcount
        return gone, kept

    def _begin_without(self, db: sqlite3.Connection) -> None:
        """All that is in it was moved, and the disk is too full to say so: begin anew."""
        rows = db.execute(layout.ALL_ASIDE).fetchall()
        (n,) = db.execute(layout.NEXT).fetchone()
        if not rows:
            # Nothing can be lost with it, and the new file may need the room, at once: others have it open.
            for path in layout.beside(self._place.path)[:2]:
                os.truncate(path, 0)
                path.unlink()
        self._place.begin(rows, behind=n - 1)
        self._ended.clear()
        self._place.current()

    def _tidy(self, db: sqlite3.Connection) -> None:
        """Nothing waits: leave nothing of what was moved in the log, and give room back."""
        with layout.swallow_errors():
            db.execute(layout.EMPTY_LOG)
            if self._place.path.stat().st_size > LARGE_BYTES:
                (n,) = db.execute(layout.NEXT).fetchone()
                self._place.begin(db.execute(layout.ALL_ASIDE).fetchall(), behind=n - 1)
                self._place.current()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _named(db: sqlite3.Connection, key: bytes) -> UUID | None:
    """The id of the SMS in the journal that has this key; a damaged one has none."""
    row = db.execute(layout.SAME_KEY, (key,)).fetchone()
    entry = None if row is None else unpacked(row)
    return None if entry is None else entry.id
