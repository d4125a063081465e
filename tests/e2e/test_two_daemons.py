"""Two daemons on one database: what is promised holds for any number of processes."""

from __future__ import annotations

import signal

from tests.support.backend import Backend, backend
from tests.support.conversations import SlowAndFailing, faults_of_order, send_conversations
from tests.support.daemon import (
    SHORT_LEASES,
    Daemon,
    acd_group,
    client,
    connector,
    daemon,
    reseller,
)
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, in_threads

SENDERS, EACH = 60, 20
# Each has a journal of its own, and while only one of them uses that there is no order between them
# (docs/guarantees.md). A busy machine is reason enough to use it.
SETTINGS = f"{SHORT_LEASES}[receiver]\njournal = false\n"


class TwoDaemonsTests(ProcessTest):
    def pair(self, target: Backend) -> list[Daemon]:
        first = daemon(
            self,
            reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group"),
            SETTINGS,
        )
        second = Daemon(SETTINGS, dsn=first.dsn)
        self.addCleanup(second.remove)
        second.start()
        return [first, second]

    def test_conversations_spread_over_both_arrive_in_order_and_one_at_a_time(self) -> None:
        target = backend(self, SlowAndFailing(seconds=0.003, failing=0.1))
        both = self.pair(target)
        ids = send_conversations(both, RECEIVER, SENDERS, EACH)
        until(lambda: both[0].pending() == 0, "the deliveries")
        self.assertEqual(target.ids(), set(ids))
        self.assertEqual(faults_of_order(target.attempts, SENDERS, EACH), [])

    def test_fifty_requests_at_once_to_both_with_one_message_id_are_one_sms(self) -> None:
        target = backend(self)
        both = self.pair(target)
        answers: list[Answer] = []

        def send(n: int) -> None:
            peer = both[n % 2].peer()
            fields = {"receiver": RECEIVER, "sender": SENDER, "message": TEXT_MARKER, "message_id": "one"}
            answers.append(peer.post_form(**fields))
            peer.close()

        in_threads(50, send)
        self.assertEqual([answer.status for answer in answers], [200] * 50)
        [id] = {answer.id for answer in answers}
        until(lambda: both[0].pending() == 0, "the delivery")
        self.assertEqual([attempt.data["id"] for attempt in target.attempts], [id])
        self.assertEqual(both[0].ask("SELECT id::text FROM message"), [(id,)])

    def test_one_takes_over_what_the_other_left_when_it_was_killed(self) -> None:
        target = backend(self, SlowAndFailing(seconds=0.003, failing=0.1))
        both = self.pair(target)
        # Frozen, so that it holds leases and has unanswered attempts when it is killed.
        peer = both[0].peer()
        self.addCleanup(peer.close)
        ids = set()
        for count in range(200):
            answer = peer.post_form(receiver=RECEIVER, sender=SENDER, message=f"{TEXT_MARKER} {count}")
            ids.add(answer.id)
        both[0].signal(signal.SIGSTOP)
        both[0].kill()
        self.assertGreater(both[1].pending(), 0, "nothing was left: the test shows nothing")
        until(lambda: both[1].pending() == 0, "the deliveries")
        self.assertEqual(ids - target.ids(), set())
        self.assertEqual(faults_of_order(target.attempts, 1, 200), [])
