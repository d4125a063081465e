"""kill -9 of the daemon: every 200 is stored, and delivered at least once, in order."""

from __future__ import annotations

from tests.support.backend import Attempt, Backend, Reply, backend
from tests.support.daemon import (
    SHORT_LEASES,
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
from tests.support.sms_peers import Load


def directory(target: Backend) -> str:
    return reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group")


class DaemonKilledTests(ProcessTest):
    def nothing_is_lost(self, running: Daemon, target: Backend, load: Load) -> None:
        stored = {id for (id,) in running.ask("SELECT id::text FROM message")}
        self.assertEqual(set(load.accepted) - stored, set())
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertEqual(stored - target.ids(), set())
        self.assertEqual(running.ask("SELECT count(*) FROM ended_delivery WHERE state = 'dead'"), [(0,)])

    def under_load(self, running: Daemon, target: Backend, kills: int) -> None:
        load = Load(running.port, RECEIVER)
        self.addCleanup(load.stop)
        for _ in range(kills):
            load.await_more()
            running.kill()
            running.start()
        load.await_more()
        load.stop()
        self.assertEqual(set(load.answers), {0, 200})
        self.nothing_is_lost(running, target, load)

    def test_with_its_embedded_postgres_under_load(self) -> None:
        target = backend(self)
        self.under_load(embedded_daemon(self, directory(target), SHORT_LEASES), target, 2)

    def test_on_an_external_database_under_load(self) -> None:
        target = backend(self)
        self.under_load(daemon(self, directory(target), SHORT_LEASES), target, 3)

    def test_what_was_in_flight_is_attempted_again_under_the_same_webhook_id(self) -> None:
        first: list[Attempt] = []

        def too_late(attempt: Attempt) -> Reply:
            if not first:
                first.append(attempt)
                running.kill()
            return Reply()

        target = backend(self, too_late)
        running = daemon(self, directory(target), SHORT_LEASES)
        peer = running.peer()
        self.addCleanup(peer.close)
        sent = peer.post_form(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER)
        until(running.ended, "its end")
        running.start()
        [_, again] = target.await_attempts(2)
        self.assertEqual(again.webhook_id, first[0].webhook_id)
        self.assertEqual((again.data["id"], again.data["attempt"]), (sent.id, 2))
        until(lambda: running.pending() == 0, "its outcome")

    def test_the_next_start_adopts_or_recovers_the_embedded_postgres_that_was_left(self) -> None:
        running = embedded_daemon(self)
        running.kill()
        running.start()
        self.assertEqual(running.ask("SELECT 1"), [(1,)])
        running.stop()
        self.assertEqual(running.postgres_processes(), set())
