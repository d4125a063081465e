"""Who runs a cluster's server: the one process that holds the lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from smsdaemon.errors import EmbeddedPostgresError


class OwnerLock:
    """An flock, which the system itself gives back when the holder dies, however it dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock if it is free; True also if it is held already."""
        if self._descriptor is not None and self._is_in_place(self._descriptor):
            return True
        self.release()
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the embedded PostgreSQL cannot use {self._path}: {error}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether others would lock the same file: the state folder may have been removed since."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False
