"""Side by side: smsdaemon against what a user would run instead, on one machine, in one run, in turns.

Every round starts each system afresh, loads it with wrk, waits until the sink has everything that was
accepted (or 60 s), and stops it. Told is the median of the rounds for accepted/s, p50 and p99 of the
accept, and end-to-end/s (first request to last delivery), the worst round's lost (accepted or stored and
never delivered) and errors, and the ratios to smsdaemon. Needs wrk and kannel; pip reaches PyPI once for
FastAPI. The method is that of the side-by-side that was written for this project: same load, same sink,
same checks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.bench.machine import busy, machine
from tests.bench.peer_systems import SYSTEMS, Kannel, Place, System, free_port, wait_for_port
from tests.bench.rig import ROOT, VAR, BenchFailed
from tests.bench.rig import main as run_command

WAIT_SECONDS = 60.0
LUA = """
local n = 0
local base = "%s"
request = function()
   n = n + 1
   return wrk.format("GET", (string.gsub(base, "{n}", string.format("%%06d", n %% 5000))))
end
done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format("RESULT %%d %%d %%d %%d %%d ", summary.requests, summary.duration,
            latency:percentile(50), latency:percentile(99), e.status) ..
            (e.connect + e.read + e.write + e.timeout) .. "\\n")
end
"""
Row = dict[str, float]


# --- the sink: answers 200 to everything and counts different messages ------------------------------


@frozen
class Counter:
    """What the sink has, shared with its process."""

    count: Any
    last: Any
    """When the last one came, by time.time()."""


class _Sink(asyncio.Protocol):
    def __init__(self, seen: set[object], told: Counter) -> None:
        self._seen, self._told = seen, told
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, rest = self._buffer.split(b"\r\n\r\n", 1)
            found = re.search(rb"content-length:\s*(\d+)", head, re.IGNORECASE)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            key = re.search(rb"webhook-id:\s*(\S+)", head, re.IGNORECASE)
            key = key or re.search(rb"[?&]id=([^& ]+)", head)
            self._seen.add(key[1] if key else len(self._seen))
            self._told.count.value, self._told.last.value = len(self._seen), time.time()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def _serve(port: int, told: Counter) -> None:
    seen: set[object] = set()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Sink(seen, told), "127.0.0.1", port, backlog=1024
        )
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def _sink() -> Iterator[tuple[int, Counter]]:
    told = Counter(multiprocessing.Value("q", 0), multiprocessing.Value("d", 0.0))
    port = free_port()
    process = multiprocessing.Process(target=_serve, args=(port, told), daemon=True)
    process.start()
    try:
        wait_for_port(port)
        yield port, told
    finally:
        process.terminate()


# --- one measurement ------------------------------------------------------------------------------


@frozen(kw_only=True)
class Terms:
    """The same for every system."""

    project: Path
    workers: int
    connections: int
    seconds: int
    scratch: Path
    keep: bool


def measure(kind: type[System], terms: Terms) -> Row:
    """One round of one system."""
    work = Path(tempfile.mkdtemp(prefix=f"peers-{kind.name}-", dir=terms.scratch))
    work.chmod(0o755)
    cache = terms.scratch / "peers-cache"
    cache.mkdir(exist_ok=True)
    try:
        with _sink() as (sink_port, told):
            system = kind(
                Place(
                    work=work,
                    cache=cache,
                    project=terms.project,
                    workers=terms.workers,
                    sink_port=sink_port,
                )
            )
            try:
                return _loaded(system, system.start(), terms, told)
            finally:
                system.stop()
    finally:
        if not terms.keep:
            shutil.rmtree(work, ignore_errors=True)


def _loaded(system: System, url: str, terms: Terms, told: Counter) -> Row:
    parts = urllib.parse.urlsplit(url)
    script = system.place.work / "load.lua"
    script.write_text(LUA % f"{parts.path}?{parts.query}")
    _warm_up(system, url, told)
    base, started = told.count.value, time.time()
    command = ["wrk", "-t1", f"-c{terms.connections}", f"-d{terms.seconds}s", "-s", str(script)]
    out = subprocess.run(
        [*command, f"http://{parts.netloc}/"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", out)
    if found is None:
        raise BenchFailed(f"wrk says nothing: {out[-500:]}")
    requests, micros, p50, p99, refused, broken = map(int, found.groups())
    accepted = requests - refused
    until = time.monotonic() + WAIT_SECONDS
    while told.count.value - base < accepted and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)  # what was in flight when the load stopped
    delivered, rows = told.count.value - base, system.stored()
    wanted = accepted if rows is None else rows - base
    return {
        "accepted_per_s": accepted / (micros / 1e6),
        "p50_ms": p50 / 1e3,
        "p99_ms": p99 / 1e3,
        "end_to_end_per_s": delivered / max(told.last.value - started, 1e-9),
        "lost": max(wanted - delivered, accepted - delivered, 0),
        "errors": refused + broken,
    }


def _warm_up(system: System, url: str, told: Counter) -> None:
    with urllib.request.urlopen(url.replace("{n}", "000000"), timeout=30) as answer:
        if answer.status not in (200, 202):
            raise BenchFailed(f"{system.name} answered {answer.status}")
    until = time.monotonic() + 30
    while told.count.value < 1 and time.monotonic() < until:
        time.sleep(0.05)


# --- the rounds -----------------------------------------------------------------------------------


def medians(rows: Mapping[str, Sequence[Row]]) -> dict[str, Row]:
    """Of each system; of what is lost or went wrong the worst."""
    return {
        name: {
            key: float(max(values) if key in ("lost", "errors") else statistics.median(values))
            for key in of_system[0]
            for values in [[row[key] for row in of_system]]
        }
        for name, of_system in rows.items()
    }


def table(found: Mapping[str, Row], rounds: int) -> str:
    columns = ("accepted/s", "p50 ms", "p99 ms", "end-to-end/s", "lost", "errors")
    lines = [f"{f'median of {rounds}':14}" + "".join(f"{column:>14}" for column in columns)]
    for name, row in found.items():
        cells = [
            f"{row['accepted_per_s']:.0f}",
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
            f"{row['end_to_end_per_s']:.0f}",
            f"{row['lost']:.0f}",
            f"{row['errors']:.0f}",
        ]
        lines.append(f"{name:14}" + "".join(f"{cell:>14}" for cell in cells))
    ours = found.get("smsdaemon")
    for name, row in found.items():
        if ours is not None and row is not ours:
            accepted, end_to_end = (
                ours[key] / max(row[key], 1e-9) for key in ("accepted_per_s", "end_to_end_per_s")
            )
            lines.append(f"smsdaemon / {name}: accepted x{accepted:.2f}, end-to-end x{end_to_end:.2f}")
    return "\n".join(lines) + "\n"


def missing_packages(only: Sequence[str]) -> list[str]:
    """Debian packages without which the systems cannot be measured."""
    missing = [] if shutil.which("wrk") else ["wrk"]
    if Kannel.name in only and not all(os.access(program, os.X_OK) for program in Kannel.programs):
        missing.append("kannel")
    return missing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--project", type=Path, default=ROOT)
    parser.add_argument("--only", nargs="*", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--output", type=Path, default=VAR / "bench-peers.json")
    options = parser.parse_args()
    return run_command("bench-peers", lambda: _rounds(options))


def _rounds(options: argparse.Namespace) -> None:
    if missing := missing_packages(options.only):
        raise BenchFailed(f"Debian packages are missing: apt-get install {' '.join(missing)}")
    sys.stderr.write(busy())
    terms = Terms(
        project=options.project.resolve(),
        workers=options.workers,
        connections=options.connections,
        seconds=options.seconds,
        scratch=options.scratch,
        keep=options.keep,
    )
    document: dict[str, Any] = {"machine": machine(), "workers": options.workers}
    rows: dict[str, list[Row]] = defaultdict(list)
    for number in range(1, options.rounds + 1):
        for name in options.only:
            row = measure(SYSTEMS[name], terms)
            rows[name].append(row)
            told = ", ".join(f"{key} {value:.1f}" for key, value in row.items())
            sys.stdout.write(f"round {number} {name:10} {told}\n")
            sys.stdout.flush()
    found = medians(rows)
    sys.stdout.write("\n" + table(found, options.rounds))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**document, "medians": found, "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
