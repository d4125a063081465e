"""PostgreSQL processes at work on a data folder, found and ended whoever started them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from smsdaemon.errors import EmbeddedPostgresError

_NAMES = {"postgres", "initdb"}
_STATUS_LINE = 7  # of postmaster.pid, counted from 0; PostgreSQL's LOCK_FILE_LINE_PM_STATUS
_POLL_SECONDS = 0.02
_FAST_SHUTDOWN_SECONDS = 5.0
_ABRUPT_SHUTDOWN_SECONDS = 5.0


def processes_in(folder: Path) -> set[int]:
    """The PostgreSQL processes whose current folder this is: each of a server's has its data folder.

    The program's name and its folder are both looked at, so a number that was given to another
    program since is never taken for PostgreSQL. Zombies have no folder and are not found.
    """
    try:
        wanted = os.stat(folder)
    except FileNotFoundError:
        return set()
    return {int(entry) for entry in os.listdir("/proc") if entry.isdecimal() and _works_in(entry, wanted)}


def accepting_postmaster(data: Path) -> int | None:
    """The process number of the server on this data folder, if it accepts connections."""
    lines = _lines_of(data / "postmaster.pid")
    if len(lines) <= _STATUS_LINE or lines[_STATUS_LINE].strip() != "ready":
        return None
    pid = _postmaster(data)
    try:
        return pid if _works_in(str(pid), os.stat(data)) else None
    except FileNotFoundError:
        return None


def end_processes_in(data: Path) -> None:
    """End what runs on this data folder, cleanly if it can; returns when nothing is left. Blocks.

    Only for the holder of the lock: nothing there then has a living owner.
    """
    left = processes_in(data)
    postmaster = _postmaster(data)
    if postmaster in left:
        left = _signal_and_wait(data, {postmaster}, signal.SIGINT, _FAST_SHUTDOWN_SECONDS)
    for signal_number in (signal.SIGQUIT, signal.SIGKILL):
        if left:
            left = _signal_and_wait(data, left, signal_number, _ABRUPT_SHUTDOWN_SECONDS)
    if left:
        raise EmbeddedPostgresError(f"PostgreSQL processes on {data} cannot be ended: {sorted(left)}")


def forget_reused_pid(lock_file: Path) -> None:
    """Remove a PostgreSQL lock file whose process number now belongs to another program.

    PostgreSQL takes any living process of its user for the file's owner and would refuse to start.
    The file of a dead process stays: PostgreSQL handles it, with its own check of shared memory. An empty
    one goes: who was killed just after making it leaves that, and PostgreSQL would never start again.
    To be called after :func:`end_processes_in`.
    """
    lines = _lines_of(lock_file)
    first = lines[0].strip() if lines else ""
    if not first or (first.isdecimal() and Path("/proc", first).exists()):
        lock_file.unlink(missing_ok=True)


def _works_in(pid: str, folder: os.stat_result) -> bool:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            if comm.read().strip() not in _NAMES:
                return False
        return os.path.samestat(os.stat(f"/proc/{pid}/cwd"), folder)
    except OSError:  # it ended, or is another user's and so none of ours
        return False


def _lines_of(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _postmaster(data: Path) -> int:
    """The process number that postmaster.pid names; -1 where it names none."""
    lines = _lines_of(data / "postmaster.pid")
    first = lines[0].strip() if lines else ""
    # A single-user backend writes its number with a minus.
    return int(first) if first.isdecimal() else -1


def _signal_and_wait(data: Path, pids: set[int], signal_number: int, seconds: float) -> set[int]:
    """Signal these, wait until nothing runs there any more, and say what still does."""
    for pid in pids & processes_in(data):
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            continue
    until = time.monotonic() + seconds
    while (left := processes_in(data)) and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return left
