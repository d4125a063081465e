"""PostgreSQL is killed, stopped or frozen: who heard 200 loses nothing, and all mends by itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from functools import partial

import psycopg2

from tests.support.backend import Attempt, Backend, Reply, backend
from tests.support.daemon import (
    QUICK_RETRIES,
    SHORT_LEASES,
    Daemon,
    acd_group,
    client,
    connector,
    embedded_daemon,
    reseller,
)
from tests.support.postgres import PrivateServer
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, Load
from tests.support.workers import metric

ANSWER_SECONDS = 5.0
"""Contract 3: so long at most until a 500."""


def directory(target: Backend) -> str:
    return reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group")


def kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


class PostgresFaultTest(ProcessTest):
    def nothing_is_lost(self, running: Daemon, target: Backend, load: Load) -> None:
        """Every SMS that got 200 is stored, and delivered."""
        until(lambda: not set(load.accepted) - self.stored(running), "all SMS, also those of the journal")
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertEqual(set(load.accepted) - target.ids(), set())
        self.assertEqual(running.ask("SELECT count(*) FROM ended_delivery WHERE state = 'dead'"), [(0,)])

    def stored(self, running: Daemon) -> set[str]:
        """The ids of all SMS in PostgreSQL, as far as it answers."""
        try:
            return {id for (id,) in running.ask("SELECT id::text FROM message")}
        except psycopg2.OperationalError:
            return set()


class EmbeddedPostgresKilledTests(PostgresFaultTest):
    def test_every_sms_that_got_200_survives_kill_9_of_postgres_under_load(self) -> None:
        target = backend(self)
        running = embedded_daemon(self, directory(target), SHORT_LEASES)
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        for _ in range(3):
            load.await_more()
            before = running.postgres_processes()
            kill(before, signal.SIGKILL)
            until(partial(self.ended, running, before), "their end")
            load.await_more()
        load.stop()
        self.assertEqual(set(load.answers), {200})
        self.assertFalse(running.ended())
        self.nothing_is_lost(running, target, load)

    def ended(self, running: Daemon, processes: set[int]) -> bool:
        return not processes & running.postgres_processes()

    def test_a_server_process_that_crashes_alone_makes_nothing_lost(self) -> None:
        target = backend(self)
        running = embedded_daemon(self, directory(target), SHORT_LEASES)
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        load.await_more()
        backends = running.ask(
            "SELECT pid FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        kill([pid for (pid,) in backends], signal.SIGKILL)
        load.await_more()
        load.stop()
        self.nothing_is_lost(running, target, load)


class ExternalPostgresCase(PostgresFaultTest):
    """A server that nobody but its administrator starts again."""

    settings = f"{QUICK_RETRIES}[receiver]\njournal = false\n"

    def setUp(self) -> None:
        super().setUp()
        self.server = PrivateServer(self)
        self.server.start()
        self.target = backend(self)
        self.running = Daemon(self.settings, dsn=self.server.dsn)
        self.addCleanup(self.running.remove)
        self.running.apply(directory(self.target))
        self.running.start()
        self.peer = self.running.peer()
        self.addCleanup(self.peer.close)

    def send(self) -> Answer:
        return self.peer.post_form(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER)

    def refused_in_time(self) -> None:
        began = time.monotonic()
        answer = self.send()
        took = time.monotonic() - began
        self.assertEqual(answer.status, 500)
        self.assertLessEqual(took, ANSWER_SECONDS)
        self.assertGreaterEqual(int(answer.headers["retry-after"]), 1)
        self.assertEqual(len(answer.body.decode().splitlines()), 1)

    def recovers(self) -> None:
        until(lambda: self.send().status == 200, "a 200 again")
        until(lambda: self.running.pending() == 0, "the deliveries")


class ExternalPostgresAwayTests(ExternalPostgresCase):
    """Without a journal, so that it shows whether PostgreSQL is there."""

    def test_500_while_it_is_down_and_recovery_by_itself(self) -> None:
        first = self.send()
        self.assertEqual(first.status, 200)
        self.server.kill()
        for _ in range(3):
            self.refused_in_time()
        self.server.start()
        self.recovers()
        self.assertIn(first.id, self.target.ids())

    def test_500_while_it_hangs_and_recovery_by_itself(self) -> None:
        self.assertEqual(self.send().status, 200)
        self.addCleanup(self.server.thaw)
        self.server.freeze()
        self.refused_in_time()
        self.server.thaw()
        self.recovers()

    def test_outcomes_that_could_not_be_recorded_are_recorded_later(self) -> None:
        """PostgreSQL goes while attempts are under way: they are not repeated when it is back in time."""
        killed = threading.Event()
        self.addCleanup(killed.set)

        def when_killed(_: Attempt) -> Reply:
            killed.wait()
            return Reply()

        self.target.answer = when_killed
        sent = self.send()
        self.target.await_attempts(1)
        self.server.kill()
        killed.set()
        self.refused_in_time()
        self.server.start()
        self.recovers()
        self.assertEqual(len([a for a in self.target.attempts if a.data["id"] == sent.id]), 1)

    def test_a_daemon_that_starts_before_its_server_waits_for_it(self) -> None:
        self.running.stop()
        self.server.kill()
        self.running.spawn()
        until(lambda: "PostgreSQL is not reachable" in self.running.log(), "that it says so")
        self.assertNotIn("smsdaemon ready", self.running.log())
        self.server.start()
        self.running.await_ready()
        self.peer = self.running.peer()
        self.assertEqual(self.send().status, 200)


class ExternalPostgresRestartedTests(ExternalPostgresCase):
    """As above, with leases that end soon: an answer that was lost may have been one to a claim."""

    settings = SHORT_LEASES

    def test_a_restart_of_the_server_under_load_loses_nothing(self) -> None:
        load = Load(self.running.port, RECEIVER)
        self.addCleanup(load.stop)
        load.await_more()
        self.server.stop()
        self.server.start()
        load.await_more()
        self.server.kill()
        self.server.start()
        load.await_more()
        load.stop()
        self.assertEqual(set(load.answers), {200})
        self.nothing_is_lost(self.running, self.target, load)

    def test_while_it_is_away_gauges_tell_what_waits_in_the_journal(self) -> None:
        self.server.kill()
        for count in (1, 2, 3):
            self.assertEqual(self.send().status, 200)
            until(partial(self.counted, count), "that the gauge says so")
        self.server.start()
        until(partial(self.counted, 0), "that the journal is empty")

    def counted(self, count: int) -> bool:
        return metric(self.running, "smsdaemon_journal_messages") == count
