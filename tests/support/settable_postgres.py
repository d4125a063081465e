"""A PostgreSQL whose safety can be switched off, unlike that of the embedded one, and its replica."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import extensions
from twisted.trial.unittest import SynchronousTestCase

from smsdaemon.store.embedded_cluster import Server, prepare
from smsdaemon.store.embedded_location import remove
from smsdaemon.store.embedded_privileges import ENVIRONMENT
from smsdaemon.store.embedded_processes import end_processes_in
from tests.support.postgres import _die_with_parent, reachable_folder
from tests.support.processes import until

_SWITCHES = ("fsync=", "full_page_writes=", "synchronous_commit=")


class SettablePostgres:
    """Runs until the test ends; ``ALTER SYSTEM`` and ``set`` take the place of the command line."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self._folder = reachable_folder(test)
        self._server = prepare(self._folder / "state", self._folder / "system")
        test.addCleanup(remove, self._server.location)
        self.dsn = self._server.location.dsn
        self._serve(test, self._server.location.data, self._server.location.sockets)
        until(lambda: _answers(self.dsn), "the settable PostgreSQL")

    def set(self, **settings: str) -> None:
        """Set for the whole server, at once; "" takes a setting back."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'" if value else f"ALTER SYSTEM RESET {name}")
        self.execute("SELECT pg_reload_conf()")
        for name, value in settings.items():
            if value:
                until(lambda n=name, v=value: self.execute(f"SHOW {n}") == [(v,)], f"{name} = {value}")  # type: ignore[misc]

    def execute(self, statement: str, dsn: str | None = None) -> list[tuple[object, ...]]:
        """Run one statement, committed, on a connection of its own; its rows."""
        connection = psycopg2.connect(dsn or self.dsn)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def make_database(self, name: str, encoding: str = "UTF8") -> str:
        """The DSN of a new, empty database of this server."""
        self.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"
        )
        return str(extensions.make_dsn(self.dsn, dbname=name))

    def add_replica(self, test: SynchronousTestCase) -> None:
        """A second server that streams from this one; returns when it is connected."""
        sockets = self._server.location.sockets
        data = sockets / "replica"
        source = extensions.make_dsn(host=str(sockets), user="smsdaemon", application_name="replica")
        done = subprocess.run(
            [self._server.binaries.folder / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d", source],
            capture_output=True,
            **self._as_user(),
        )
        assert done.returncode == 0, done.stderr
        # A socket of its own; nobody asks the replica anything.
        self._serve(test, data, data)
        until(
            lambda: self.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"), "a replica"
        )

    def _serve(self, test: SynchronousTestCase, data: Path, sockets: Path) -> None:
        command = _command(self._server, data, sockets)
        with open(self._folder / "log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user())
        test.addCleanup(process.wait)
        test.addCleanup(end_processes_in, data)

    def _as_user(self) -> dict[str, Any]:
        """Arguments of a process that serves PostgreSQL, and ends with this one."""
        user = self._server.location.user
        other = {"user": user.uid, "group": user.gid, "extra_groups": [user.gid]} if user.another else {}
        ours = {"cwd": "/", "env": ENVIRONMENT, "stdin": subprocess.DEVNULL, "start_new_session": True}
        return {**ours, **other, "preexec_fn": _die_with_parent()}


def _command(server: Server, data: Path, sockets: Path) -> list[str]:
    """The embedded server's, without what must be settable."""
    kept = server.command[:3]
    for option, value in zip(server.command[3::2], server.command[4::2], strict=True):
        if not value.startswith((*_SWITCHES, "unix_socket_directories=")):
            kept += [option, value]
    kept[2] = os.fspath(data)
    return [*kept, "-c", f"unix_socket_directories={sockets}"]


def _answers(dsn: str) -> bool:
    try:
        psycopg2.connect(dsn).close()
    except psycopg2.OperationalError:
        return False
    return True
