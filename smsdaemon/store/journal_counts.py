"""How many entries a journal holds, where every process can see it without asking SQLite."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from attrs import define

_FORMAT = "=3q"
_SIZE = struct.calcsize(_FORMAT)
_LOOKS = 100


@define
class OwnCounts:
    """Of a journal that nobody can write to, so that nobody else changes them."""

    pending: int
    aside: int

    def set(self, *, pending: int, aside: int) -> None:
        self.pending, self.aside = pending, aside

    def is_in_place(self) -> bool:
        return True


class SharedCounts:
    """Three numbers in a file that each process has mapped: pending, pending again, aside.

    Written by whoever holds the journal's lock, read by anybody at any time. ``pending`` is there twice
    because nothing promises that eight bytes are seen all at once; torn, they could read as 0.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError, also where the file cannot be written."""
        self._path, self._descriptor = path, -1
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(self._descriptor).st_size < _SIZE:
            os.pwrite(self._descriptor, bytes(_SIZE), 0)
        # Mapped for reading only: to write through the mapping on a full disk can end the process.
        self._numbers = memoryview(mmap.mmap(self._descriptor, _SIZE, access=mmap.ACCESS_READ)).cast("q")

    def __del__(self) -> None:
        # Not sooner: another thread may be reading. The mapping goes with the last reference too.
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def pending(self) -> int:
        numbers = self._numbers
        for _ in range(_LOOKS):
            first, second = numbers[0], numbers[1]
            if first == second:
                return first
        return max(first, second, 1)  # whoever wrote was stopped half-way

    @property
    def aside(self) -> int:
        return self._numbers[2]

    def set(self, *, pending: int, aside: int) -> None:
        """Only with the journal's lock. Raises OSError."""
        os.pwrite(self._descriptor, struct.pack(_FORMAT, pending, pending, aside), 0)

    def is_in_place(self) -> bool:
        """Whether other processes see the same file."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False


Counts = OwnCounts | SharedCounts
