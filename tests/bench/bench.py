"""The benchmark (contract 9): a real daemon, a provider and a backend on this machine's loopback.

For each number of workers on a daemon of its own: as fast as it accepts (accepted/s with latencies,
end-to-end/s until the backend has the last one), then at two steady rates (latencies of the accept, and
end-to-end). No figure is printed unless the backend has every SMS that was answered with 200.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from tests.bench.machine import busy, machine
from tests.bench.rig import VAR, apply, daemon, output, set_up, sink, state_folder
from tests.bench.rig import main as run_command
from tests.bench.runs import Run, Shape, bearable, run

ACCEPT_RATE = 1000.0
END_TO_END_RATE = 500.0

Figures = dict[str, dict[str, Any]]
"""``accepted`` and ``end_to_end``, each with what it holds for."""


def measured(folder: Path, workers: int, options: argparse.Namespace) -> Figures:
    shape = Shape(seconds=options.seconds, connections=options.connections, senders=options.senders)
    with sink(folder) as sink_port:
        http = set_up(folder, sink_port, workers)
        apply(folder)
        facts = database_facts(folder, options.rows)
        with daemon(folder):
            run(folder, http, sink_port, evolve(shape, seconds=min(2.0, options.seconds)))  # warms up
            fast = run(folder, http, sink_port, shape)
            accept_rate = bearable(options.rate, fast.accepted_per_second())
            accepting = run(folder, http, sink_port, evolve(shape, rate=accept_rate))
            delivery_rate = bearable(options.end_to_end_rate, fast.delivered_per_second())
            delivering = run(folder, http, sink_port, evolve(shape, rate=delivery_rate))
    context = {"cores": os.cpu_count(), "workers": workers, **facts, "lost": 0}
    return {
        "accepted": _accepted(fast, accepting, accept_rate, options) | context,
        "end_to_end": _end_to_end(fast, delivering, delivery_rate, options) | context,
    }


def database_facts(folder: Path, rows: int = 0, seconds: float = 3600.0) -> dict[str, Any]:
    """Fill it first, up to so many rows; the daemon must not run."""
    command = [sys.executable, "-m", "tests.bench.database_facts", "smsdaemon.toml", str(rows), str(seconds)]
    facts: dict[str, Any] = json.loads(output(folder, *command, seconds=seconds + 600.0))
    return facts


def _accepted(fast: Run, steady: Run, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "per_second": round(fast.accepted_per_second(), 1),
        "p50_ms": fast.accept_milliseconds(0.5),
        "p99_ms": fast.accept_milliseconds(0.99),
        "steady_per_second": rate,
        "steady_wanted": options.rate,
        "steady_p50_ms": steady.accept_milliseconds(0.5),
        "steady_p99_ms": steady.accept_milliseconds(0.99),
        "sms": len(fast.due),
        "connections": options.connections,
    }


def _end_to_end(fast: Run, steady: Run, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "per_second": round(fast.delivered_per_second(), 1),
        "p50_ms": steady.delivery_milliseconds(0.5),
        "p99_ms": steady.delivery_milliseconds(0.99),
        "latencies_at_per_second": rate,
        "latencies_wanted_at": options.end_to_end_rate,
        "accept_p50_ms": steady.accept_milliseconds(0.5),
        "accept_p99_ms": steady.accept_milliseconds(0.99),
        "sms": len(fast.due),
    }


# --- what is printed ------------------------------------------------------------------------------


def table(runs: Sequence[Figures]) -> str:
    lines = [f"{'':24} {'workers':>7} {'SMS/s':>9} {'p50 ms':>9} {'p99 ms':>9}"]
    notes = []
    for figures in runs:
        accepted, end_to_end = figures["accepted"], figures["end_to_end"]
        at_accept = accepted["steady_per_second"], accepted["steady_wanted"]
        at_delivery = end_to_end["latencies_at_per_second"], end_to_end["latencies_wanted_at"]
        for name, figure, *keys in (
            ("accepted", accepted, "per_second", "p50_ms", "p99_ms"),
            ("accepted, steady", accepted, "steady_per_second", "steady_p50_ms", "steady_p99_ms"),
            ("end-to-end", end_to_end, "per_second"),
            ("end-to-end, steady", end_to_end, "latencies_at_per_second", "p50_ms", "p99_ms"),
        ):
            cells = " ".join(f"{figure[key]:>9}" for key in keys)
            lines.append(f"{name:24} {accepted['workers']:>7} {cells}")
        for name, (rate, wanted) in (("accept", at_accept), ("end-to-end", at_delivery)):
            if rate < wanted:
                notes.append(
                    f"{accepted['workers']} worker(s): {name} latencies at {rate:g} SMS/s, "
                    f"since this machine does not bear {wanted:g}"
                )
    told = runs[0]["accepted"]
    notes.append(
        f"{sum(figures['accepted']['sms'] for figures in runs)} SMS at full speed, 0 lost; {told['cores']} "
        f"cores, PostgreSQL {told['postgresql']}, fsync {told['fsync']}, "
        f"{told['stored_rows']} rows stored at the start"
    )
    return "\n".join([*lines, *notes]) + "\n"


# --- the command ----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench", description=__doc__)
    many = max(os.cpu_count() or 2, 2)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each run")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--senders", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=ACCEPT_RATE, help="SMS/s for latencies of the accept")
    parser.add_argument("--end-to-end-rate", type=float, default=END_TO_END_RATE)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, many])
    parser.add_argument("--rows", type=int, default=0, help="SMS stored before the start")
    parser.add_argument("--output", type=Path, default=VAR / "bench.json")
    options = parser.parse_args()

    def measure() -> None:
        sys.stderr.write(busy())
        document: dict[str, Any] = {"machine": machine(), "runs": []}
        for workers in options.workers:
            with state_folder() as folder:
                document["runs"].append(measured(folder, workers, options))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document, indent=2) + "\n")
        sys.stdout.write(table(document["runs"]))

    return run_command("bench", measure)


if __name__ == "__main__":
    raise SystemExit(main())
