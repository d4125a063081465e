"""A real PostgreSQL for tests: one for the whole run with a database for each test, or a private one.

The embedded one of the package, unless ``SMSDAEMON_TEST_DSN`` names a server whose user may create
databases. There is no skipping: where neither can be used, the tests that need it fail.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
from psycopg2 import extensions, sql
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from smsdaemon.store.embedded_cluster import Server, prepare
from smsdaemon.store.embedded_location import remove
from smsdaemon.store.embedded_privileges import ENVIRONMENT, can_enter, stated_cause, system_user
from smsdaemon.store.embedded_processes import accepting_postmaster, end_processes_in, processes_in

# Taken out of the environment: a daemon under test would refuse a variable that it does not know.
_EXTERNAL_DSN = os.environ.pop("SMSDAEMON_TEST_DSN", "")

_PATIENCE_SECONDS = 60.0
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


async def fresh_database(test: SynchronousTestCase, template: str | None = None) -> str:
    """The DSN of a new database that is dropped after the test.

    ``template``: DSN of a database of the same server to copy, which nobody may be connected to.
    """
    dsn = make_database(template)
    test.addCleanup(drop_database, dsn)
    return dsn


def make_database(template: str | None = None) -> str:
    """The DSN of a new database of the run's server; see :func:`fresh_database`."""
    return _make_database(server_dsn(), template)


def drop_database(dsn: str) -> None:
    """Drop the database, whoever is connected to it."""
    name = extensions.parse_dsn(dsn)["dbname"]
    _MADE.discard(dsn)
    _execute(
        _administering(dsn), sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    )


def server_dsn() -> str:
    """The DSN of the server that the whole run shares; starts it when it is first asked for."""
    global _shared
    if _EXTERNAL_DSN:
        return _EXTERNAL_DSN
    if _shared is None:
        shared = PlainServer(reachable_folder())
        atexit.register(shared.remove)
        shared.start()
        _shared = shared
    return _shared.dsn


def reachable_folder(test: SynchronousTestCase | None = None) -> Path:
    """A new folder that the embedded server's user can pass through; removed after ``test``, if given."""
    user = system_user() if os.geteuid() == 0 else None
    parent = tempfile.gettempdir()
    if user is not None and not can_enter(user, Path(parent)):
        parent = "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="smsdaemon-test-", dir=parent))
    if user is not None:
        folder.chmod(0o711)
    if test is not None:
        test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


class PlainServer:
    """An embedded server without supervision, run by blocking calls: it stays dead when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server: Server | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """Of the database ``smsdaemon``; valid once it was started."""
        return self._prepared().location.dsn

    def start(self) -> None:
        """Start the server, making its cluster the first time; returns when it accepts connections."""
        self._server = server = prepare(self.folder / "state", self.folder / "system")
        user = server.location.user
        with open(self.folder / "log", "ab") as log:
            self._process = process = subprocess.Popen(
                server.command,
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user.uid if user.another else None,
                group=user.gid if user.another else None,
                extra_groups=[user.gid] if user.another else None,
                preexec_fn=_die_with_parent(),
            )
        until = time.monotonic() + _PATIENCE_SECONDS
        while accepting_postmaster(server.location.data) != process.pid:
            if process.poll() is not None or time.monotonic() > until:
                said = stated_cause((self.folder / "log").read_text(errors="replace"))
                raise AssertionError(f"the test's PostgreSQL does not start: {said}")
            time.sleep(0.02)

    async def restart(self) -> None:
        """Start it again while the reactor goes on."""
        await deferToThread(self.start)

    def kill(self) -> None:
        """kill -9 of the server with all its processes, as when the machine fails."""
        data = self._prepared().location.data
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        end_processes_in(data)

    def freeze(self) -> None:
        """Stop it where it stands, until thaw(): what is connected stays so, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in processes_in(self._prepared().location.data):
            with contextlib.suppress(ProcessLookupError):  # gone with the one before
                os.kill(pid, number)

    def stop(self) -> None:
        """Stop it cleanly, with whatever is connected; does nothing where it does not run."""
        if self._process is not None and self._process.poll() is None:
            end_processes_in(self._prepared().location.data)
            self._process.wait(_PATIENCE_SECONDS)

    def make_standby(self) -> None:
        """From its next start on it takes nothing, until it is promoted; call it while it is stopped."""
        location = self._prepared().location
        signal_file = location.data / "standby.signal"
        signal_file.touch()
        os.chown(signal_file, location.user.uid, location.user.gid)

    def make_database(self, template: str | None = None) -> str:
        """The DSN of a new database of this server."""
        return _make_database(self.dsn, template)

    def remove(self) -> None:
        """Stop it and delete everything it has."""
        self.stop()
        if self._server is not None:
            end_processes_in(self._server.location.data)
            remove(self._server.location)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _prepared(self) -> Server:
        if self._server is None:
            raise AssertionError("start the server first")
        return self._server


class PrivateServer(PlainServer):
    """A server of one test's own, to be killed and restarted; removed after the test."""

    def __init__(self, test: SynchronousTestCase) -> None:
        super().__init__(reachable_folder())
        test.addCleanup(self.remove)


_shared: PlainServer | None = None
_MADE: set[str] = set()


def _make_database(server: str, template: str | None) -> str:
    name = f"test_{os.getpid()}_{secrets.token_hex(6)}"
    source = extensions.parse_dsn(template)["dbname"] if template else "template0"
    # Half the time of WAL_LOG (0.09 s against 0.17 s).
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY FILE_COPY").format(
        sql.Identifier(name), sql.Identifier(source)
    )
    _execute(_administering(server), statement)
    dsn: str = extensions.make_dsn(server, dbname=name)
    if server == _EXTERNAL_DSN:
        _MADE.add(dsn)
    return dsn


def _administering(dsn: str) -> str:
    """The DSN of a database of the same server that is always there."""
    found: str = extensions.make_dsn(dsn, dbname="postgres")
    return found


def _execute(dsn: str, statement: sql.Composed) -> None:
    connection = psycopg2.connect(dsn)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _die_with_parent() -> Callable[[], object] | None:
    """What makes a child end when this process is killed; None where that would tie it to a mere thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _drop_what_is_left() -> None:
    for dsn in list(_MADE):
        drop_database(dsn)


atexit.register(_drop_what_is_left)
