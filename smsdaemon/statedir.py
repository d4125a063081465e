"""The state folder: made unreadable for others, and used by one daemon at a time."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from smsdaemon.errors import ConfigurationError

ORPHANS_SECONDS = 5.0
"""How long the workers of a daemon that was killed are waited for; they end when it does."""
_POLL_SECONDS = 0.05


def make_state_dir(state_dir: Path) -> None:
    """Make it, closed to others, where it is missing; an existing one stays as it is."""
    try:
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        state_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError([f"state_dir: cannot make {state_dir}: {error.strerror}"]) from None


def process_lives(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # somebody else's
    # After the name, which stands in parentheses and may hold anything: the state.
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


class DaemonLock:
    """Held for the life of a daemon; the kernel gives it back however the process ends.

    Its workers inherit the descriptor, so that nobody starts while one of them still runs.
    """

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / "daemon.lock"
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """To be handed to workers; only while it is held."""
        assert self._descriptor is not None
        return self._descriptor

    def acquire(self) -> None:
        """Raises ConfigurationError where a daemon runs on this state folder already.

        Blocks for a while where only workers of a dead one do: they are about to end.
        """
        try:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if not self._lock(self._descriptor):
                other = _holder(self._descriptor)
                raise ConfigurationError(
                    [f"state_dir: another smsdaemon (process {other}) runs on {self._file.parent}"]
                )
            # Shortened afterwards: on a full disk what is there already can still be written to.
            written = os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
            os.ftruncate(self._descriptor, written)
        except OSError as error:
            self.release()
            raise ConfigurationError([f"state_dir: {self._file}: {error.strerror}"]) from None
        except ConfigurationError:
            self.release()
            raise

    def _lock(self, descriptor: int) -> bool:
        until = time.monotonic() + ORPHANS_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError:
                holder = _holder(descriptor)
                if not holder.isdigit() or process_lives(int(holder)) or time.monotonic() > until:
                    return False
            time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode(errors="replace").strip()
