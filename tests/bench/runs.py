"""One load on a running daemon, and when each of its SMS came to the backend."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from smsdaemon.cli.load import percentile
from tests.bench.rig import NUMBER, BenchFailed, asked, output

DRAIN_SECONDS = 180.0


@frozen(kw_only=True)
class Shape:
    """What is sent."""

    seconds: float
    connections: int = 64
    senders: int = 5000
    rate: float = 0
    """SMS/s, open loop: a late answer counts from when its request was due. 0: as fast as answered."""
    receivers: str = NUMBER
    """As load_process takes them."""
    form: str = ""
    first: int = 0
    """As load_process takes them: what each request looks like, and the number of the first."""


class Run:
    """What one load was answered, and when its SMS reached the backend; in seconds of time.monotonic().

    There is none unless everything was accepted and everything accepted was delivered.
    """

    def __init__(self, summary: dict[str, object], accepted: list[str], sink_port: int) -> None:
        if summary["errors"] or set(summary["statuses"]) != {"200"}:  # type: ignore[call-overload]
            raise BenchFailed(f"not everything was accepted: {summary['statuses']}, {summary['errors']}")
        rows = [line.split() for line in accepted]
        self.due = {id_: float(due) for id_, due, *_ in rows}
        self.answered = {id_: float(answered) for id_, _, answered, _ in rows}
        if len(self.due) != summary["sent"]:
            raise BenchFailed(f"{summary['sent']} SMS were accepted with {len(self.due)} different ids")
        self.received = _all_received(self.due, sink_port)

    def accepted_per_second(self) -> float:
        return len(self.due) / (max(self.answered.values()) - min(self.due.values()))

    def delivered_per_second(self) -> float:
        return len(self.due) / (max(self.received.values()) - min(self.due.values()))

    def accept_milliseconds(self, share: float) -> float:
        return milliseconds((at - self.due[id_] for id_, at in self.answered.items()), share)

    def delivery_milliseconds(self, share: float) -> float:
        return milliseconds((at - self.due[id_] for id_, at in self.received.items()), share)


def _all_received(due: dict[str, float], sink_port: int) -> dict[str, float]:
    """Wait until nothing that was accepted is missing at the backend; when each SMS came there."""
    until = time.monotonic() + DRAIN_SECONDS
    before = -1
    while True:
        # Asking for all times costs the daemon's cores: only when no more come.
        count = int(asked(sink_port, "/count"))
        if count == before or time.monotonic() > until:
            received = dict(line.split() for line in asked(sink_port, "/times").splitlines())
            missing = due.keys() - received.keys()
            if not missing:
                return {id_: float(received[id_]) for id_ in due}
            if time.monotonic() > until:
                raise BenchFailed(f"{len(missing)} of {len(due)} accepted SMS were not delivered")
        before = count
        time.sleep(0.5)


def milliseconds(seconds: Iterable[float], share: float) -> float:
    """The percentile of spans of time; 0 where there are none."""
    return round((percentile(sorted(seconds), share) or 0.0) * 1000, 2)


def load_command(folder: Path, name: str, http: int, shape: Shape) -> list[str]:
    """Of load_process; what was accepted goes into the file ``name`` of the folder."""
    numbers = (shape.seconds, shape.connections, shape.senders, shape.rate)
    command = [sys.executable, "-m", "tests.bench.load_process", str(http), str(folder / name)]
    return [*command, *map(str, numbers), shape.receivers, shape.form, str(shape.first)]


def run(folder: Path, http: int, sink_port: int, shape: Shape) -> Run:
    """Load the daemon and wait for the last delivery."""
    summary = json.loads(output(folder, *load_command(folder, "accepted", http, shape)))
    accepted = (folder / "accepted").read_text().splitlines()
    try:
        return Run(summary, accepted, sink_port)
    finally:
        asked(sink_port, "/forget")


def bearable(wanted: float, capacity: float) -> float:
    """A steady rate: the wanted one, or 0.6 of what the machine can where that is not well above it."""
    return wanted if capacity >= 1.25 * wanted else max(float(math.floor(capacity * 0.06) * 10), 10.0)
