"""Overload: what is accepted and delivered while more comes than can be delivered, and afterwards.

Two runs on a fresh daemon each. First many connections send as fast as they are answered: accepting must
go on, and the backlog must drain at full speed when they stop. Then the other way round: a backend that
is slow for a while leaves a backlog, and while that is delivered SMS come at a steady rate: they must be
answered as quickly as ever. Fails where an accepted SMS is not delivered.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from smsdaemon.status_file import StatusFile
from tests.bench import plots
from tests.bench.curves import Curves, Events, curves
from tests.bench.machine import busy, machine
from tests.bench.rig import (
    ROOT,
    VAR,
    apply,
    asked,
    daemon,
    environment,
    set_up,
    sink,
    state_folder,
)
from tests.bench.rig import main as run_command
from tests.bench.runs import Run, Shape, load_command, milliseconds, run

BEFORE_SECONDS = 2.0
AFTER_SECONDS = 2.0
SLOW_MILLISECONDS = 1000


@frozen(kw_only=True)
class Story:
    """One run, told."""

    title: str
    curves: Curves
    moments: list[tuple[float, str]]
    figures: dict[str, Any]


# --- more than can be delivered -------------------------------------------------------------------


def overloaded(folder: Path, options: argparse.Namespace) -> Story:
    with sink(folder) as sink_port:
        http = set_up(folder, sink_port, options.workers)
        apply(folder)
        with daemon(folder):
            run(folder, http, sink_port, Shape(seconds=2))  # warms up
            asked(sink_port, f"/delay/{options.backend_ms}")
            shape = Shape(seconds=options.seconds, connections=options.connections)
            measured = run(folder, http, sink_port, shape)
            workers = _living_workers(folder)
    accepted, delivered = Events(measured.answered.values()), Events(measured.received.values())
    origin, stop = min(measured.due.values()), accepted.last
    drained = delivered.last
    quarter = (stop - origin) / 4
    return Story(
        title=f"{options.connections} connections for {options.seconds:g} s, as fast as they are answered",
        curves=curves(
            accepted, delivered, origin=origin, start=origin - BEFORE_SECONDS, end=drained + AFTER_SECONDS
        ),
        moments=[(0.0, "load begins"), (stop - origin, "load ends"), (drained - origin, "all delivered")],
        figures={
            "connections": options.connections,
            "backend_ms": options.backend_ms,
            "accepted": len(measured.due),
            "accepted_per_second": accepted.rate(origin, stop),
            "accepted_per_second_first_quarter": accepted.rate(origin, origin + quarter),
            "accepted_per_second_last_quarter": accepted.rate(stop - quarter, stop),
            "accept_p99_ms": measured.accept_milliseconds(0.99),
            "longest_without_accepting_s": accepted.longest_gap(origin, stop),
            "delivered_per_second_during": delivered.rate(origin, stop),
            "longest_without_delivering_s": delivered.longest_gap(origin, drained),
            "pending_at_the_end": accepted.so_far(stop) - delivered.so_far(stop),
            "drained_after_s": round(drained - stop, 2),
            "delivered_per_second_afterwards": delivered.rate(stop, drained),
            "workers_living_afterwards": workers,
            "lost": 0,
        },
    )


def _living_workers(folder: Path) -> int:
    told = StatusFile(folder / "state").read()
    return 0 if told is None else sum(worker["pid"] is not None for worker in told["workers"])


# --- a backlog, and SMS at a steady rate ------------------------------------------------------------


def draining(folder: Path, options: argparse.Namespace) -> Story:
    with sink(folder) as sink_port:
        http = set_up(folder, sink_port, options.workers)
        apply(folder)
        with daemon(folder):
            quiet = run(folder, http, sink_port, Shape(seconds=3, rate=options.rate))
            asked(sink_port, f"/delay/{SLOW_MILLISECONDS}")
            with _load(folder, "flood", http, Shape(seconds=options.seconds / 2)) as process:
                flood = _summary(process)
            with _load(folder, "steady", http, Shape(seconds=options.seconds, rate=options.rate)) as process:
                time.sleep(3)  # a part of the steady ones comes while the backend is slow still
                quick_at = time.monotonic()
                asked(sink_port, "/delay/0")
                steady = _summary(process)
            lines = [(folder / name).read_text().splitlines() for name in ("flood", "steady")]
            both = Run(_sum([flood, steady]), [*lines[0], *lines[1]], sink_port)
    return _drained(both, {line.split()[0] for line in lines[1]}, quick_at, quiet, options)


def _drained(both: Run, steady: set[str], quick_at: float, quiet: Run, options: argparse.Namespace) -> Story:
    accepted, delivered = Events(both.answered.values()), Events(both.received.values())
    backlog = [at for id_, at in both.received.items() if id_ not in steady]
    origin, drained = min(both.due.values()), max(backlog)
    while_draining = [
        both.answered[id_] - both.due[id_] for id_ in steady if quick_at <= both.due[id_] < drained
    ]
    before = min(both.due[id_] for id_ in steady)
    return Story(
        title=f"A backlog is delivered while SMS come at {options.rate:g}/s",
        curves=curves(
            accepted,
            delivered,
            origin=origin,
            start=origin - BEFORE_SECONDS,
            end=delivered.last + AFTER_SECONDS,
        ),
        moments=[
            (before - origin, f"{options.rate:g} SMS/s"),
            (quick_at - origin, "backend is quick"),
            (drained - origin, "backlog delivered"),
        ],
        figures={
            "rate": options.rate,
            "backlog": accepted.so_far(quick_at) - delivered.so_far(quick_at),
            "delivered_per_second_draining": delivered.rate(quick_at, drained),
            "drained_after_s": round(drained - quick_at, 2),
            "accept_p99_ms_quiet": quiet.accept_milliseconds(0.99),
            "accept_p99_ms_draining": milliseconds(while_draining, 0.99),
            "steady_while_draining": len(while_draining),
            "longest_without_delivering_s": delivered.longest_gap(quick_at, drained),
            "lost": 0,
        },
    )


@contextlib.contextmanager
def _load(folder: Path, name: str, http: int, shape: Shape) -> Iterator[subprocess.Popen[str]]:
    command = load_command(folder, name, http, shape)
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # where it is not over, nobody waits for it any more


def _summary(process: subprocess.Popen[str]) -> dict[str, Any]:
    printed, _ = process.communicate(timeout=300)
    found: dict[str, Any] = json.loads(printed)
    return found


def _sum(summaries: list[dict[str, Any]]) -> dict[str, object]:
    statuses = {status for summary in summaries for status in summary["statuses"]}
    return {
        "sent": sum(summary["sent"] for summary in summaries),
        "errors": {key: n for summary in summaries for key, n in summary["errors"].items()},
        "statuses": dict.fromkeys(statuses, 0),
    }


# --- the command ----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--connections", type=int, default=400)
    parser.add_argument("--backend-ms", type=float, default=5.0, help="what the backend takes for an answer")
    parser.add_argument("--rate", type=float, default=200.0, help="SMS/s while a backlog is delivered")
    parser.add_argument("--workers", type=int, default=max(os.cpu_count() or 2, 2))
    parser.add_argument("--output", type=Path, default=VAR / "bench-overload.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "overload.png")
    options = parser.parse_args()

    def measure() -> None:
        plots.check()
        sys.stderr.write(busy())
        told = machine()
        stories = []
        for measurement in (overloaded, draining):
            with state_folder() as folder:
                stories.append(measurement(folder, options))
        note = f"{told['cores']} cores, {told['processor']}, {options.workers} workers"
        plots.draw_overload(options.plot, [(s.title, s.curves, s.moments) for s in stories], note)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": told, "workers": options.workers, "runs": [asdict(story) for story in stories]}
        options.output.write_text(json.dumps(document) + "\n")
        for story in stories:
            sys.stdout.write(f"{story.title}\n")
            sys.stdout.writelines(f"  {key:36} {value}\n" for key, value in story.figures.items())
        sys.stdout.write(f"{options.plot}\n")

    return run_command("bench-overload", measure)


if __name__ == "__main__":
    raise SystemExit(main())
