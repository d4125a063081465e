"""SIGTERM and SIGHUP: an ordered end, in time and by the signal, and none at all."""

from __future__ import annotations

import signal
import threading
import time

from tests.support.backend import Attempt, Backend, Reply, backend
from tests.support.daemon import (
    LISTENERS,
    QUICK_RETRIES,
    Daemon,
    acd_group,
    client,
    connector,
    daemon,
    embedded_daemon,
    reseller,
)
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, Load

SHUTDOWN_SECONDS = 3
REST_SECONDS = 3
"""For what is not bounded by shutdown_seconds: PostgreSQL's checkpoint, a slow machine."""


def directory(target: Backend) -> str:
    return reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group")


class StopTests(ProcessTest):
    def send(self, running: Daemon) -> Answer:
        peer = running.peer()
        self.addCleanup(peer.close)
        return peer.post_form(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER)

    def test_sigterm_under_load_ends_it_by_the_signal_and_nothing_is_lost(self) -> None:
        target = backend(self)
        running = embedded_daemon(self, directory(target))
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        load.await_more()
        self.assertEqual(running.stop(), -signal.SIGTERM)
        self.assertEqual(running.postgres_processes(), set())
        load.stop()
        self.assertEqual(set(load.answers) - {0, 200}, set())
        running.start()
        stored = {id for (id,) in running.ask("SELECT id::text FROM message")}
        self.assertEqual(set(load.accepted) - stored, set())
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertEqual(stored - target.ids(), set())
        # Nothing was killed, so nothing had to be attempted twice.
        self.assertEqual(len(target.attempts), len(stored))

    def test_attempts_in_flight_may_finish(self) -> None:
        stopping = threading.Event()
        self.addCleanup(stopping.set)

        def slowly(_: Attempt) -> Reply:
            stopping.wait()
            return Reply()

        target = backend(self, slowly)
        running = daemon(self, directory(target))
        sent = self.send(running)
        target.await_attempts(1)
        running.signal(signal.SIGTERM)
        until(lambda: not self.listens(running), "that it accepts no more")
        self.assertFalse(running.ended())
        stopping.set()
        self.assertEqual(running.status(), -signal.SIGTERM)
        self.assertEqual(
            running.ask("SELECT message_id::text, state, attempts FROM ended_delivery"),
            [(sent.id, "delivered", 1)],
        )

    def listens(self, running: Daemon) -> bool:
        peer = running.peer()
        try:
            peer.ask("GET", "/health/ready")
        except OSError:
            return False
        finally:
            peer.close()
        return True

    def test_a_target_that_never_answers_holds_it_up_no_longer_than_shutdown_seconds(self) -> None:
        ended = threading.Event()
        self.addCleanup(ended.set)

        def silently(_: Attempt) -> Reply:
            ended.wait()
            return Reply()

        target = backend(self, silently)
        running = daemon(
            self,
            directory(target),
            "[routing]\nretry_schedule = [0, 0.05]\ntimeout = 30\n",
            listeners=f"shutdown_seconds = {SHUTDOWN_SECONDS}\n{LISTENERS}",
        )
        sent = self.send(running)
        target.await_attempts(1)
        began = time.monotonic()
        self.assertEqual(running.stop(), -signal.SIGTERM)
        self.assertLess(time.monotonic() - began, SHUTDOWN_SECONDS + REST_SECONDS)
        # Given back, not left to its lease: the next start attempts it at once.
        self.assertEqual(running.ask("SELECT message_id::text, lease FROM delivery"), [(sent.id, None)])
        ended.set()
        running.start()
        until(lambda: running.pending() == 0, "the delivery")

    def test_sigterm_while_postgres_is_away_ends_it_in_time(self) -> None:
        target = backend(self)
        running = Daemon(QUICK_RETRIES, dsn="host=127.0.0.1 port=1 dbname=none")
        self.addCleanup(running.remove)
        running.spawn()
        until(lambda: "PostgreSQL is not reachable" in running.log(), "that it says so")
        began = time.monotonic()
        self.assertEqual(running.stop(), -signal.SIGTERM)
        self.assertLess(time.monotonic() - began, REST_SECONDS)
        self.assertEqual(target.attempts, [])

    def test_sigterm_while_it_starts_leaves_no_postgres_behind(self) -> None:
        running = Daemon()
        self.addCleanup(running.remove)
        running.spawn()
        until(lambda: (running.state_dir / "postgresql.lock").exists(), "the begin of its start")
        self.assertIn(running.stop(), (-signal.SIGTERM, 0))
        self.assertEqual(running.postgres_processes(), set())

    def test_sighup_changes_nothing(self) -> None:
        target = backend(self)
        running = daemon(self, directory(target))
        for _ in range(3):
            running.signal(signal.SIGHUP)
            self.assertEqual(self.send(running).status, 200)
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertFalse(running.ended())

    def test_ctrl_c_ends_it_as_cleanly(self) -> None:
        running = embedded_daemon(self)
        running.signal(signal.SIGINT)
        self.assertIn(running.status(), (-signal.SIGINT, 0))
        self.assertEqual(running.postgres_processes(), set())
