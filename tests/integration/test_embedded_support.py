"""The tests' own PostgreSQL: a database for each, and a server that can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg2

from smsdaemon.store.embedded_processes import processes_in
from tests.support.cases import ReactorTest
from tests.support.embedded_case import accepts, ask, until
from tests.support.postgres import (
    PrivateServer,
    drop_database,
    fresh_database,
    make_database,
    server_dsn,
)

_KILLED_RUN = """
from tests.support.postgres import server_dsn
import sys, time
print(server_dsn(), flush=True)
time.sleep(600)
"""


class DatabaseTests(ReactorTest):
    async def test_each_database_is_empty_and_its_own(self) -> None:
        first, second = await fresh_database(self), await fresh_database(self)
        ask(first, "CREATE TABLE one AS SELECT 1 AS number")
        self.assertEqual(ask(second, "SELECT to_regclass('one')"), [(None,)])
        self.assertEqual(ask(second, "SHOW server_encoding"), [("UTF8",)])

    async def test_a_database_can_be_a_copy_of_another(self) -> None:
        template = await fresh_database(self)
        ask(template, "CREATE TABLE one AS SELECT 1 AS number")
        self.assertEqual(ask(await fresh_database(self, template), "SELECT number FROM one"), [(1,)])

    async def test_a_database_is_dropped_although_somebody_is_connected(self) -> None:
        dsn = make_database()
        connection = psycopg2.connect(dsn)
        self.addCleanup(connection.close)
        drop_database(dsn)
        with self.assertRaises(psycopg2.OperationalError):
            psycopg2.connect(dsn)

    async def test_the_whole_run_shares_one_server(self) -> None:
        self.assertEqual(server_dsn(), server_dsn())


class PrivateServerTests(ReactorTest):
    async def test_it_stays_dead_when_killed_until_it_is_restarted(self) -> None:
        server = PrivateServer(self)
        server.start()
        dsn = server.make_database()
        ask(dsn, "CREATE TABLE one AS SELECT 1 AS number")
        connection = psycopg2.connect(dsn)
        self.addCleanup(connection.close)
        server.kill()
        self.assertFalse(accepts(dsn))
        await server.restart()
        self.assertEqual(ask(dsn, "SELECT number FROM one"), [(1,)])

    async def test_nothing_is_left_of_it(self) -> None:
        server = PrivateServer(self)
        server.start()
        server.remove()
        self.assertFalse(server.folder.exists())

    async def test_a_test_run_that_is_killed_leaves_no_server(self) -> None:
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED_RUN], stdout=subprocess.PIPE, env=environment, text=True
        ) as run:
            assert run.stdout is not None
            dsn = psycopg2.extensions.parse_dsn(run.stdout.readline())
            run.send_signal(signal.SIGKILL)
        cluster = Path(dsn["host"]).parent
        self.addCleanup(shutil.rmtree, cluster.parents[1])
        await until(lambda: not processes_in(cluster / "data"), "the server to end")
