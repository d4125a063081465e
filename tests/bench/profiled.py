"""Where the time goes: a worker's by module, from py-spy, and CPU seconds per SMS by kind of process.

One load without py-spy, which costs itself, for the CPU seconds; one with it. As root, or where the
kernel lets one look at processes of one's own (kernel.yama.ptrace_scope = 0).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.cpu import Account, Times, of_daemon
from tests.bench.machine import busy, machine
from tests.bench.rig import (
    BIN,
    VAR,
    BenchFailed,
    apply,
    daemon,
    environment,
    set_up,
    sink,
    state_folder,
    worker_pids,
)
from tests.bench.rig import main as run_command
from tests.bench.runs import Run, Shape, run
from tests.bench.stacks import Shares, shares

PER_SECOND = 250
STARTING_SECONDS = 1.5
"""Until a load runs, roughly; py-spy begins to look then."""
ROWS = 25


def measured(folder: Path, options: argparse.Namespace) -> tuple[Run, dict[str, Times], Shares]:
    shape = Shape(seconds=options.seconds, connections=options.connections, rate=options.rate)
    with sink(folder) as sink_port:
        http = set_up(folder, sink_port, options.workers)
        apply(folder)
        with daemon(folder) as process:
            workers = worker_pids(folder)
            run(folder, http, sink_port, Shape(seconds=2))  # warms up
            account = Account(of_daemon(folder, process.pid, workers))
            counted = run(folder, http, sink_port, shape)
            used = account.used()
            raw = folder / "stacks"
            spy = _spy(folder, workers[0], raw, options.seconds)
            try:
                run(folder, http, sink_port, shape)
                printed, _ = spy.communicate(timeout=options.seconds + 60)
            finally:
                spy.terminate()
    if spy.returncode or not raw.exists():
        raise BenchFailed(f"py-spy saw nothing: {printed.strip()[-500:]}")
    found = shares(raw.read_text().splitlines())
    if not found.samples:
        raise BenchFailed("py-spy saw nothing of the reactor")
    return counted, used, found


def _spy(folder: Path, pid: int, raw: Path, seconds: float) -> subprocess.Popen[str]:
    program = BIN / "py-spy"
    if not program.exists():
        raise BenchFailed("py-spy is not installed: use the make target, which installs it")
    command = [str(program), "record", "--pid", str(pid), "--duration", str(max(round(seconds), 1))]
    command += ["--rate", str(PER_SECOND), "--format", "raw", "--full-filenames", "--output", str(raw)]
    waiting = ["/bin/sh", "-c", 'sleep "$0" && exec "$@"', str(STARTING_SECONDS), *command]
    return subprocess.Popen(
        waiting, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def cpu_table(used: dict[str, Times], sms: int) -> str:
    """Microseconds of CPU for each SMS that was accepted and delivered."""
    lines = [f"{'CPU per SMS, µs':16} {'user':>8} {'system':>8} {'both':>8}"]
    total = Times(user=sum(t.user for t in used.values()), system=sum(t.system for t in used.values()))
    for kind, times in [*used.items(), ("all", total)]:
        cells = (1e6 * seconds / sms for seconds in (times.user, times.system, times.both))
        lines.append(f"{kind:16} " + " ".join(f"{cell:>8.0f}" for cell in cells))
    return "\n".join(lines) + "\n"


def share_table(found: Shares) -> str:
    lines = [f"{'share':>6}  at work, of {found.samples} samples of one worker's main thread"]
    lines += [f"{found.percent(n):5.1f}%  {module}" for module, n in found.innermost.most_common(ROWS)]
    lines += ["", f"{'share':>6}  with what is called from there"]
    lines += [f"{found.percent(n):5.1f}%  {module}" for module, n in found.inclusive.most_common(ROWS)]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profiled", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each of the two loads")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.0, help="SMS/s; 0: as fast as they are answered")
    parser.add_argument("--workers", type=int, default=max(os.cpu_count() or 2, 2))
    parser.add_argument("--output", type=Path, default=VAR / "bench-profile.json")
    options = parser.parse_args()

    def measure() -> None:
        sys.stderr.write(busy())
        document: dict[str, Any] = {"machine": machine(), "workers": options.workers}
        began = time.monotonic()
        with state_folder() as folder:
            counted, used, found = measured(folder, options)
        sms = len(counted.due)
        document |= {
            "sms": sms,
            "end_to_end_per_second": round(counted.delivered_per_second(), 1),
            "cpu_us_per_sms": {kind: round(1e6 * times.both / sms, 1) for kind, times in used.items()},
            "samples": found.samples,
            "percent_at_work": {m: found.percent(n) for m, n in found.innermost.most_common()},
            "percent_inclusive": {m: found.percent(n) for m, n in found.inclusive.most_common()},
            "seconds": round(time.monotonic() - began),
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document, indent=2) + "\n")
        sys.stdout.write(cpu_table(used, sms) + "\n" + share_table(found))

    return run_command("bench-profile", measure)


if __name__ == "__main__":
    raise SystemExit(main())
