"""What tests of the embedded PostgreSQL share: a folder, owners, and questions to the server."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from smsdaemon.errors import EmbeddedPostgresError
from smsdaemon.store.embedded import EmbeddedPostgres
from smsdaemon.store.embedded_cluster import prepare
from smsdaemon.store.embedded_location import Location, locate
from smsdaemon.store.embedded_processes import end_processes_in
from tests.support.cases import ReactorTest
from tests.support.postgres import reachable_folder


async def until(condition: Callable[[], object], what: str, patience: float = 30.0) -> None:
    """Wait for a condition, not for a time."""
    end = reactor.seconds() + patience
    while not condition():
        if reactor.seconds() > end:
            raise AssertionError(f"waited in vain: {what}")
        await deferLater(reactor, 0.02)


def ask(dsn: str, statement: str) -> list[tuple[object, ...]]:
    """The rows of a statement, committed, on a connection of its own."""
    connection = psycopg2.connect(dsn, connect_timeout=10)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def accepts(dsn: str) -> bool:
    try:
        ask(dsn, "SELECT 1")
    except psycopg2.OperationalError:
        return False
    return True


class OwnerProcess(ProcessProtocol):
    """A run of tests.support.embedded_owner; ``said`` is what it printed."""

    def __init__(self, test: TestCase, *arguments: str) -> None:
        self.said = ""
        self.ended: Deferred[None] = Deferred()
        words = [sys.executable, "-m", "tests.support.embedded_owner", *arguments]
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
        reactor.spawnProcess(self, sys.executable, words, env=environment, path=root)
        test.addCleanup(self.kill)

    def errReceived(self, data: bytes) -> None:
        self.said += data.decode()

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)

    def kill(self) -> Deferred[None]:
        assert self.transport is not None
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        return self.ended

    def let_it_stop(self) -> None:
        assert self.transport is not None
        self.transport.write(b"\n")

    def dsn(self) -> str:
        [line] = [line for line in self.said.splitlines() if line.startswith("accepting ")]
        return line.removeprefix("accepting ")


class EmbeddedCase(ReactorTest):
    """Has a folder that the server's user can reach, and ends whatever a test leaves there."""

    def setUp(self) -> None:
        self.folder = reachable_folder(self)
        self.state_dir = self.folder / "state"
        self.system_dir = self.folder / "system"

    def seed(self) -> None:
        """Put a cluster into the state folder that was stopped before, faster than a first start."""
        subprocess.run(["cp", "-a", _seed_cluster(), self.location().cluster], check=True)

    def embedded(self, state_dir: Path | None = None) -> EmbeddedPostgres:
        made = EmbeddedPostgres(
            state_dir=state_dir or self.state_dir, system_dir=self.system_dir, reactor=reactor
        )
        self.addCleanup(made.stop)
        return made

    def failing(self, starting: Deferred[None]) -> Deferred[EmbeddedPostgresError]:
        failed: Any = self.assertFailure(starting, EmbeddedPostgresError)
        return failed  # type: ignore[no-any-return]

    def owner_process(self, *more: str) -> OwnerProcess:
        self.addCleanup(self.end_everything)
        return OwnerProcess(self, str(self.state_dir), str(self.system_dir), *more)

    def end_everything(self) -> None:
        end_processes_in(self.data())
        end_processes_in(self.location().unfinished)
        end_processes_in(self.location().unfinished / "data")

    def location(self) -> Location:
        return locate(self.state_dir, self.system_dir)

    def data(self) -> Path:
        return self.location().data


@cache
def _seed_cluster() -> Path:
    folder = reachable_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return prepare(folder / "state", folder / "system").location.cluster
