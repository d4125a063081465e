"""How the figures change with what is stored: the same load on 0, 1 and 10 million SMS.

First with one connector and nothing stored, then with 100,000 connectors and more and more stored SMS,
in the end once more with nothing, on a new database, which shows what the machine itself did meanwhile.
Each stage is a daemon of its own: seconds until it is ready, several rounds at full
speed, p99 at a steady rate, a change of the directory, memory of a worker, size of the database. A first
load of each stage is not counted. The rounds send to one connector, which is what the stage without
others has too, and then to the first thousand of the others, of a client each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
from attrs import evolve, frozen

from smsdaemon.store.embedded_location import locate
from tests.bench import plots
from tests.bench.bench import ACCEPT_RATE, database_facts
from tests.bench.machine import busy, machine, need_disk, resident_mebibytes
from tests.bench.rig import (
    CLIENTS,
    NUMBER,
    ROOT,
    VAR,
    BenchFailed,
    apply,
    daemon,
    nth_number,
    set_up,
    sink,
    state_folder,
    worker_pids,
)
from tests.bench.rig import main as run_command
from tests.bench.runs import Shape, bearable, run
from tests.support.sms_peers import Peer

GIGABYTES_PER_MILLION = 0.65
GIGABYTES_AT_LEAST = 3.0
"""What a cluster needs with its WAL."""
FILLED_PER_SECOND = 5000
"""What the slowest machine that is thought of fills."""
STEADY = 1.1
"""More between two equal stages, and nothing can be said of the ones between."""
CHANGE_SECONDS = 30.0
SAME_ANSWERS = 20
"""On connections of their own, so that every worker has answered."""


@frozen(kw_only=True)
class Rig:
    """Where the stages run."""

    folder: Path
    http: int
    sink_port: int
    options: argparse.Namespace


def stage(rig: Rig, stored: int, connectors: int) -> dict[str, Any]:
    """One stage, with its figures."""
    options = rig.options
    facts = database_facts(rig.folder, stored, max(stored / FILLED_PER_SECOND, 600.0))
    if facts["stored_rows"] < stored:
        raise BenchFailed(f"only {facts['stored_rows']} of {stored} SMS could be filled in time")
    shape = Shape(seconds=options.seconds)
    began = time.monotonic()
    with daemon(rig.folder):
        ready = time.monotonic() - began
        workers = worker_pids(rig.folder)
        at_start = max(map(resident_mebibytes, workers))
        run(rig.folder, rig.http, rig.sink_port, evolve(shape, seconds=2.0))  # warms up
        figures = _rounds(rig, shape)
        if connectors > CLIENTS:
            spread = evolve(shape, receivers=f"{nth_number(0)}:{CLIENTS}")
            figures |= {f"spread_{key}": value for key, value in _rounds(rig, spread).items()}
        rate = bearable(ACCEPT_RATE, figures["accepted_per_second"])
        steady = run(rig.folder, rig.http, rig.sink_port, evolve(shape, rate=rate))
        change = _change_seconds(rig)
        memory = max(map(resident_mebibytes, workers))
    return {
        "stored_at_start": facts["stored_rows"],
        "connectors": facts["connectors"],
        **figures,
        "steady_per_second": rate,
        "accept_p99_ms": steady.accept_milliseconds(0.99),
        "end_to_end_p99_ms": steady.delivery_milliseconds(0.99),
        "start_to_ready_s": round(ready, 2),
        "change_in_force_s": round(change, 3),
        "worker_RSS_MiB_at_start": at_start,
        "worker_RSS_MiB": memory,
        "database_MB": facts["database_MB"],
        "workers": options.workers,
        "postgresql": facts["postgresql"],
        "fsync": facts["fsync"],
        "lost": 0,
    }


def _rounds(rig: Rig, shape: Shape) -> dict[str, Any]:
    found = [run(rig.folder, rig.http, rig.sink_port, shape) for _ in range(rig.options.rounds)]
    accepted = [round(one.accepted_per_second(), 1) for one in found]
    delivered = [round(one.delivered_per_second(), 1) for one in found]
    return {
        "accepted_per_second": statistics.median(accepted),
        "accepted_per_second_rounds": accepted,
        "end_to_end_per_second": statistics.median(delivered),
        "end_to_end_per_second_rounds": delivered,
    }


def _change_seconds(rig: Rig) -> float:
    """From the COMMIT that disables a connector until every worker refuses its SMS; enabled again after."""
    peers = Peers(rig.http)
    connection = psycopg2.connect(locate(rig.folder / "state").dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            seconds = 0.0
            for enabled, status in ((False, 502), (True, 200)):
                cursor.execute("UPDATE connector SET enabled = %s WHERE number = %s", (enabled, NUMBER))
                seconds = max(seconds, peers.seconds_until(lambda: peers.status(), status))
            return seconds
    finally:
        connection.close()


class Peers:
    """Providers that ask once each."""

    def __init__(self, port: int) -> None:
        self._port = port

    def status(self) -> int:
        peer = Peer(self._port)
        try:
            return peer.get(receiver=NUMBER, sender="+4915199999999", message="change").status
        finally:
            peer.close()

    def seconds_until(self, asked: Callable[[], int], wanted: int) -> float:
        """Until the first of so many answers in a row that all are what is wanted."""
        began = time.monotonic()
        while time.monotonic() < began + CHANGE_SECONDS:
            seconds = time.monotonic() - began
            if all(asked() == wanted for _ in range(SAME_ANSWERS)):
                return seconds
        raise BenchFailed(f"a change of the directory is not in force after {CHANGE_SECONDS:g} s")


# --- what is told -----------------------------------------------------------------------------------


def ratios(stages: list[dict[str, Any]]) -> dict[str, float]:
    """The fullest stage against the mean of the two empty ones, between which all others were measured."""
    first, *_, fullest, again = stages
    return {
        key: round(2 * fullest[key] / (first[key] + again[key]), 2)
        for key in ("accepted_per_second", "end_to_end_per_second")
    }


def table(stages: list[dict[str, Any]]) -> str:
    rows = (
        ("connectors", "connectors"),
        ("accepted/s", "accepted_per_second"),
        ("end-to-end/s", "end_to_end_per_second"),
        ("accepted/s, 1,000 connectors", "spread_accepted_per_second"),
        ("end-to-end/s, 1,000 connectors", "spread_end_to_end_per_second"),
        ("steady SMS/s", "steady_per_second"),
        ("  accept p99 ms", "accept_p99_ms"),
        ("  end-to-end p99 ms", "end_to_end_p99_ms"),
        ("start to ready s", "start_to_ready_s"),
        ("change in force s", "change_in_force_s"),
        ("a worker's RSS MiB, at start", "worker_RSS_MiB_at_start"),
        ("a worker's RSS MiB, at the end", "worker_RSS_MiB"),
        ("database MB", "database_MB"),
    )
    lines = [f"{'stored SMS':32}" + "".join(f"{one['stored_at_start']:>12}" for one in stages)]
    for title, key in rows:
        lines.append(f"{title:32}" + "".join(f"{one.get(key, '-'):>12}" for one in stages))
    told = ", ".join(f"{key.replace('_per_second', '')} x{ratio}" for key, ratio in ratios(stages).items())
    lines.append(f"fullest against empty: {told}")
    speeds = [stages[n]["accepted_per_second"] for n in (0, -1)]
    if max(speeds) > STEADY * min(speeds):
        lines.append("the empty stages before and after differ too much: the machine was not the same")
    return "\n".join(lines) + "\n"


# --- the command ------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--stored", type=int, nargs="+", default=[0, 1_000_000, 10_000_000])
    parser.add_argument("--connectors", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each load")
    parser.add_argument("--workers", type=int, default=max(os.cpu_count() or 2, 2))
    parser.add_argument("--output", type=Path, default=VAR / "bench-growth.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "growth.png")
    options = parser.parse_args()
    return run_command("bench-growth", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> None:
    plots.check()
    needed = GIGABYTES_AT_LEAST + GIGABYTES_PER_MILLION * max(options.stored) / 1e6
    document: dict[str, Any] = {"machine": machine()}
    with state_folder() as folder, sink(folder) as sink_port:
        sys.stderr.write(f"up to {needed:.0f} GB in {folder}, which is removed afterwards\n{busy()}")
        need_disk(folder, needed)
        rig = _rig(folder, sink_port, options, 1)
        apply(folder)
        stages = [_told(stage(rig, 0, 1))]
        rig = _rig(folder, sink_port, options, options.connectors)
        document["apply_seconds"] = round(apply(folder), 1)
        document["apply_unchanged_seconds"] = round(apply(folder), 1)
        stages += [_told(stage(rig, stored, options.connectors)) for stored in options.stored]
    with state_folder() as folder, sink(folder) as sink_port:
        # The first stage once more: what it differs by is the machine, and not what is stored.
        rig = _rig(folder, sink_port, options, 1)
        apply(folder)
        stages.append(_told(stage(rig, 0, 1)))
    document |= {"stages": stages, "last_against_empty": ratios(stages)}
    _write(document, stages, options)


def _rig(folder: Path, sink_port: int, options: argparse.Namespace, connectors: int) -> Rig:
    http = set_up(folder, sink_port, options.workers, connectors)
    return Rig(folder=folder, http=http, sink_port=sink_port, options=options)


def _write(document: dict[str, Any], stages: list[dict[str, Any]], options: argparse.Namespace) -> None:
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=2) + "\n")
    told = document["machine"]
    note = f"{told['cores']} cores, {told['processor']}, {options.workers} workers"
    plots.draw_growth(options.plot, stages, note)
    sys.stdout.write(table(stages))
    sys.stdout.write(f"apply of {options.connectors} connectors: {document['apply_seconds']} s\n")
    sys.stdout.write(f"{options.plot}\n")


def _told(one: dict[str, Any]) -> dict[str, Any]:
    """A sign of life, since all of it takes long."""
    sys.stderr.write(
        f"{one['stored_at_start']} SMS, {one['connectors']} connector(s): accepted/s "
        f"{one['accepted_per_second']}, end-to-end/s {one['end_to_end_per_second']}\n"
    )
    return one


if __name__ == "__main__":
    raise SystemExit(main())
