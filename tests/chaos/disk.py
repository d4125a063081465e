"""The disk of the daemon's state folder, and how it becomes full.

As root the folder is a small tmpfs in a mount namespace of this process and its children, which goes with
them. Otherwise the limit of a file's size takes its place: writing fails as well, with another error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MEGABYTES = 24
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """To be made before anything is started that is to see the folder."""

    def __init__(self, folder: Path, processes: Callable[[], Iterable[int]]) -> None:
        """``processes``: those of the daemon, as far as they can be told."""
        self._folder, self._processes = folder, processes
        self._limited: set[int] = set()
        folder.mkdir(mode=0o700)
        self.is_small = os.geteuid() == 0 and _mount(folder)

    def fill(self) -> None:
        """No file there can grow, until ``clear``."""
        if not self.is_small:
            self._limited = set(self._processes())
            self._limit(1)
            return
        with open(self._filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    def clear(self) -> None:
        self._filler.unlink(missing_ok=True)
        self._limit(resource.RLIM_INFINITY)

    @property
    def _filler(self) -> Path:
        return self._folder / "filler"

    def _limit(self, size: int) -> None:
        for pid in self._limited:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                soft = size if hard == resource.RLIM_INFINITY or size < hard else hard
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def _mount(folder: Path) -> bool:
    if shutil.which("mount") is None or _libc.unshare(_CLONE_NEWNS) != 0:
        return False
    # Or what is mounted here would be seen outside as well, and stay.
    private = subprocess.run(["mount", "--make-rprivate", "/"], stderr=subprocess.DEVNULL)
    options = f"size={_MEGABYTES}m,mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    )
    return private.returncode == 0 and mounted.returncode == 0
