"""A start while PostgreSQL is away: what was in force before still is, and SMS are accepted."""

from __future__ import annotations

import signal
import time
from urllib.parse import urlencode

from tests.support.backend import Backend, backend
from tests.support.daemon import QUICK_RETRIES, Daemon, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Peer
from tests.support.workers import health

NOWHERE = "host=127.0.0.1 port=1 dbname=none"
SOON_SECONDS = 10.0
CONCATENATION_SECONDS = 4


def directory(target: Backend) -> str:
    return reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group")


class StartWithoutPostgresTests(ProcessTest):
    def start_elsewhere(self, running: Daemon, dsn: str) -> None:
        running.environment["SMSDAEMON_DATABASE__DSN"] = dsn
        running.start()

    def accepted(self, running: Daemon, count: int) -> list[str]:
        """The ids of so many SMS, each on a connection of its own."""
        ids = []
        for n in range(count):
            peer = running.peer()
            answer = peer.post_form(receiver=RECEIVER, sender=SENDER, message=f"{TEXT_MARKER} {n}")
            peer.close()
            self.assertEqual(answer.status, 200)
            ids.append(answer.id)
        return ids

    def comes_up_without(self, workers: int) -> None:
        target = backend(self)
        running = daemon(self, directory(target), workers=workers)
        dsn = running.dsn
        copy = running.state_dir / "directory.copy"
        until(copy.exists, "the directory's copy")
        running.stop()
        began = time.monotonic()
        self.start_elsewhere(running, NOWHERE)
        self.assertLess(time.monotonic() - began, SOON_SECONDS)
        ids = self.accepted(running, 10)
        until(lambda: health(running)["parts"]["journal"]["detail"] == "10 SMS wait in it", "its state")
        found = health(running)
        self.assertEqual((found["status"], found["parts"]["database"]["ready"]), ("ready", False))
        until(lambda: "10 SMS wait in it" in running.command("status").out, "the status")
        running.signal(signal.SIGKILL)
        running.status()
        self.start_elsewhere(running, dsn)
        until(lambda: running.ask("SELECT count(*) FROM message") == [(10,)], "the SMS of the journal")
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertEqual([attempt.data["id"] for attempt in target.attempts], ids)

    def test_one_worker_accepts_into_the_journal(self) -> None:
        self.comes_up_without(1)

    def test_several_workers_accept_into_the_journal(self) -> None:
        self.comes_up_without(2)

    def test_without_a_journal_nobody_is_kept_waiting_for_their_500(self) -> None:
        running = Daemon(f"{QUICK_RETRIES}[receiver]\njournal = false\n", dsn=NOWHERE, workers=2)
        self.addCleanup(running.remove)
        running.spawn()
        until(lambda: "_NotOurs starting on" in running.log(), "its ports")
        port = int(running.log().partition("_NotOurs starting on ")[2].split()[0])
        until(lambda: self.status(port) == 500, "an answer")
        self.assertNotIn("smsdaemon ready", running.log())

    def status(self, port: int) -> int:
        peer = Peer(port)
        began = time.monotonic()
        answer = peer.post_form(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER)
        peer.close()
        self.assertLess(time.monotonic() - began, 5)
        return answer.status


class PartsInTheJournalTests(ProcessTest):
    """A part in the journal has come, though PostgreSQL does not know it when it is there again."""

    def test_they_are_joined_with_those_that_came_before_although_their_time_is_over(self) -> None:
        target = backend(self)
        entries = reseller() + client() + acd_group("group", target.url())
        entries += connector(RECEIVER, acd_group="group", provider="vonage", unsigned=True)
        settings = f"{QUICK_RETRIES}[receiver]\nconcatenation_timeout = {CONCATENATION_SECONDS}\n"
        running = daemon(self, entries, settings, workers=2)
        until((running.state_dir / "directory.copy").exists, "the directory's copy")
        began = time.monotonic()
        self.send_part(running, 1)
        dsn = running.dsn
        running.stop()
        self.start_again(running, NOWHERE)
        self.send_part(running, 2)
        running.stop()
        time.sleep(max(0.0, began + CONCATENATION_SECONDS + 0.5 - time.monotonic()))
        self.start_again(running, dsn)
        [attempt] = target.await_attempts(1)
        self.assertEqual(attempt.data["text"], f"{TEXT_MARKER} 1{TEXT_MARKER} 2")
        self.assertNotIn("parts_missing", attempt.data)

    def start_again(self, running: Daemon, dsn: str) -> None:
        running.environment["SMSDAEMON_DATABASE__DSN"] = dsn
        running.start()

    def send_part(self, running: Daemon, number: int) -> None:
        fields = {"to": RECEIVER, "msisdn": SENDER, "text": f"{TEXT_MARKER} {number}"}
        parts = {"concat": "true", "concat-ref": "7", "concat-part": str(number), "concat-total": "2"}
        peer = running.peer()
        answer = peer.ask("GET", f"/SMSReceiver/vonage?{urlencode({**fields, **parts})}")
        peer.close()
        self.assertEqual(answer.status, 200, answer.body)
