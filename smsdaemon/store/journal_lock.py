"""Locks between the processes that share a journal; the kernel gives them back however one ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOOK_SECONDS = 0.001


class ProcessLock:
    """An flock on a file, which is made, or on a folder, which must be there.

    Taking it twice in one process is not refused: who owns the object asks once at a time.
    """

    def __init__(self, path: Path, *, folder: bool = False) -> None:
        self._path = path
        self._flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if folder else os.O_CREAT | os.O_NOFOLLOW)
        self._descriptor: int | None = None

    def try_take(self) -> bool:
        """Take it if it is free. Raises OSError where there is nothing that could be locked."""
        if self._descriptor is None or not self._is_in_place(self._descriptor):
            self.close()
            # For reading only: a folder, and a file where nothing can be written, can be locked too.
            self._descriptor = os.open(self._path, self._flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def take_until(self, deadline: float) -> bool:
        """Take it as soon as it is free, by ``time.monotonic() == deadline``; blocks."""
        while not self.try_take():
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release it, and forget the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether others would lock the same one: it may have been removed since."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False
