"""What every measurement stands on: a real daemon, its backend, and a folder for both on this machine.

Nothing outlives the block that made it, whatever way that ends; SIGTERM ends like Ctrl-C (`main`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from smsdaemon.status_file import StatusFile
from smsdaemon.store.embedded_location import locate, remove
from tests.support.postgres import reachable_folder

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
VAR = ROOT / "var"
START_SECONDS = 60.0
COMMAND_SECONDS = 600.0
NUMBER = "+49123123"
"""The connector that is always there."""
CLIENTS = 1000
"""Whose the many connectors are, in turns; each client has a target."""

_IN_MEMORY = {"tmpfs", "ramfs"}
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
number = "{number}"
acd_group = "sink"
"""
_CLIENT = """\
[[client]]
name = "c{n}"
reseller = "bench"
[[acd_group]]
client = "bench/c{n}"
name = "sink"
url = "http://127.0.0.1:{sink}/{n}"
"""
_CONNECTOR = """\
[[connector]]
client = "bench/c{n}"
number = "{number}"
acd_group = "sink"
"""


class BenchFailed(Exception):
    """There are no figures, and why."""


# --- folders, ports and commands ----------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def state_folder() -> Iterator[Path]:
    """A folder for everything, the cluster included; nothing of it is left afterwards.

    On a disk: in memory fsync is free, and no figure would mean anything.
    """
    folder = reachable_folder()
    try:
        if file_system(folder, Path("/proc/mounts").read_text()) in _IN_MEMORY:
            raise BenchFailed(f"{folder.parent} is in memory: set TMPDIR to a folder on a disk")
        yield folder
    finally:
        if (folder / "state").exists():
            remove(locate(folder / "state"))
        shutil.rmtree(folder, ignore_errors=True)


def file_system(folder: Path, mounts: str) -> str:
    """The type of the file system that the folder is on; ``mounts``: as /proc/mounts has them."""
    found, longest = "", -1
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def environment() -> dict[str, str]:
    """This process' own, without settings of another daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SMSDAEMON_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def output(folder: Path, *command: str, seconds: float = COMMAND_SECONDS) -> str:
    """What a command prints; it must succeed, and in time."""
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # not kill: it may have a PostgreSQL to stop
            raise BenchFailed(f"{' '.join(command[:3])} took more than {seconds:g} s") from None
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise BenchFailed(f"{' '.join(command[:3])} failed: {error.strip()}")
    return out


def apply(folder: Path) -> float:
    """Apply the directory; how many seconds that took."""
    began = time.monotonic()
    output(folder, str(BIN / "smsdaemon"), "apply", "--config", "smsdaemon.toml", "directory.toml")
    return time.monotonic() - began


def set_up(folder: Path, sink_port: int, workers: int, connectors: int = 1) -> int:
    """Write settings and directory, the latter to be applied; the port that the daemon will have."""
    http = free_port()
    (folder / "smsdaemon.toml").write_text(_SETTINGS.format(http=http, workers=workers))
    (folder / "directory.toml").write_text(directory(sink_port, connectors))
    return http


def directory(sink_port: int, connectors: int) -> str:
    """``connectors`` of them: NUMBER, and others of many clients, all with targets at one sink."""
    parts = [_DIRECTORY.format(sink=sink_port, number=NUMBER)]
    parts += [_CLIENT.format(n=n, sink=sink_port) for n in range(min(CLIENTS, connectors - 1))]
    parts += [_CONNECTOR.format(n=n % CLIENTS, number=nth_number(n)) for n in range(connectors - 1)]
    return "".join(parts)


def nth_number(n: int) -> str:
    """Of the connectors beside NUMBER, counted from 0."""
    return f"+4930{10_000_000 + n}"


# --- processes ----------------------------------------------------------------------------------


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
    """A twistd of its own, ready; it and its PostgreSQL have ended when the block is left."""
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
                time.sleep(0.02)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def worker_pids(folder: Path, patience: float = 10.0) -> list[int]:
    """Of all workers of the daemon in the folder, when it has told of them; its own where it has none."""
    until = time.monotonic() + patience
    while True:
        told = StatusFile(folder / "state").read()
        workers = [] if told is None else told["workers"]
        if workers and all(worker["ready"] for worker in workers):
            return [int(worker["pid"]) for worker in workers]
        if time.monotonic() > until:
            raise BenchFailed("the daemon does not tell of its workers")
        time.sleep(0.1)


def asked(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode("ascii"))


# --- the command ----------------------------------------------------------------------------------


def main(name: str, measure: Callable[[], None]) -> int:
    """Run a measurement as a command; its exit status. Ctrl-C and SIGTERM leave nothing behind either."""

    def ended(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, ended)
    try:
        measure()
    except BenchFailed as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
