"""One SMS in the journal: what it is, and its row with the digest that tells whether it is still sound."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from attrs import field, frozen

DIGEST_BYTES = 8

EntryColumns = tuple[int, bytes, bytes | None, bytes, bytes]
"""n, id, key, row, digest: the table `entry`."""
AsideColumns = tuple[int, str, str, bytes, bytes | None, bytes, bytes]
"""n, why, at, id, key, row, digest: the table `aside`; the last four as they were found, sound or not."""


@frozen(kw_only=True)
class JournalEntry:
    """An accepted SMS that PostgreSQL does not have yet, for all that is known."""

    id: UUID
    key: bytes | None = field(repr=False)
    """The provider key (ports.MessageStore.accept); None: a repeat cannot be recognised."""
    row: dict[str, Any] = field(repr=False)
    """What JSON can hold: store.messages.row() and ``lost_lease``."""
    n: int = 0
    """Position: the order of acceptance over all processes; given by the journal."""


def packed(entry: JournalEntry, n: int) -> EntryColumns:
    """The entry's row at position ``n``."""
    # surrogatepass: whatever came so far must not fail here; JSON is read back by us only.
    row = json.dumps(entry.row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return n, entry.id.bytes, entry.key, row, _digest(n, entry.id.bytes, entry.key, row)


def unpacked(columns: tuple[Any, ...]) -> JournalEntry | None:
    """The entry of a row; None where the row is not one that packed() made."""
    if not is_sound_entry(columns):
        return None
    n, id_, key, row, _ = columns
    try:
        return JournalEntry(
            id=UUID(bytes=id_), key=key, row=json.loads(row.decode("utf-8", "surrogatepass")), n=n
        )
    except ValueError:
        return None


def is_sound_entry(columns: tuple[Any, ...]) -> bool:
    """Whether these are the columns of an `entry`, every bit as it was written."""
    if len(columns) != 5:
        return False
    n, id_, key, row, digest = columns
    types_fit = isinstance(n, int) and isinstance(id_, bytes) and isinstance(row, bytes)
    if not (types_fit and len(id_) == 16 and (key is None or isinstance(key, bytes))):
        return False
    return bool(_digest(n, id_, key, row) == digest)


def is_aside(columns: tuple[Any, ...]) -> bool:
    """Whether these can be the columns of an `aside`; nobody can tell whether they are sound."""
    if len(columns) != 7:
        return False
    n, why, at, *found = columns
    types_fit = isinstance(n, int) and isinstance(why, str) and isinstance(at, str)
    return types_fit and 0 < n < 1 << 63 and all(isinstance(value, bytes | None) for value in found)


def _digest(n: int, id_: bytes, key: bytes | None, row: bytes) -> bytes:
    mark = b"-" if key is None else b"%d" % len(key)
    head = b"%d %b %b " % (n, id_, mark)
    return hashlib.blake2b(head + (key or b"") + row, digest_size=DIGEST_BYTES).digest()
