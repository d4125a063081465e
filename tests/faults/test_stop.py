"""SIGTERM and SIGHUP: an ordered end, in time and by the signal, and none at all."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

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
from tests.support.postgres import PrivateServer
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, Load

SHUTDOWN_SECONDS = 3
REST_SECONDS = 3
"""For what is not bounded by shutdown_seconds: PostgreSQL's checkpoint, a slow machine."""
UNANSWERED_SECONDS = 3
"""For a last word of a PostgreSQL that says none."""
SHORT_SHUTDOWN = f"shutdown_seconds = {SHUTDOWN_SECONDS}\n{LISTENERS}"


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
            listeners=SHORT_SHUTDOWN,
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


class PostgresGoneTests(ProcessTest):
    """SIGTERM while PostgreSQL is away, or frozen, after it was there."""

    def setUp(self) -> None:
        super().setUp()
        self.answering = threading.Event()
        self.addCleanup(self.answering.set)
        self.target = backend(self, self.when_answering)

    def when_answering(self, _: Attempt) -> Reply:
        self.answering.wait()
        return Reply()

    def start(self, settings: str = "[routing]\ntimeout = 30\n", workers: int = 1) -> None:
        self.sent: list[Answer] = []
        self.server = PrivateServer(self)
        self.server.start()
        self.running = Daemon(settings, dsn=self.server.dsn, listeners=SHORT_SHUTDOWN, workers=workers)
        self.addCleanup(self.running.remove)
        self.running.apply(directory(self.target))
        self.running.start()

    def send(self, status: int = 200) -> None:
        peer = self.running.peer()
        self.addCleanup(peer.close)
        answer = peer.post_form(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER)
        self.assertEqual(answer.status, status)
        self.sent.append(answer)

    def sweeps(self) -> None:
        """The daemon has looked for what is due, and after it what has to be done, in vain."""
        path = self.running.state_dir / "status.json"
        told = {path.stat().st_mtime_ns}

        def told_again() -> bool:
            told.add(path.stat().st_mtime_ns)
            return len(told) > 3

        until(told_again, "that it tells how it is, every second")

    def stops_in_time(self) -> None:
        began = time.monotonic()
        self.assertEqual(self.running.stop(), -signal.SIGTERM)
        self.assertLess(time.monotonic() - began, SHUTDOWN_SECONDS + REST_SECONDS + UNANSWERED_SECONDS)
        self.assertNotIn("is killed", self.running.log())

    def nothing_is_lost(self) -> None:
        """Each SMS that got 200 is stored and either delivered or pending, whoever has its lease."""
        accepted = {answer.id for answer in self.sent if answer.status == 200}
        until(lambda: not accepted - self.ids("message", "id"), "all SMS, those of the journal too")
        pending = self.ids("delivery", "message_id")  # first: what ends meanwhile is found twice
        ended = self.ids("ended_delivery WHERE state = 'delivered'", "message_id")
        self.assertEqual(accepted - pending - ended, set())

    def ids(self, table: str, column: str) -> set[str]:
        return {id for (id,) in self.running.ask(f"SELECT {column}::text FROM {table}")}

    def test_away_after_it_was_there_with_nothing_under_way(self) -> None:
        for workers in (1, 2):
            self.start(workers=workers)
            self.answering.set()
            self.send()
            until(lambda: self.running.pending() == 0, "the delivery")
            self.server.kill()
            self.send()
            self.sweeps()
            self.stops_in_time()
            self.server.start()
            self.running.start()
            self.nothing_is_lost()
            until(lambda: self.running.pending() == 0, "the delivery of what was journaled")
            self.running.stop()

    def test_away_and_an_attempt_has_to_be_cut_off(self) -> None:
        self.start()
        self.send()
        self.target.await_attempts(1)
        self.server.kill()
        self.send()
        self.stops_in_time()
        self.server.start()
        self.running.start()
        self.nothing_is_lost()

    def test_away_and_an_outcome_is_not_recorded(self) -> None:
        self.start()
        self.send()
        self.target.await_attempts(1)
        self.server.kill()
        self.answering.set()
        self.sweeps()
        self.stops_in_time()
        self.server.start()
        self.running.start()
        self.nothing_is_lost()

    def test_frozen_with_a_claim_an_attempt_and_acceptances_under_way(self) -> None:
        self.start()
        self.send()
        self.target.await_attempts(1)
        self.addCleanup(self.server.thaw)
        self.server.freeze()
        self.send()
        self.sweeps()
        self.stops_in_time()
        self.server.thaw()
        self.running.start()
        self.nothing_is_lost()

    def test_frozen_without_a_journal(self) -> None:
        self.start("[receiver]\njournal = false\n")
        self.answering.set()
        self.send()
        self.addCleanup(self.server.thaw)
        self.server.freeze()
        self.send(500)
        self.stops_in_time()
        self.server.thaw()
        self.running.start()
        self.nothing_is_lost()

    def test_frozen_below_a_supervisor_it_is_asked_to_end(self) -> None:
        self.sent = []
        self.running = embedded_daemon(
            self,
            directory(self.target),
            # So that the supervisor looks for overdue parts every second.
            "[receiver]\nconcatenation_timeout = 4\n",
            listeners=SHORT_SHUTDOWN,
            workers=2,
        )
        self.send()
        processes = self.running.postgres_processes()
        self.addCleanup(signal_all, processes, signal.SIGCONT)
        signal_all(processes, signal.SIGSTOP)
        self.sweeps()
        self.running.signal(signal.SIGTERM)
        patience = SHUTDOWN_SECONDS + REST_SECONDS + UNANSWERED_SECONDS
        until(lambda: any(map(is_to_end, processes)), "its request to PostgreSQL", patience)
        signal_all(processes, signal.SIGCONT)
        self.assertEqual(self.running.status(), -signal.SIGTERM)
        self.assertEqual(self.running.postgres_processes(), set())


def signal_all(processes: set[int], number: signal.Signals) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def is_to_end(pid: int) -> bool:
    """Whether SIGINT, PostgreSQL's fast shutdown, waits for a process that is frozen."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(pending >> (signal.SIGINT - 1) & 1)
