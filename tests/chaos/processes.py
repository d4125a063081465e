"""The daemon as processes that can be hurt: what belongs to it, what it said, its public command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from tests.support.daemon import BINARIES

READY = b"smsdaemon ready: "
_BELOW_EPHEMERAL = (20_000, 32_000)


def free_port() -> int:
    """One that stays free while nobody listens: the system takes those of connections from elsewhere."""
    while True:
        port = SystemRandom().randrange(*_BELOW_EPHEMERAL)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def forget_shared_memory(since: float) -> None:
    """What libfaketime leaves of processes that were killed after that time of day."""
    for shared in Path("/dev/shm").glob("faketime_shm_*"):
        pid = shared.name.rpartition("_")[2]
        with contextlib.suppress(OSError):
            if shared.stat().st_mtime >= since and not Path("/proc", pid).exists():
                shared.unlink()
                shared.with_name(f"sem.faketime_sem_{pid}").unlink()


def children(pid: int) -> list[int]:
    """The processes that this one has started and that live, oldest first."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and _parent(entry) == pid:
            found.append(int(entry))
    return sorted(found)


def family(pid: int) -> list[int]:
    """It, its children and theirs."""
    return [pid, *(member for child in children(pid) for member in family(child))]


def _parent(pid: str) -> int:
    """-1 for what has ended (or is a zombie)."""
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except OSError:
        return -1
    state, parent = stat.rpartition(")")[2].split()[:2]
    return -1 if state == "Z" else int(parent)


def send(number: signal.Signals, pids: Collection[int]) -> None:
    """A signal to those of them that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Daemon:
    """One smsdaemon with its configuration, through all its starts and ends."""

    def __init__(
        self, *, reactor: Any, folder: Path, settings: str, environment: Mapping[str, str], broken: str
    ) -> None:
        """``environment``: what the daemon gets besides; ``broken``: see tests.chaos.broken, or ``""``."""
        self._reactor, self._broken = reactor, broken
        self._folder = folder
        self.config = folder / "smsdaemon.toml"
        self.config.write_text(settings)
        self.log_file = folder / "smsdaemon.log"
        self._plain = {name: value for name, value in os.environ.items() if not name.startswith("SMSDAEMON_")}
        self._environment = {**self._plain, **environment}
        self._process: _Process | None = None
        self._made_at = time.time()
        self.ended_by_itself: list[str] = []
        """How, for every time that nobody told it to."""

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start its process."""
        self._process = _Process(self.log_file, self._lost)
        arguments = [sys.executable, _START, self._broken, "--config", str(self.config)]
        self._reactor.spawnProcess(
            self._process, arguments[0], arguments, self._environment, str(self._folder)
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.ended.called is False

    @property
    def is_ready(self) -> bool:
        return self.runs and self._process is not None and self._process.is_ready

    def processes(self) -> list[int]:
        """All of them; the supervisor, or the only one, first."""
        return family(self.pid) if self.runs else []

    def workers(self) -> list[int]:
        """Those that accept and deliver: where there is no supervisor, the only one."""
        if not self.runs:
            return []
        return children(self.pid) or [self.pid]

    def expect_its_end(self) -> Deferred[None]:
        """Say that it was told to end; fires when it has."""
        assert self._process is not None
        self._process.expected = True
        ended: Deferred[None] = Deferred()
        self._process.ended.addCallback(lambda _: ended.callback(None))
        return ended

    def _lost(self, how: str) -> None:
        self.ended_by_itself.append(how)

    def forget(self) -> None:
        """Tidy up after it."""
        forget_shared_memory(self._made_at)

    # --- its public command -----------------------------------------------------------------------

    async def command(self, name: str, *arguments: str) -> tuple[int, str, str]:
        """Status, output and complaints of `smsdaemon`; by the true clock."""
        out, err, status = await getProcessOutputAndValue(
            str(BINARIES / "smsdaemon"),
            [name, "--config", str(self.config), *arguments],
            self._plain,
            str(self._folder),
            self._reactor,
        )
        return status, out.decode(), err.decode()

    async def rows(self, name: str, *arguments: str) -> list[dict[str, Any]]:
        """What it prints with --json; an AssertionError where it fails."""
        status, out, err = await self.command(name, "--json", *arguments)
        assert status == 0, f"smsdaemon {name} failed: {err}"
        return [json.loads(line) for line in out.splitlines()]

    def log(self) -> str:
        """What all its processes have printed."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


_START = str(Path(__file__).with_name("start.py"))


class _Process(ProcessProtocol):
    """One start. Its output comes by a pipe, as the disk may be full."""

    def __init__(self, log_file: Path, lost: Any) -> None:
        self._log_file, self._lost = log_file, lost
        self._printed = bytearray()
        self.is_ready = self.expected = False
        self.ended: Deferred[None] = Deferred()
        self.pid: int | None = None

    def connectionMade(self) -> None:
        self.pid = self.transport.pid  # type: ignore[union-attr]
        self._log = open(self._log_file, "ab", buffering=0)  # noqa: SIM115 (until it ends)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._log.write(data)
        if not self.is_ready:
            self._printed += data
            self.is_ready = READY in self._printed

    def processEnded(self, reason: Failure) -> None:
        reason.trap(ProcessDone, ProcessTerminated)
        self._log.close()
        if not self.expected:
            self._lost(re.sub(r"^A process has ended ", "", str(reason.value)))
        self.ended.callback(None)
