"""Daemons as processes: a real twistd on real ports, with a database of its own, to be hurt at will."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import re
import shutil
import signal
import ssl
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg2
from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from smsdaemon.status_file import StatusFile
from smsdaemon.store.embedded_location import Location, locate, remove
from smsdaemon.store.embedded_processes import end_processes_in, processes_in
from tests.support.postgres import drop_database, make_database, reachable_folder
from tests.support.processes import PATIENCE_SECONDS, until
from tests.support.secrets_in_tests import keep
from tests.support.sms_peers import Peer

BINARIES = Path(sys.executable).parent
LISTENERS = """\
[http]
listen = ["tcp:0:interface=127.0.0.1"]
[https]
listen = ["tcp:0:interface=127.0.0.1"]
[admin]
listen = ["tcp:0:interface=127.0.0.1"]
"""
QUICK_RETRIES = "[routing]\nretry_schedule = [0, 0.05, 0.1]\n"
SHORT_LEASES = f"{QUICK_RETRIES}timeout = 2\nlease = 4\n"
"""For tests that take from a daemon what it had claimed: the rest of a lease is waiting time."""
EMBEDDED = ""
"""In place of a DSN: the daemon runs a PostgreSQL of its own, as in production by default."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_sentinels = itertools.count()


@frozen
class Ended:
    """A process that ran to its end."""

    status: int
    out: str
    err: str


class Daemon:
    """One smsdaemon with its state folder, through as many starts and ends as a test wants."""

    def __init__(
        self,
        settings: str = QUICK_RETRIES,
        *,
        dsn: str = EMBEDDED,
        listeners: str = LISTENERS,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``settings``: TOML tables besides those of the listeners; ``environment``: on top of ours."""
        self.folder = reachable_folder()
        self.state_dir = self.folder / "state"
        self.config = self.folder / "smsdaemon.toml"
        self.config.write_text(f'state_dir = "state"\nworkers = {workers}\n{listeners}{settings}')
        self._dsn = dsn
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SMSDAEMON_")}
        # By the environment, as it may hold a password.
        given = {"SMSDAEMON_DATABASE__DSN": dsn} if dsn else {}
        self.environment = {**ours, **given, **(environment or {})}
        self._logs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None

    # --- its life -----------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start the process; it may refuse."""
        self._logs.append(self.folder / f"twistd-{len(self._logs)}.log")
        with open(self._logs[-1], "wb") as log:
            self._process = subprocess.Popen(
                [*TWISTD, "--config", str(self.config)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
            )

    def start(self) -> None:
        """Start it and wait for its ready line."""
        self.spawn()
        self.await_ready()

    def await_ready(self) -> None:
        until(lambda: self._urls() or self.ended(), "the ready line")
        if not self._urls():
            raise AssertionError(f"the daemon ended with {self.status()}: {self.log()[-2000:]}")

    def run_to_its_end(self, *options: str) -> Ended:
        """Run another process, one that is to refuse; how it ended and what it said."""
        done = subprocess.run(
            [*TWISTD, "--config", str(self.config), *options],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )
        keep("twistd", done.stdout + done.stderr)
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[dict[str, Any]]:
        """How they are, by number, as the daemon told within the last second."""
        told = StatusFile(self.state_dir).read()
        return [] if told is None else list(told["workers"])

    def worker_pids(self) -> set[int]:
        """Of all that live, and of the daemon itself where it has none."""
        return {int(worker["pid"]) for worker in self.workers() if worker["pid"] is not None}

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def status(self) -> int:
        """Wait for its end; minus the number of the signal it ended by, or its exit status."""
        assert self._process is not None
        return self._process.wait(PATIENCE_SECONDS)

    def stop(self) -> int:
        """Ask it to end, as systemd would; how it ended."""
        self.signal(signal.SIGTERM)
        return self.status()

    def kill(self) -> None:
        """kill -9: it gets no chance to tidy up."""
        self.signal(signal.SIGKILL)
        self.status()

    def remove(self) -> None:
        """End whatever is left of it and delete its files; what it printed is kept for the search."""
        if not self.ended():
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._process is not None
                self._process.wait(30)
            if not self.ended():
                self.kill()
        printed = "".join(log.read_text(errors="replace") for log in self._logs)
        keep("twistd", printed.encode())
        if self.is_embedded and self.state_dir.exists():
            end_processes_in(self.location.data)
            remove(self.location)
        shutil.rmtree(self.folder, ignore_errors=True)
        # Nothing that tests do to a daemon may look like a bug in its log.
        assert "Traceback" not in printed, f"a traceback was logged: {printed[-4000:]}"

    # --- where it listens, what it says -----------------------------------------------------------

    def _urls(self) -> dict[str, str]:
        ready = [line for line in self.log().splitlines() if line.startswith("smsdaemon ready: ")]
        if not ready:
            return {}
        http, https, admin = ready[0].removeprefix("smsdaemon ready: ").split()
        return {"http": http, "https": https, "admin": admin}

    def url(self, listener: str = "http") -> str:
        """Of its ready line, for ``http``, ``https`` or ``admin``; ConnectionError before it is ready."""
        try:
            return self._urls()[listener]
        except KeyError:
            raise ConnectionError("the daemon is not ready yet") from None

    def port(self, listener: str = "http") -> int:
        found = re.search(r":(\d+)/", self.url(listener))
        assert found is not None
        return int(found[1])

    def log(self) -> str:
        """What the last start printed so far."""
        return self._logs[-1].read_text(errors="replace") if self._logs else ""

    def peer(self) -> Peer:
        """A provider that calls it by HTTP."""
        return Peer(self.port())

    def tls_peer(self) -> Peer:
        """One that calls it by HTTPS and verifies its (self-signed) certificate."""
        [certificate] = [
            path for path in (self.state_dir / "tls").iterdir() if b"BEGIN CERT" in path.read_bytes()
        ]
        return Peer(self.port("https"), ssl.create_default_context(cafile=str(certificate)))

    # --- its directory and database -----------------------------------------------------------------

    def command(self, *arguments: str) -> Ended:
        """Run the admin command on its configuration."""
        name, *rest = arguments
        done = subprocess.run(
            [BINARIES / "smsdaemon", name, "--config", str(self.config), *rest],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
        )
        # What `messages` prints is meant to be seen, so only its complaints are searched.
        keep("smsdaemon", done.stderr)
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def apply(self, directory: str, *options: str) -> None:
        """Apply a directory, and wait until a running daemon has it in force."""
        number = f"99{os.getpid()}{next(_sentinels):04d}"
        path = self.folder / "directory.toml"
        path.write_text(f"{directory}{_sentinel(number)}")
        done = self.command("apply", *options, str(path))
        assert done.status == 0, done.err
        if not self.ended():
            peer = self.peer()
            until(lambda: peer.get(receiver=number, sender="1", message="").status == 502, "the directory")
            peer.close()

    @property
    def is_embedded(self) -> bool:
        return not self._dsn

    @property
    def location(self) -> Location:
        """Of the embedded PostgreSQL's cluster."""
        return locate(self.state_dir)

    @property
    def dsn(self) -> str:
        return self._dsn or self.location.dsn

    def postgres_processes(self) -> set[int]:
        """Of the embedded PostgreSQL."""
        return processes_in(self.location.data)

    def ask(self, statement: str, parameters: object = None) -> list[tuple[Any, ...]]:
        """The rows of a statement, straight from its database."""
        return ask(self.dsn, statement, parameters)

    def pending(self) -> int:
        """How many deliveries have not ended, with SMS that a busy machine has put into the journal."""
        in_journal = 0
        with contextlib.suppress(FileNotFoundError):
            in_journal = struct.unpack_from("=q", (self.state_dir / "journal" / "pending").read_bytes())[0]
        # In this order: what is moved meanwhile is counted twice, and not missed.
        [(count,)] = self.ask("SELECT count(*) FROM delivery")
        return int(count) + in_journal


TWISTD = (str(BINARIES / "twistd"), "--nodaemon", "--pidfile=", "smsdaemon")


def ask(dsn: str, statement: str, parameters: object = None) -> list[tuple[Any, ...]]:
    """The rows of a statement, committed, on a connection of its own."""
    connection = psycopg2.connect(dsn, connect_timeout=10)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


# --- for tests ------------------------------------------------------------------------------------


def daemon(
    test: SynchronousTestCase, directory: str = "", settings: str = QUICK_RETRIES, **more: Any
) -> Daemon:
    """A running daemon of this test's own, on a database of the run's shared server."""
    dsn = make_database()
    test.addCleanup(drop_database, dsn)
    made = Daemon(settings, dsn=dsn, **more)
    test.addCleanup(made.remove)
    if directory:
        made.apply(directory)
    made.start()
    return made


def embedded_daemon(
    test: SynchronousTestCase, directory: str = "", settings: str = QUICK_RETRIES, **more: Any
) -> Daemon:
    """A running daemon of this test's own, with its embedded PostgreSQL."""
    made = Daemon(settings, **more)
    test.addCleanup(made.remove)
    made.start()
    if directory:
        made.apply(directory)
    return made


_shared: dict[int, Daemon] = {}


def shared_daemon(workers: int = 1) -> Daemon:
    """One for all tests that only send to it, each with a client and numbers of its own.

    trial knows no fixtures of classes or modules, so this one lives until the run's end.
    """
    if workers not in _shared:
        dsn = make_database()
        folder = os.getcwd()

        def end() -> None:
            os.chdir(folder)  # where the search after the run looks for what was printed
            made.remove()
            drop_database(dsn)

        made = Daemon(dsn=dsn, workers=workers)
        atexit.register(end)
        made.start()
        _shared[workers] = made
    return _shared[workers]


# --- directories ------------------------------------------------------------------------------------


def client(name: str = "shop", reseller: str = "acme", *, enabled: bool = True) -> str:
    """Entries of a directory file for a client and its reseller."""
    return _entry("client", name=name, reseller=reseller, enabled=enabled)


def reseller(name: str = "acme", *, enabled: bool = True) -> str:
    return _entry("reseller", name=name, enabled=enabled)


def acd_group(name: str, url: str, client: str = "acme/shop", **keys: object) -> str:
    return _entry("acd_group", client=client, name=name, url=url, **keys)


def application(name: str, url: str, client: str = "acme/shop", **keys: object) -> str:
    return _entry("application", client=client, name=name, url=url, **keys)


def connector(number: str, client: str = "acme/shop", **keys: object) -> str:
    return _entry("connector", number=number, client=client, **keys)


def _sentinel(number: str) -> str:
    """A connector without target: 404 before it is known and 502 afterwards, and never stored."""
    return reseller("harness") + client("sentinels", "harness") + connector(number, "harness/sentinels")


def _entry(table: str, **keys: object) -> str:
    return f"[[{table}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in keys.items())


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    assert isinstance(value, str)
    assert not set(value) & set('"\\')
    return f'"{value}"'
