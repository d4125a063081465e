"""Memory of one worker while a million SMS are really accepted and delivered, sampled as it goes.

Loads in rounds, each delivered to its end before the next, so that no backlog is measured. Ends after
``--sms``, or ``--minutes``, whichever comes first. Fails where an accepted SMS was not delivered.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smsdaemon.status_file import StatusFile
from tests.bench import plots
from tests.bench.machine import busy, machine, need_disk, resident_mebibytes
from tests.bench.rig import (
    VAR,
    BenchFailed,
    apply,
    asked,
    daemon,
    output,
    set_up,
    sink,
    state_folder,
    worker_pids,
)
from tests.bench.rig import main as run_command
from tests.bench.runs import DRAIN_SECONDS, Shape, load_command

GIGABYTES = 4.0
SAMPLE_SECONDS = 1.0
GROWING_PER_MILLION = 5.0
"""MiB per million SMS, over the second half; less is the noise of an allocator."""


class Samples:
    """SMS delivered so far, and the RSS of the largest worker then."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self.sms: list[int] = []
        self.mebibytes: list[float] = []

    def take(self, delivered: int) -> None:
        self.sms.append(delivered)
        self.mebibytes.append(max(map(resident_mebibytes, self._pids)))


def per_million(sms: Sequence[int], mebibytes: Sequence[float]) -> float:
    """How fast it grows over the second half of the SMS: MiB per million, by least squares."""
    half = [(n / 1e6, m) for n, m in zip(sms, mebibytes, strict=True) if n >= sms[-1] / 2]
    mean_n, mean_m = (sum(column) / len(half) for column in zip(*half, strict=True))
    spread = sum((n - mean_n) ** 2 for n, _ in half)
    return round(sum((n - mean_n) * (m - mean_m) for n, m in half) / spread, 2) if spread else 0.0


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    until = time.monotonic() + 60 * options.minutes
    with sink(folder) as sink_port:
        http = set_up(folder, sink_port, options.workers)
        apply(folder)
        with daemon(folder):
            pids = worker_pids(folder)
            samples = Samples(pids)
            samples.take(0)
            began, accepted = time.monotonic(), 0
            while accepted < options.sms and time.monotonic() < until:
                accepted += _round(folder, http, options)
                _wait(sink_port, accepted, samples)
                sys.stderr.write(f"{accepted} SMS, {samples.mebibytes[-1]} MiB\n")
            seconds = time.monotonic() - began
            if worker_pids(folder) != pids:
                raise BenchFailed("a worker was started again meanwhile")
            told = StatusFile(folder / "state").read()
    assert told is not None
    growth = per_million(samples.sms, samples.mebibytes)
    return {
        "sms": accepted,
        "workers": options.workers,
        "seconds": round(seconds),
        "RSS_MiB_at_start": samples.mebibytes[0],
        "RSS_MiB_at_the_end": samples.mebibytes[-1],
        "RSS_MiB_largest": max(samples.mebibytes),
        "growth_MiB_per_million_in_the_second_half": growth,
        "growing": growth > GROWING_PER_MILLION,
        "restarts": sum(worker["restarts"] for worker in told["workers"]),
        "lost": 0,
        "sms_delivered": samples.sms,
        "RSS_MiB": samples.mebibytes,
    }


def _round(folder: Path, http: int, options: argparse.Namespace) -> int:
    shape = Shape(seconds=options.seconds)
    summary = json.loads(output(folder, *load_command(folder, "accepted", http, shape)))
    if summary["errors"] or set(summary["statuses"]) != {"200"}:
        raise BenchFailed(f"not everything was accepted: {summary['statuses']}, {summary['errors']}")
    return int(summary["sent"])


def _wait(sink_port: int, accepted: int, samples: Samples) -> None:
    """Until all that was ever accepted has come; ids differ, so their count says it."""
    until = time.monotonic() + DRAIN_SECONDS
    while True:
        delivered = int(asked(sink_port, "/count"))
        samples.take(delivered)
        if delivered >= accepted:
            return
        if time.monotonic() > until:
            raise BenchFailed(f"{accepted - delivered} of {accepted} accepted SMS were not delivered")
        time.sleep(SAMPLE_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--sms", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round's load")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, default=VAR / "bench-memory.json")
    parser.add_argument("--plot", type=Path, default=VAR / "bench-memory.png")
    options = parser.parse_args()

    def measure() -> None:
        plots.check()
        with state_folder() as folder:
            sys.stderr.write(
                f"up to {GIGABYTES:.0f} GB in {folder}; at most {options.minutes:g} min\n{busy()}"
            )
            need_disk(folder, GIGABYTES)
            document = {"machine": machine(), **measured(folder, options)}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document) + "\n")
        plots.draw_memory(options.plot, document["sms_delivered"], document["RSS_MiB"], "RSS of one worker")
        told = {key: value for key, value in document.items() if not isinstance(value, (list, dict))}
        sys.stdout.writelines(f"{key:44} {value}\n" for key, value in told.items())

    return run_command("bench-memory", measure)


if __name__ == "__main__":
    raise SystemExit(main())
