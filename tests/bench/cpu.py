"""CPU seconds by kind of process: workers, the daemon's own, PostgreSQL.

Times come from /proc. Processes that end meanwhile are not lost, as their parent's account has them; so
PostgreSQL's many short ones count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import frozen

from smsdaemon.store.embedded_location import locate
from smsdaemon.store.embedded_processes import processes_in

_TICKS = os.sysconf("SC_CLK_TCK")


@frozen(kw_only=True)
class Times:
    """Of one process, in seconds, with those of its children that have ended."""

    user: float
    system: float

    @property
    def both(self) -> float:
        return self.user + self.system


def read_stat(stat: str, ticks: int = _TICKS) -> Times:
    """What /proc/PID/stat says. The name in it, in brackets, may hold blanks and brackets itself.

    Source: proc(5): utime, stime, cutime and cstime are fields 14 to 17.
    """
    fields = stat.rpartition(")")[2].split()
    user, system, of_children, system_of_children = (int(field) for field in fields[11:15])
    return Times(user=(user + of_children) / ticks, system=(system + system_of_children) / ticks)


def times_of(pid: int) -> Times | None:
    """None where it has ended."""
    try:
        return read_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


class Account:
    """How much each kind of process has used since it was made."""

    def __init__(
        self,
        kinds: Callable[[], Mapping[str, Iterable[int]]],
        times: Callable[[int], Times | None] = times_of,
    ) -> None:
        """``kinds``: the process numbers of each kind as they are now, parents with their children."""
        self._kinds, self._times = kinds, times
        self._before = self._now()

    def used(self) -> dict[str, Times]:
        """User and system seconds of each kind."""
        before, now = self._before, self._now()
        return {
            kind: Times(
                user=round(now[kind].user - before[kind].user, 3),
                system=round(now[kind].system - before[kind].system, 3),
            )
            for kind in now
            if kind in before
        }

    def _now(self) -> dict[str, Times]:
        return {kind: _sum(map(self._times, pids)) for kind, pids in self._kinds().items()}


def _sum(times: Iterable[Times | None]) -> Times:
    living = [one for one in times if one is not None]
    return Times(user=sum(one.user for one in living), system=sum(one.system for one in living))


def of_daemon(folder: Path, pid: int, workers: Iterable[int]) -> Callable[[], Mapping[str, Iterable[int]]]:
    """The kinds of a daemon's processes; with a single worker that and the daemon are the same."""
    data = locate(folder / "state").data
    own = set(workers)

    def kinds() -> Mapping[str, Iterable[int]]:
        return {"workers": own, "supervisor": {pid} - own, "PostgreSQL": processes_in(data)}

    return kinds
