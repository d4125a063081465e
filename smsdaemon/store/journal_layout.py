"""The journal's SQLite file: its tables, how one is made and opened, and what SQLite's errors mean."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from smsdaemon.store.journal_pages import PAGE_BYTES
from smsdaemon.store.journal_rows import is_aside, is_sound_entry

BUSY_SECONDS = 0.4
"""For other programs that may have the file open; our own processes wait for each other before that."""
LOG_BYTES = 4 << 20
_APPLICATION = 0x736D736A  # "smsj"
_VERSION = 1

# A position is not given twice. (Only the damage of a file can bring one back: REMOVE asks for the id too.)
# The keys' index is not unique: what was damaged and read again may hold a key twice.
_TABLES = f"""
    CREATE TABLE entry (
        n      INTEGER PRIMARY KEY AUTOINCREMENT,
        id     BLOB NOT NULL,
        key    BLOB,
        row    BLOB NOT NULL,
        digest BLOB NOT NULL
    );
    CREATE INDEX entry_key ON entry (key) WHERE key IS NOT NULL;
    CREATE TABLE aside (
        n      INTEGER PRIMARY KEY,
        why    TEXT NOT NULL,
        at     TEXT NOT NULL,
        id     BLOB,
        key    BLOB,
        row    BLOB,
        digest BLOB
    );
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
"""

COUNT = "SELECT (SELECT count(*) FROM entry), (SELECT count(*) FROM aside)"
NEXT = """
    SELECT 1 + max(coalesce((SELECT max(n) FROM entry), 0),
                   coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'entry'), 0))
"""
SAME_KEY = "SELECT n, id, key, row, digest FROM entry WHERE key = ? ORDER BY n LIMIT 1"
INSERT = "INSERT INTO entry (n, id, key, row, digest) VALUES (?, ?, ?, ?, ?)"
OLDEST = "SELECT n, id, key, row, digest FROM entry WHERE n > ? ORDER BY n LIMIT ?"
REMOVE = "DELETE FROM entry WHERE n = :n AND (:id IS NULL OR id = :id)"
SET_ASIDE = """
    INSERT OR REPLACE INTO aside (n, why, at, id, key, row, digest)
    SELECT n, :why, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), id, key, row, digest
    FROM entry WHERE n = :n AND (:id IS NULL OR id = :id)
"""
ALL_ASIDE = "SELECT n, n, why, at, id, key, row, digest FROM aside"
WRITE_SOMETHING = f"PRAGMA user_version = {_VERSION}"
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"

_READ_AGAIN = {
    5: "INSERT OR IGNORE INTO entry (n, id, key, row, digest) VALUES (?, ?, ?, ?, ?)",
    7: "INSERT OR IGNORE INTO aside (n, why, at, id, key, row, digest) VALUES (?, ?, ?, ?, ?, ?, ?)",
}


class Damaged(Exception):
    """The file, or its log, is not as it was written; the text says how that was seen."""


class OfLaterVersion(Exception):
    """A later smsdaemon has made the file; the text says so."""


def make(path: Path, rows: Iterable[tuple[Any, ...]], *, behind: int = 0) -> None:
    """Make a journal, closed to others and on disk when this comes back, of rows as DamagedFile has them.

    New positions come ``behind`` that. A leftover of that name is replaced. Raises OSError or sqlite3.Error.
    """
    for leftover in beside(path):
        leftover.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA synchronous = FULL")
        fill(db, rows)
        if behind:
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('entry', ?)", (behind,))
        db.execute("PRAGMA journal_mode = WAL")  # remembered by the file; its log goes with the close
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_copy(rows: Iterable[tuple[Any, ...]]) -> sqlite3.Connection:
    """The same in a database of this process' own, which goes with it."""
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    fill(db, rows)
    return db


def fill(db: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Make the tables and put in the sound ones of the rows; the order of their positions is theirs."""
    db.executescript(f"BEGIN; {_TABLES}")
    for rowid, *columns in rows:
        row = (rowid, *columns[1:])  # the column that is the rowid is stored as NULL
        if is_sound_entry(row) or is_aside(row):
            db.execute(_READ_AGAIN[len(row)], row)
    db.execute("COMMIT")


def connect(path: Path) -> sqlite3.Connection:
    """Open a file that make() has made. Raises sqlite3.Error, Damaged or OfLaterVersion."""
    # No URI: a path may hold any character. Not made here: make() closes it to others.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        application, version, mode = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "journal_mode")
        )
        if (application, mode) != (_APPLICATION, "wal"):
            raise Damaged("it is not a journal")
        if version > _VERSION:
            raise OfLaterVersion("it was made by a later version of smsdaemon")
        said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise Damaged(f"SQLite finds it damaged: {said.splitlines()[-1]}")
    except BaseException:
        db.close()
        raise
    return db


def beside(path: Path) -> list[Path]:
    """A database file and what SQLite has beside it."""
    return [path.with_name(path.name + ending) for ending in ("", "-wal", "-shm", "-journal")]


def sync_folder(folder: Path) -> None:
    """Have the names in it survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- errors ------------------------------------------------------------------------------------


_PLAIN = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it cannot be written to: read-only",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_BUSY: "another process has it locked",
    sqlite3.SQLITE_PERM: "its file may not be used",
}


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def is_damage(error: sqlite3.Error) -> bool:
    """Whether it says that the file is not as it was written."""
    if "no such table" in str(error):
        return True
    # A constraint can only fail where an index does not fit its table.
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)


def is_busy(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_BUSY


def is_full(error: sqlite3.Error) -> bool:
    """Whether there may be room once the log has been emptied."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def has_no_room(error: sqlite3.Error | OSError) -> bool:
    """Whether the disk is full, as far as can be told."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return is_full(error)


def is_read_only(error: sqlite3.Error | OSError) -> bool:
    """Whether reading may work all the same."""
    if isinstance(error, OSError):
        return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return _code(error) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def explained(error: Exception) -> str:
    """One line for people about what was raised here; never a path or what a row holds."""
    if isinstance(error, Damaged | OfLaterVersion):
        return str(error)
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _PLAIN[sqlite3.SQLITE_FULL]
        return (
            _PLAIN[sqlite3.SQLITE_READONLY] if is_read_only(error) else error.strerror or type(error).__name__
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    plain = _PLAIN.get(_code(error)) if isinstance(error, sqlite3.Error) else None
    return plain or f"{error} ({name})"


def swallow_errors() -> suppress:
    """For what only makes room or order, and may as well be done later."""
    return suppress(sqlite3.Error, OSError)
