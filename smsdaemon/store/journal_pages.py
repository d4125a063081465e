"""Reads rows out of a damaged SQLite file and its write-ahead log, page by page, without SQLite.

SQLite finds a row from the top of its tree, and nothing below a page that is damaged. But each leaf of a
table holds whole rows, so every leaf that is left can be read by itself; the rows' own digests
(journal_rows) tell which of them are sound.

Source: sqlite.org/fileformat2.html, sections 1.6, 2.1 (pages, records) and 4 (write-ahead log).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import Factory, define

PAGE_BYTES = 4096
_LEAF = 0x0D
_LOCAL_BYTES = PAGE_BYTES - 35
"""The longest record that is kept on its page as a whole."""
_LEAST_LOCAL_BYTES = (PAGE_BYTES - 12) * 32 // 255 - 23
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)

_WAL_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_FRAME_BYTES = _FRAME_HEADER.size + PAGE_BYTES
_BIG_ENDIAN_SUMS = 0x377F0683
_LITTLE_ENDIAN_SUMS = 0x377F0682

Sums = tuple[int, int]


# --- the write-ahead log ---------------------------------------------------------------------------


@define
class WriteAheadLog:
    """What a log holds, in pages. Each frame is summed up together with all before it."""

    committed: dict[int, bytes] = Factory(dict)
    """The newest version of each page, as far as the log is sound."""
    later: list[tuple[int, bytes]] = Factory(list)
    """Everything behind that: page numbers and pages, also of transactions that were never committed."""
    damaged: bool = False
    """There are transactions behind a frame that is not as it was written: two at least, as one that was
    given up leaves the end of its own behind those that were written over it."""


def write_ahead_log(path: Path) -> WriteAheadLog:
    """Read a log; one that is missing or empty has no pages. Raises OSError."""
    log = WriteAheadLog()
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return log
    if len(content) < _WAL_HEADER.size + _FRAME_BYTES:
        return log
    magic, _, page_bytes, _, *salts, first, second = _WAL_HEADER.unpack_from(content)
    order = {_BIG_ENDIAN_SUMS: ">", _LITTLE_ENDIAN_SUMS: "<"}.get(
        magic, "<" if sys.byteorder == "little" else ">"
    )
    head_is_sound = page_bytes == PAGE_BYTES and _sums(content[:24], (0, 0), order) == (first, second)
    chain_is_sound = head_is_sound
    before: Sums = (first, second)
    transaction: dict[int, bytes] = {}
    commits_in_line = 0
    for start in range(_WAL_HEADER.size, len(content) - _FRAME_BYTES + 1, _FRAME_BYTES):
        number, size_after, salt, other_salt, first, second = _FRAME_HEADER.unpack_from(content, start)
        page = content[start + _FRAME_HEADER.size : start + _FRAME_BYTES]
        ours = [salt, other_salt] == salts or not head_is_sound
        sound = ours and _sums(page, _sums(content[start : start + 8], before, order), order) == (
            first,
            second,
        )
        before = (first, second)  # so that one damaged frame does not hide whether the next is sound
        chain_is_sound = chain_is_sound and sound
        if chain_is_sound:
            transaction[number] = page
            if size_after:
                log.committed.update(transaction)
                transaction.clear()
        else:
            log.later.append((number, page))
            commits_in_line = commits_in_line + bool(size_after) if sound else 0
            log.damaged = log.damaged or commits_in_line > 1
    log.later.extend(transaction.items())
    return log


def _sums(content: bytes, before: Sums, order: str) -> Sums:
    first, second = before
    words = iter(struct.unpack(f"{order}{len(content) // 4}I", content))
    for word, other in zip(words, words, strict=True):
        first = (first + word + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


# --- rows ------------------------------------------------------------------------------------------


class DamagedFile:
    """A database file, its log, and the rows that are left in both."""

    def __init__(self, path: Path, log: WriteAheadLog) -> None:
        """``path`` may be missing. Raises OSError."""
        self._log = log
        # Where the rest of a long row may be; its digest tells which version of a page was the right one.
        self._versions = [log.committed]
        if log.damaged:
            self._versions.append({**log.committed, **dict(log.later)})
        try:
            self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._descriptor = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The rows of all tables: rowid, then the columns (where the rowid is a column: without that).

        In no order. Where the log is damaged, also rows that were deleted since, and each at least twice:
        whoever takes them must know what he had already.
        """
        for number in range(1, self._pages_in_file() + 1):
            if self._log.damaged or number not in self._log.committed:
                yield from self._rows_of(number, self._page_in_file(number))
        for number, page in self._log.committed.items():
            yield from self._rows_of(number, page)
        if self._log.damaged:
            for number, page in self._log.later:
                yield from self._rows_of(number, page)

    def _pages_in_file(self) -> int:
        return 0 if self._descriptor is None else -(-os.fstat(self._descriptor).st_size // PAGE_BYTES)

    def _page_in_file(self, number: int) -> bytes:
        if self._descriptor is None:
            return bytes(PAGE_BYTES)
        try:
            page = os.pread(self._descriptor, PAGE_BYTES, (number - 1) * PAGE_BYTES)
        except OSError:
            page = b""  # the disk cannot read it
        return page.ljust(PAGE_BYTES, b"\0")

    def _rows_of(self, number: int, page: bytes) -> Iterator[tuple[Any, ...]]:
        start = 100 if number == 1 else 0  # the first page begins with the file's header
        if page[start] != _LEAF:
            return
        cells = min(int.from_bytes(page[start + 3 : start + 5], "big"), PAGE_BYTES // 2)
        for pointer in range(start + 8, min(start + 8 + 2 * cells, PAGE_BYTES - 1), 2):
            for version in self._versions:
                try:
                    yield self._row_at(page, int.from_bytes(page[pointer : pointer + 2], "big"), version)
                except (IndexError, ValueError):
                    continue

    def _row_at(self, page: bytes, start: int, others: dict[int, bytes]) -> tuple[Any, ...]:
        """Raises IndexError or ValueError where there is none."""
        length, start = _varint(page, start)
        rowid, start = _varint(page, start)
        local = _local_bytes(length)
        record = page[start : start + local]
        if local < length:
            follows = page[start + local : start + local + 4]
            record += self._overflow(int.from_bytes(follows, "big"), length - local, others)
        if len(record) != length:
            raise ValueError("cut off")
        return (rowid, *_columns(record))

    def _overflow(self, number: int, length: int, others: dict[int, bytes]) -> bytes:
        content = bytearray()
        while len(content) < length:
            if not number:
                raise ValueError("no more pages")
            page = others.get(number) or self._page_in_file(number)
            content += page[4:]
            number = int.from_bytes(page[:4], "big")
        return bytes(content[:length])


def _local_bytes(length: int) -> int:
    """How much of a record of this length is on its page."""
    if length <= _LOCAL_BYTES:
        return length
    local = _LEAST_LOCAL_BYTES + (length - _LEAST_LOCAL_BYTES) % (PAGE_BYTES - 4)
    return local if local <= _LOCAL_BYTES else _LEAST_LOCAL_BYTES


def _varint(content: bytes, start: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    number = 0
    for count in range(8):
        byte = content[start + count]
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, start + count + 1
    return number << 8 | content[start + 8], start + 9


def _columns(record: bytes) -> Iterator[Any]:
    head_bytes, position = _varint(record, 0)
    value_at = head_bytes
    while position < head_bytes:
        kind, position = _varint(record, position)
        value, value_at = _value(record, kind, value_at)
        yield value


def _value(record: bytes, kind: int, start: int) -> tuple[Any, int]:
    if kind in (0, 8, 9):
        return (None, 0, 1)[max(0, kind - 7)], start
    if kind < 7:
        end = start + _INTEGER_BYTES[kind]
        return int.from_bytes(record[start:end], "big", signed=True), end
    if kind < 12:
        raise ValueError("a kind that no journal has")
    end = start + (kind - 12) // 2
    if end > len(record):
        raise ValueError("cut off")
    value = record[start:end]
    return (value.decode("utf-8") if kind % 2 else value), end
