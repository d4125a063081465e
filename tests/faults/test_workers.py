"""Workers that die, hang or cannot start, and a supervisor that does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

from tests.support.backend import Attempt, Backend, Reply, backend
from tests.support.daemon import (
    LISTENERS,
    QUICK_RETRIES,
    SHORT_LEASES,
    TWISTD,
    Daemon,
    acd_group,
    client,
    connector,
    daemon,
    reseller,
)
from tests.support.postgres import drop_database, make_database
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import OTHER_SENDER, RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Load
from tests.support.workers import health, metric, open_files, process_is_gone

ORPHANS_SECONDS = 2.0
"""Workers end with their supervisor; they are not asked."""
SHUTDOWN_SECONDS, REST_SECONDS = 3, 3


def directory(target: Backend) -> str:
    return reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group")


class WorkerFaultTests(ProcessTest):
    def nothing_is_lost(self, running: Daemon, target: Backend, load: Load) -> None:
        stored = {id for (id,) in running.ask("SELECT id::text FROM message")}
        self.assertEqual(set(load.accepted) - stored, set())
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertEqual(stored - target.ids(), set())

    def kill_worker(self, running: Daemon, number: int) -> None:
        """And wait for its successor."""
        victim = running.workers()[number - 1]
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: running.workers()[number - 1]["restarts"] > victim["restarts"], "its successor")
        until(lambda: running.workers()[number - 1]["ready"], "that it is ready")

    def test_kill_9_of_workers_under_load_loses_nothing_and_they_are_replaced(self) -> None:
        target = backend(self)
        running = daemon(self, directory(target), SHORT_LEASES, workers=2)
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        for number in (1, 2, 1):
            load.await_more()
            before = metric(running, "smsdaemon_messages_accepted_total")
            self.kill_worker(running, number)
            self.assertGreaterEqual(metric(running, "smsdaemon_messages_accepted_total"), before)
        load.await_more()
        load.stop()
        # Only the connections that the dead had were broken; nobody heard of it otherwise.
        self.assertEqual(set(load.answers), {0, 200})
        self.nothing_is_lost(running, target, load)
        self.assertEqual(metric(running, "smsdaemon_worker_restarts_total"), 3)
        self.assertGreaterEqual(metric(running, "smsdaemon_messages_accepted_total"), len(load.accepted))
        self.assertEqual(running.log().count("killed by SIGKILL; it is started again"), 3)
        self.assertEqual(health(running)["parts"]["workers"]["detail"], "2 of 2 ready")

    def test_kill_9_of_the_supervisor_ends_all_workers_and_a_new_start_works_at_once(self) -> None:
        target = backend(self)
        running = daemon(self, directory(target), SHORT_LEASES, workers=2)
        self.a_second_start_is_refused_at_once(running)
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        load.await_more()
        workers = running.worker_pids()
        # While one of them lives, nobody else starts.
        lock = str(running.state_dir / "daemon.lock")
        self.assertEqual([lock in open_files(pid) for pid in workers], [True, True])
        os.kill(min(workers), signal.SIGSTOP)  # it cannot notice anything by itself
        running.kill()
        running.spawn()
        until(lambda: all(map(process_is_gone, workers)), "the workers' end", ORPHANS_SECONDS)
        running.await_ready()
        self.assertEqual(running.worker_pids() & workers, set())
        load.await_more()
        load.stop()
        self.assertEqual(set(load.answers), {0, 200})
        self.nothing_is_lost(running, target, load)

    def a_second_start_is_refused_at_once(self, running: Daemon) -> None:
        began = time.monotonic()
        second = running.run_to_its_end()
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(second.status, 1)
        [line] = second.err.splitlines()
        self.assertIn(f"another smsdaemon (process {running.pid})", line)
        # Its counters are still there.
        self.assertEqual(metric(running, "smsdaemon_messages_accepted_total"), 0)

    def test_workers_that_cannot_start_make_it_give_up_with_exit_status_1(self) -> None:
        running = Daemon(QUICK_RETRIES, dsn="host=127.0.0.1 port=1 dbname=none", workers=2)
        self.addCleanup(running.remove)
        broken = running.folder / "broken"
        broken.mkdir()
        # As an installation that was damaged under a running daemon.
        (broken / "sitecustomize.py").write_text(
            "import sys\nif 'smsdaemon.worker_process' in sys.orig_argv:\n"
            "    sys.stderr.write('no such thing\\n')\n    sys.stderr.flush()\n"
            "    import os; os._exit(3)\n"
        )
        running.environment["PYTHONPATH"] = str(broken)
        running.spawn()
        self.assertEqual(running.status(), 1)
        [line] = [line for line in running.log().splitlines() if "critical" in line]
        self.assertIn("cannot run: workers died 10 times within 60 s, the last: exit status 3", line)
        self.assertIn("worker 1: no such thing", running.log())
        self.assertNotIn("smsdaemon ready", running.log())

    def test_a_worker_that_hangs_is_told_of_and_the_others_serve(self) -> None:
        target = backend(self)
        running = daemon(self, directory(target), SHORT_LEASES, workers=2)
        [victim, other] = running.workers()
        os.kill(victim["pid"], signal.SIGSTOP)
        try:
            detail = "1 of 2 ready, worker 1 is stalled"
            until(lambda: health(running)["parts"]["workers"]["detail"] == detail, "that it is noticed")
            self.assertEqual(health(running)["status"], "ready")
            self.assertIn(f"worker 1 (process {victim['pid']}) is stalled", running.log())
            until(lambda: running.workers()[0]["stalled"], "the status")
            self.assertRegex(running.command("status").out, r"worker 1 +stalled, process")
            for n in range(20):  # each on a connection of its own: whom would the hanging one have served?
                peer = running.peer()
                answer = peer.post_form(receiver=RECEIVER, sender=SENDER, message=f"{TEXT_MARKER} {n}")
                self.assertEqual(answer.status, 200)
                peer.close()
        finally:
            os.kill(victim["pid"], signal.SIGCONT)
        until(lambda: health(running)["parts"]["workers"]["detail"] == "2 of 2 ready", "that it is back")
        self.assertEqual(running.worker_pids(), {victim["pid"], other["pid"]})
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertIn("worker 1 answers again", running.log())

    def test_a_supervisor_that_hangs_holds_up_no_worker_and_kills_none_when_it_is_back(self) -> None:
        def failing(attempt: Attempt) -> Reply:
            return Reply(500 if attempt.data["text"].endswith("7") else 200)  # each is a line in the log

        running = daemon(self, directory(backend(self, failing)), workers=2)
        workers, port = running.worker_pids(), running.port()
        load = Load(lambda: port, RECEIVER)
        self.addCleanup(load.stop)
        load.await_more()
        running.signal(signal.SIGSTOP)
        try:
            load.await_more(1500)
        finally:
            running.signal(signal.SIGCONT)
        load.stop()
        self.assertEqual(set(load.answers), {200})
        until(lambda: health(running)["parts"]["workers"]["detail"] == "2 of 2 ready", "that it is back")
        self.assertEqual(running.worker_pids(), workers)


class StopTests(ProcessTest):
    def test_sigterm_under_load_to_one_worker_or_to_all_ends_them_in_order_and_nothing_is_lost(self) -> None:
        target = backend(self)
        running = daemon(self, directory(target), workers=2)
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        load.await_more()
        os.kill(running.workers()[0]["pid"], signal.SIGTERM)
        until(lambda: running.workers()[0]["restarts"] == 1, "its successor")
        until(lambda: running.workers()[0]["ready"], "that it is ready")
        load.await_more()
        workers = running.worker_pids()
        self.assertEqual(running.stop(), -signal.SIGTERM)
        self.assertTrue(all(map(process_is_gone, workers)))
        load.stop()
        self.assertEqual(set(load.answers) - {0, 200}, set())
        self.assertNotIn("killed", running.log())
        running.start()
        stored = {id for (id,) in running.ask("SELECT id::text FROM message")}
        self.assertEqual(set(load.accepted) - stored, set())
        until(lambda: running.pending() == 0, "the deliveries")
        # Nothing was killed, so nothing had to be attempted twice.
        self.assertEqual(sorted(attempt.data["id"] for attempt in target.attempts), sorted(stored))

    def test_attempts_in_flight_may_finish_and_what_never_answers_is_given_back_in_time(self) -> None:
        stopping = threading.Event()
        self.addCleanup(stopping.set)

        def slowly(attempt: Attempt) -> Reply:
            if attempt.data["text"].endswith("slow"):
                running_ends.wait(30)
            else:
                stopping.wait()
            return Reply()

        running_ends = threading.Event()
        target = backend(self, slowly)
        settings = "[routing]\nretry_schedule = [0, 0.05]\ntimeout = 30\n"
        listeners = f"shutdown_seconds = {SHUTDOWN_SECONDS}\n{LISTENERS}"
        running = daemon(self, directory(target), settings, workers=2, listeners=listeners)
        peer = running.peer()
        self.addCleanup(peer.close)
        for sender, text in ((SENDER, "slow"), (OTHER_SENDER, "silent")):
            peer.post_form(receiver=RECEIVER, sender=sender, message=f"{TEXT_MARKER} {text}")
        target.await_attempts(2)
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        time.sleep(0.5)
        running_ends.set()
        self.assertEqual(running.status(), -signal.SIGTERM)
        self.assertLess(time.monotonic() - began, SHUTDOWN_SECONDS + REST_SECONDS)
        self.assertEqual(running.ask("SELECT state, attempts FROM ended_delivery"), [("delivered", 1)])
        self.assertEqual(running.ask("SELECT lease FROM delivery"), [(None,)])

    def test_ctrl_c_at_a_terminal_ends_every_process_in_order_and_sighup_none(
        self,
    ) -> None:
        target = backend(self)
        running = InAGroupOfItsOwn.of(self, directory(target))
        workers = running.worker_pids()
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        os.killpg(running.pid, signal.SIGHUP)
        load.await_more()
        self.assertEqual(set(load.answers), {200})
        os.killpg(running.pid, signal.SIGINT)
        self.assertIn(running.status(), (-signal.SIGINT, 0))
        load.stop()
        self.assertTrue(all(map(process_is_gone, workers)))
        self.assertEqual(set(load.answers) - {0, 200}, set())
        self.assertNotIn("restarted", running.log())
        self.assertEqual(len(target.attempts), len(target.ids()))


class InAGroupOfItsOwn(Daemon):
    """As a shell starts it: a signal to the group is one to its children too."""

    @classmethod
    def of(cls, test: ProcessTest, directory: str) -> InAGroupOfItsOwn:
        dsn = make_database()
        test.addCleanup(drop_database, dsn)
        made = cls(dsn=dsn, workers=2)
        test.addCleanup(made.remove)
        made.apply(directory)
        made.start()
        return made

    def spawn(self) -> None:
        self._logs.append(self.folder / f"twistd-{len(self._logs)}.log")
        with open(self._logs[-1], "wb") as log:
            self._process = subprocess.Popen(
                [*TWISTD, "--config", str(self.config)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
