"""What a figure holds for: the machine, the versions, and how busy it was."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

from tests.bench.rig import BenchFailed

_PAGE = os.sysconf("SC_PAGE_SIZE")


def machine() -> dict[str, object]:
    """As JSON; to be asked before a measurement, since it tells how busy the machine is by itself."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(Path("/proc/cpuinfo").read_text()),
        "memory_GiB": round(_PAGE * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": version("twisted"),
        "load_average": round(os.getloadavg()[0], 2),
        "nice": os.nice(0),
    }


def _processor(cpuinfo: str) -> str:
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def busy() -> str:
    """A warning where something else is at work, else nothing."""
    load = os.getloadavg()[0]
    if load < 0.5:
        return ""
    return f"the machine is not idle (load {load:.1f}): figures will be too low and vary\n"


def resident_mebibytes(pid: int) -> float:
    """Of one process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * _PAGE / 2**20, 1)


def need_disk(folder: Path, gigabytes: float) -> None:
    """Raises BenchFailed where there is less."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise BenchFailed(
            f"{folder} has {free:.1f} GB free, {gigabytes:.1f} GB are needed; TMPDIR says where"
        )
