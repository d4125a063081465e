"""The benchmark (contract 9): a real daemon, a provider and a backend on this machine's loopback.

Two runs on one daemon: as fast as it accepts (accepted/s with latencies, end-to-end/s until the
backend has the last one), then at a steady rate (end-to-end latencies). No figure is printed unless
the backend has every SMS that was answered with 200.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from smsdaemon.cli.load import percentile
from smsdaemon.store.embedded_location import locate, remove
from tests.support.postgres import reachable_folder

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_SECONDS = 60.0
DRAIN_SECONDS = 180.0

_SETTINGS = """\
state_dir = "state"
workers = {workers}
[http]
listen = ["tcp:{http}:interface=127.0.0.1"]
[log]
level = "warn"
"""
_DIRECTORY = """\
[[reseller]]
name = "bench"
[[client]]
name = "bench"
reseller = "bench"
[[acd_group]]
client = "bench/bench"
name = "sink"
url = "http://127.0.0.1:{sink}/"
[[connector]]
client = "bench/bench"
number = "+49123123"
acd_group = "sink"
"""


class BenchFailed(Exception):
    """There are no figures, and why."""


# --- processes --------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def state_folder() -> Iterator[Path]:
    """A folder for everything, the cluster included; nothing of it is left afterwards."""
    folder = reachable_folder()
    try:
        yield folder
    finally:
        if (folder / "state").exists():
            remove(locate(folder / "state"))
        shutil.rmtree(folder, ignore_errors=True)


def environment() -> dict[str, str]:
    """This process' own, without settings of another daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SMSDAEMON_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def output(folder: Path, *command: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFailed(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[int]:
    """The backend; yields its port. It ends with its standard input."""
    command = [sys.executable, "-m", "tests.bench.sink_process"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate(timeout=10)


@contextlib.contextmanager
def daemon(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A twistd of its own; it has ended, and its PostgreSQL with it, when the block is left."""
    command = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "smsdaemon", "--config", "smsdaemon.toml"]
    log = folder / "daemon.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=stream, stderr=stream, text=True
        ) as process,
    ):
        try:
            until = time.monotonic() + START_SECONDS
            while "smsdaemon ready" not in log.read_text():
                if process.poll() is not None or time.monotonic() > until:
                    raise BenchFailed(f"the daemon did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def asked(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode("ascii"))


# --- runs -------------------------------------------------------------------------------------


class Run:
    """What one load was answered, and when its SMS reached the backend."""

    def __init__(self, summary: dict[str, object], accepted: list[str], sink_port: int) -> None:
        if summary["errors"] or set(summary["statuses"]) != {"200"}:  # type: ignore[call-overload]
            raise BenchFailed(f"not everything was accepted: {summary['statuses']}, {summary['errors']}")
        rows = [line.split() for line in accepted]
        self.due = {id_: float(due) for id_, due, *_ in rows}
        self.answered = {id_: float(answered) for id_, _, answered, _ in rows}
        if len(self.due) != summary["sent"]:
            raise BenchFailed(f"{summary['sent']} SMS were accepted with {len(self.due)} different ids")
        self.received = self._all_received(sink_port)

    def _all_received(self, sink_port: int) -> dict[str, float]:
        """Wait until nothing that was accepted is missing at the backend; when each SMS came there."""
        until = time.monotonic() + DRAIN_SECONDS
        before = -1
        while True:
            # Asking for all times costs the daemon's cores: only when no more come.
            count = int(asked(sink_port, "/count"))
            if count == before or time.monotonic() > until:
                received = dict(line.split() for line in asked(sink_port, "/times").splitlines())
                missing = self.due.keys() - received.keys()
                if not missing:
                    return {id_: float(received[id_]) for id_ in self.due}
                if time.monotonic() > until:
                    raise BenchFailed(f"{len(missing)} of {len(self.due)} accepted SMS were not delivered")
            before = count
            time.sleep(0.5)

    def accepted_per_second(self) -> float:
        return len(self.due) / (max(self.answered.values()) - min(self.due.values()))

    def delivered_per_second(self) -> float:
        return len(self.due) / (max(self.received.values()) - min(self.due.values()))

    def accept_milliseconds(self, share: float) -> float:
        return _share({id_: at - self.due[id_] for id_, at in self.answered.items()}, share)

    def delivery_milliseconds(self, share: float) -> float:
        return _share({id_: at - self.due[id_] for id_, at in self.received.items()}, share)


def _share(seconds: dict[str, float], share: float) -> float:
    return round((percentile(sorted(seconds.values()), share) or 0.0) * 1000, 2)


def run(folder: Path, http: int, sink_port: int, options: argparse.Namespace, rate: str = "") -> Run:
    accepted = folder / "accepted"
    arguments = [str(options.seconds), str(options.connections), str(options.senders)]
    command = [sys.executable, "-m", "tests.bench.load_process", str(http), str(accepted), *arguments]
    summary = json.loads(output(folder, *command, *([rate] if rate else [])))
    return Run(summary, accepted.read_text().splitlines(), sink_port)


def measured(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The figures, each with what they hold for."""
    http = free_port()
    (folder / "smsdaemon.toml").write_text(_SETTINGS.format(http=http, workers=options.workers))
    with sink(folder) as sink_port:
        (folder / "directory.toml").write_text(_DIRECTORY.format(sink=sink_port))
        output(folder, str(BIN / "smsdaemon"), "apply", "--config", "smsdaemon.toml", "directory.toml")
        command = [sys.executable, "-m", "tests.bench.database_facts", "smsdaemon.toml", str(options.rows)]
        facts = json.loads(output(folder, *command))
        with daemon(folder):
            warm_up = argparse.Namespace(**{**vars(options), "seconds": min(2.0, options.seconds)})
            run(folder, http, sink_port, warm_up)
            fast = run(folder, http, sink_port, options)
            steady = run(folder, http, sink_port, options, str(options.rate))
    context = {"cores": os.cpu_count(), "workers": options.workers, **facts, "lost": 0}
    return {
        "accepted": {
            "per_second": round(fast.accepted_per_second(), 1),
            "p50_ms": fast.accept_milliseconds(0.5),
            "p99_ms": fast.accept_milliseconds(0.99),
            "sms": len(fast.due),
            "connections": options.connections,
            **context,
        },
        "end_to_end": {
            "per_second": round(fast.delivered_per_second(), 1),
            "p50_ms": steady.delivery_milliseconds(0.5),
            "p99_ms": steady.delivery_milliseconds(0.99),
            "latencies_at_per_second": options.rate,
            "accept_p50_ms": steady.accept_milliseconds(0.5),
            "accept_p99_ms": steady.accept_milliseconds(0.99),
            "sms": len(fast.due),
            **context,
        },
    }


# --- the command ------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each of the two runs")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--senders", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=300.0, help="SMS/s of the steady run")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows", type=int, default=0, help="SMS stored before the start")
    parser.add_argument("--output", type=Path, default=ROOT / "var" / "bench.json")
    options = parser.parse_args()
    try:
        with state_folder() as folder:
            figures = measured(folder, options)
    except BenchFailed as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(table(figures))
    return 0


def table(figures: dict[str, dict[str, object]]) -> str:
    lines = [f"{'':12} {'SMS/s':>9} {'p50 ms':>9} {'p99 ms':>9}"]
    for name, figure in figures.items():
        row = [figure[key] for key in ("per_second", "p50_ms", "p99_ms")]
        lines.append(f"{name.replace('_', '-'):12} " + " ".join(f"{value:>9}" for value in row))
    told = figures["end_to_end"]
    lines.append(
        f"{told['sms']} SMS, 0 lost; latencies end-to-end at {told['latencies_at_per_second']:g} SMS/s; "
        f"{told['cores']} cores, {told['workers']} worker(s), PostgreSQL {told['postgresql']}, "
        f"fsync {told['fsync']}, {told['stored_rows']} rows stored at the start"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
