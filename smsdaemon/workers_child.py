"""One worker's process, as its supervisor has it: what it reports, says and dies of."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import cattrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

import smsdaemon
from smsdaemon.worker_channel import (
    FIRST_SOCKET,
    LOCK,
    ORDERS,
    REPORTS,
    Charge,
    Lines,
    charge_bytes,
    read_report,
)
from smsdaemon.worker_log import event_of
from smsdaemon.worker_state import WorkerState

_MODULE = "smsdaemon.worker_process"


class Clock(Protocol):
    """Tells seconds, as a reactor does."""

    def seconds(self) -> float: ...


class WorkerChild(ProcessProtocol):
    """From its start to its end; ``ended`` fires with what it died of, and whether that was in order."""

    def __init__(self, charge: Charge, clock: Clock, on_state: Callable[[], object]) -> None:
        self._charge, self._clock, self._on_state = charge, clock, on_state
        self._log = Logger(namespace="smsdaemon.workers")
        self._reports, self._said = Lines(), Lines()
        self.state: WorkerState | None = None
        """As it said last."""
        self.heard_at = clock.seconds()
        self.ended: Deferred[tuple[str, bool]] = Deferred()
        self.quiet = False
        """Its last words are of no interest."""

    @property
    def pid(self) -> int | None:
        pid: int | None = getattr(self.transport, "pid", None)
        return pid

    def spawn(self, reactor: Any, *, lock: int, sockets: Sequence[int]) -> None:
        """Start it, with these descriptors."""
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            reactor.spawnProcess(
                self,
                sys.executable,
                # The number is for people who look at the list of processes.
                [sys.executable, "-P", "-m", _MODULE, str(self._charge.number)],
                env=_environment(),
                path=None,
                childFDs={
                    0: nothing,
                    1: "r",
                    2: "r",
                    ORDERS: "w",
                    REPORTS: "r",
                    LOCK: lock,
                    **{FIRST_SOCKET + n: descriptor for n, descriptor in enumerate(sockets)},
                },
            )
        finally:
            os.close(nothing)

    def tell(self, order: bytes) -> None:
        """Give it an order."""
        if self.transport is not None:
            with suppress(KeyError):  # it has closed its end: it is dying, and has nothing more to hear
                self.transport.writeToChild(ORDERS, order + b"\n")

    def kill(self) -> None:
        """End it at once."""
        try:
            if self.transport is not None:
                self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return

    # --- what it says -------------------------------------------------------------------------

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.writeToChild(ORDERS, charge_bytes(self._charge))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != REPORTS:
            for line in self._said.feed(data):
                self._heard_saying(line)
            return
        for line in self._reports.feed(data):
            try:
                self._heard(line)
            except (ValueError, KeyError, TypeError):
                self._log.failure("a report of worker {worker} is not one", worker=self._charge.number)

    def _heard(self, line: bytes) -> None:
        kind, content = read_report(line)
        if kind == "log":
            event = event_of(content)
            globalLogPublisher({"worker": self._charge.number, **event})
        elif kind == "dropped":
            self._log.warn(
                "{count} log events of worker {worker} were dropped: they came faster than they were read",
                count=content,
                worker=self._charge.number,
            )
        else:
            self.heard_at = self._clock.seconds()
            self.state = cattrs.structure(content, WorkerState)
            self._on_state()

    def _heard_saying(self, line: bytes) -> None:
        """Past its log: the interpreter's last words, usually."""
        text = line.decode("utf-8", "replace").rstrip()
        if text and not self.quiet:
            self._log.error("worker {worker}: {said}", worker=self._charge.number, said=text)

    def processEnded(self, reason: Failure) -> None:
        self._heard_saying(self._said.rest())
        died_by = getattr(reason.value, "signal", None)
        if died_by is not None:
            self.ended.callback((f"killed by {signal.Signals(died_by).name}", False))
        else:
            status = getattr(reason.value, "exitCode", None)
            self.ended.callback((f"exit status {status}", status == 0))


_NOT_FOR_WORKERS = ("SMSDAEMON_", "NOTIFY_SOCKET", "LISTEN_")
"""Settings, which come with the charge, and what systemd tells to the daemon only."""


def _environment() -> dict[str, str]:
    """Ours, and where this package is: twistd may have found it in the current folder."""
    ours = str(Path(smsdaemon.__file__).parents[1])
    others = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_WORKERS)}
    return {**kept, "PYTHONPATH": f"{ours}{os.pathsep}{others}" if others else ours}
