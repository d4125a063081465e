"""Measures what docs/guarantees.md says of bad days: PostgreSQL away, a target down, a flood, a mountain.

``python -m tests.bench.resilience away|fairness|mountain``. Everything runs on loopback, is bounded in
count and time, and fails where an SMS that was answered 200 did not come to its target.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from smsdaemon.cli.load import percentile
from tests.bench.machine import resident_mebibytes
from tests.bench.rig import (
    BIN,
    BenchFailed,
    asked,
    daemon,
    environment,
    free_port,
    output,
    sink,
    state_folder,
)
from tests.support.postgres import PlainServer, reachable_folder

_SETTINGS = """\
state_dir = "state"
[http]
listen = ["tcp:{http}:interface=127.0.0.1"]
[database]
dsn = "{dsn}"
[log]
level = "warn"
"""
_OWNER = """\
[[reseller]]
name = "bench"
[[client]]
name = "bench"
reseller = "bench"
"""
_TARGET = """\
[[acd_group]]
client = "bench/bench"
name = "sink{n}"
url = "http://127.0.0.1:{port}/"
[[connector]]
client = "bench/bench"
number = "+4912300{n}"
acd_group = "sink{n}"
"""
SENDERS = 500
STARTING_SECONDS = 4.0
"""Until a load runs: starting a Python process takes a core for a second, which is not to be measured."""

Accepted = dict[str, tuple[float, float, int]]
"""SMS id -> when it was due, when it was answered, its number; in seconds of time.monotonic()."""


def set_up(folder: Path, sinks: list[int], dsn: str = "") -> int:
    """Settings, and one connector for each sink; the daemon's port."""
    http = free_port()
    (folder / "smsdaemon.toml").write_text(_SETTINGS.format(http=http, dsn=dsn))
    targets = "".join(_TARGET.format(n=n, port=port) for n, port in enumerate(sinks))
    (folder / "directory.toml").write_text(_OWNER + targets)
    output(folder, str(BIN / "smsdaemon"), "apply", "--config", "smsdaemon.toml", "directory.toml")
    return http


@contextlib.contextmanager
def load(folder: Path, name: str, http: int, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A load in the background; see load_process."""
    command = [sys.executable, "-m", "tests.bench.load_process", str(http), str(folder / name)]
    command += [str(argument) for argument in arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def result(process: subprocess.Popen[str], folder: Path, name: str) -> tuple[dict[str, Any], Accepted]:
    """Its summary, and what was accepted."""
    printed, _ = process.communicate(timeout=900)
    rows = [line.split() for line in (folder / name).read_text().splitlines()]
    return json.loads(printed), {
        id_: (float(due), float(answered), int(number)) for id_, due, answered, number in rows
    }


def received(port: int, wanted: set[str], patience: float) -> dict[str, float]:
    """Wait until a sink has them all; when each came there."""
    until = time.monotonic() + patience
    while True:
        if int(asked(port, "/count")) >= len(wanted) or time.monotonic() > until:
            times = dict(line.split() for line in asked(port, "/times").splitlines())
            missing = wanted - times.keys()
            if not missing:
                return {id_: float(times[id_]) for id_ in wanted}
            if time.monotonic() > until:
                raise BenchFailed(f"{len(missing)} of {len(wanted)} accepted SMS were not delivered")
        time.sleep(0.5)


def out_of_order(accepted: Accepted, times: dict[str, float]) -> int:
    """How many SMS came to the sink before one of their sender that was answered before they were sent."""
    conversations: dict[int, list[str]] = defaultdict(list)
    for id_ in sorted(accepted, key=lambda id_: accepted[id_][2]):
        conversations[accepted[id_][2] % SENDERS].append(id_)
    wrong = 0
    for ids in conversations.values():
        for before, after in pairwise(ids):
            answered_before_sent = accepted[before][1] < accepted[after][0]
            wrong += answered_before_sent and times[before] > times[after]
    return wrong


def milliseconds(seconds: list[float], share: float) -> float:
    return round((percentile(sorted(seconds), share) or 0.0) * 1000, 1)


# --- PostgreSQL away ------------------------------------------------------------------------------


def away(options: argparse.Namespace) -> dict[str, object]:
    """PostgreSQL is killed under a steady load and comes back after a while."""
    server = PlainServer(reachable_folder())
    try:
        server.start()
        dsn = server.make_database()
        with state_folder() as folder, sink(folder) as port:
            return _away(options, server, folder, set_up(folder, [port], dsn), port)
    finally:
        server.remove()


def _away(
    options: argparse.Namespace, server: PlainServer, folder: Path, http: int, port: int
) -> dict[str, object]:
    seconds = options.seconds + 20
    with daemon(folder), load(folder, "a", http, seconds, 64, SENDERS, options.rate, "+49123000") as process:
        time.sleep(5)
        server.kill()
        gone = time.monotonic()
        time.sleep(options.seconds)
        server.start()
        back = time.monotonic()
        summary, accepted = result(process, folder, "a")
        times = received(port, set(accepted), 120)
    during = [answered - due for due, answered, _ in accepted.values() if gone - 1 < due < back + 1]
    return {
        "away_seconds": round(back - gone, 1),
        "rate": options.rate,
        "sent": summary["sent"],
        "statuses": summary["statuses"],
        "errors": summary["errors"],
        "accept_p50_ms": milliseconds(during, 0.5),
        "accept_p99_ms": milliseconds(during, 0.99),
        "accept_worst_ms": milliseconds(during, 1.0),
        "delivered": len(times),
        "all_delivered_after_s": round(max(times.values()) - back, 1),
        "out_of_order": out_of_order(accepted, times),
    }


# --- one target down, one connector flooding ------------------------------------------------------


def fairness(options: argparse.Namespace) -> dict[str, object]:
    """p99 from request to receipt at nine targets: alone, and beside a dead target and a flood."""
    with state_folder() as folder, contextlib.ExitStack() as stack:
        ports = [stack.enter_context(sink(folder)) for _ in range(9)]
        hanging = stack.enter_context(_listens_and_says_nothing())
        http = set_up(folder, [*ports, hanging])
        with daemon(folder):
            quiet = _p99_of_nine(folder, http, ports, options, down=False)
            loud = _p99_of_nine(folder, http, ports, options, down=True)
    return {
        "seconds": options.seconds,
        "quiet_p50_ms": quiet[0],
        "quiet_p99_ms": quiet[1],
        "beside_p50_ms": loud[0],
        "beside_p99_ms": loud[1],
        "p99_ratio": round(loud[1] / quiet[1], 2),
    }


def _p99_of_nine(
    folder: Path, http: int, ports: list[int], options: argparse.Namespace, *, down: bool
) -> tuple[float, float]:
    """``down``: with SMS for the target that is down, and connector 0 sending 50 times its share."""
    share = 5
    numbers = [f"+4912300{n}" for n in range(9)]
    with contextlib.ExitStack() as stack:
        others = []
        if down:
            longer = options.seconds + 2 * STARTING_SECONDS
            dead = ("dead", http, longer, 16, SENDERS, share, "+49123009")
            flood = ("flood", http, longer, 32, SENDERS, share * 50, numbers[0])
            others = [stack.enter_context(load(folder, *arguments)) for arguments in (dead, flood)]
            time.sleep(STARTING_SECONDS)
        # Senders of their own: 500 is a multiple of neither 9 nor its factors.
        nine = ("nine", http, options.seconds, 32, SENDERS, share * 9, ",".join(numbers))
        process = stack.enter_context(load(folder, *nine))
        _, accepted = result(process, folder, "nine")
        for other in others:
            other.communicate(timeout=300)
    seconds = []
    for n, port in enumerate(ports):
        own = {id_: entry for id_, entry in accepted.items() if entry[2] % 9 == n}
        times = received(port, set(own), 120)
        seconds += [times[id_] - own[id_][0] for id_ in own]
    return milliseconds(seconds, 0.5), milliseconds(seconds, 0.99)


@contextlib.contextmanager
def _listens_and_says_nothing() -> Iterator[int]:
    """A target that takes connections and never answers; yields its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        yield int(listening.getsockname()[1])


# --- a mountain for one target that is down -------------------------------------------------------


def mountain(options: argparse.Namespace) -> dict[str, object]:
    """Many SMS for one target that is down all the time; the daemon's memory, and their delivery."""
    with state_folder() as folder:
        port = free_port()
        http = set_up(folder, [port])
        with daemon(folder) as process:
            memory = {0: resident_mebibytes(process.pid)}
            accepted: Accepted = {}
            began = time.monotonic()
            while len(accepted) < options.count:
                with load(folder, "m", http, 5, 64, 200_000, 0, "+49123000") as loading:
                    _, more = result(loading, folder, "m")
                accepted |= more
                memory[len(accepted)] = resident_mebibytes(process.pid)
            filled = time.monotonic() - began
            with sink_at(folder, port):
                began = time.monotonic()
                received(port, set(accepted), 900)
                drained = time.monotonic() - began
                memory[-1] = resident_mebibytes(process.pid)
    return {
        "accepted": len(accepted),
        "accepted_per_second": round(len(accepted) / filled),
        "delivered_per_second": round(len(accepted) / drained),
        "resident_MiB_by_accepted": {str(n): mebibytes for n, mebibytes in memory.items() if n >= 0},
        "resident_MiB_after_delivery": memory[-1],
    }


@contextlib.contextmanager
def sink_at(folder: Path, port: int) -> Iterator[None]:
    """The backend, on a given port."""
    command = [sys.executable, "-m", "tests.bench.sink_process", str(port)]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate(timeout=10)


# --- the command ----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.resilience", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("away", help="PostgreSQL away under load")
    one.add_argument("--seconds", type=float, default=30.0, help="how long it is away")
    one.add_argument("--rate", type=float, default=300.0)
    one.set_defaults(measure=away)
    two = commands.add_parser("fairness", help="one target down among ten, one connector flooding")
    two.add_argument("--seconds", type=float, default=30.0)
    two.set_defaults(measure=fairness)
    three = commands.add_parser("mountain", help="many SMS while their only target is down")
    three.add_argument("--count", type=int, default=200_000)
    three.set_defaults(measure=mountain)
    options = parser.parse_args()
    try:
        sys.stdout.write(json.dumps(options.measure(options), indent=2) + "\n")
    except BenchFailed as error:
        sys.stderr.write(f"resilience: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
