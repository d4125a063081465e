"""A clock of the daemon's own, which steps when it is told to; libfaketime does it.

Only the time of day is faked. The monotonic clock, by which processes measure, never steps.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.chaos.processes import forget_shared_memory

_DEBIAN = (Path("/usr/lib"), Path("/usr/local/lib"))
_PROBE = "import time; time.sleep(0.01); print(time.time())"
_HOUR = 3600
NO_CLOCK = "there is no libfaketime that works with this Python; `pip install libfaketime` brings one"


class Clock:
    """Where libfaketime reads what to add to the time of day."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = _library(folder)
        self.set(0)

    @property
    def can_step(self) -> bool:
        return self._library is not None

    @property
    def environment(self) -> Mapping[str, str]:
        """For whoever is to go by this clock."""
        return {} if self._library is None else _environment(self._library, self._file)

    def set(self, seconds: int) -> None:
        """Put it ahead by that much; heard within a second."""
        _write(self._file, seconds)


def _write(file: Path, seconds: int) -> None:
    unfinished = file.with_suffix(".new")
    unfinished.write_text(f"{seconds:+d}\n")
    unfinished.rename(file)


def _environment(library: Path, file: Path) -> Mapping[str, str]:
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
    }


def _library(folder: Path) -> Path | None:
    """The first libfaketime that works with this Python (Debian's 0.9.10 breaks its time.sleep)."""
    probed = folder / "probed-clock"
    _write(probed, _HOUR)
    return next((library for library in _libraries() if _works(library, probed)), None)


def _libraries() -> Iterator[Path]:
    found = importlib.util.find_spec("libfaketime")
    for package in found.submodule_search_locations or [] if found else []:
        yield from sorted(Path(package).rglob("libfaketime.so.1"))
    for folder in _DEBIAN:
        yield from sorted(folder.glob("*/faketime/libfaketime.so.1"))
        yield from sorted(folder.glob("faketime/libfaketime.so.1"))


def _works(library: Path, clock: Path) -> bool:
    began = time.time()
    probe = subprocess.Popen(
        [sys.executable, "-c", _PROBE],
        env={**os.environ, **_environment(library, clock)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    printed, _ = probe.communicate(timeout=20)
    forget_shared_memory(began)
    return probe.returncode == 0 and abs(float(printed) - time.time() - _HOUR) < 60
