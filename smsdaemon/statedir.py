"""The state folder: made unreadable for others, and used by one daemon at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from smsdaemon.errors import ConfigurationError


def make_state_dir(state_dir: Path) -> None:
    """Make it, closed to others, where it is missing; an existing one stays as it is."""
    try:
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError([f"state_dir: cannot make {state_dir}: {error.strerror}"]) from None


class DaemonLock:
    """Held for the life of a daemon; the kernel gives it back however the process ends."""

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "daemon.lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises ConfigurationError where a daemon runs on this state folder already."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError([f"state_dir: {self._file}: {error.strerror}"]) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            raise ConfigurationError(
                [f"state_dir: another smsdaemon (process {other}) runs on {self._file.parent}"]
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
