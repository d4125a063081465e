"""Order within conversations, through a backend that is slow and sometimes fails."""

from __future__ import annotations

from tests.support.backend import Attempt, Reply, backend
from tests.support.conversations import SlowAndFailing, faults_of_order, send_conversations
from tests.support.daemon import QUICK_RETRIES, acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import OTHER_SENDER, RECEIVER, SENDER, TEXT_MARKER

SENDERS, EACH = 200, 50


class ConversationTests(ProcessTest):
    def test_two_hundred_conversations_of_fifty_sms_arrive_in_order_and_one_at_a_time(self) -> None:
        target = backend(self, SlowAndFailing(seconds=0.003, failing=0.1))
        running = daemon(
            self,
            reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group"),
        )
        ids = send_conversations([running], RECEIVER, SENDERS, EACH)
        until(lambda: running.pending() == 0, "the deliveries", patience=120)
        self.assertEqual(len(set(ids)), SENDERS * EACH)
        self.assertEqual(target.ids(), set(ids))
        self.assertGreater(len(target.attempts), len(ids), "no attempt failed: the test shows too little")
        self.assertEqual(faults_of_order(target.attempts, SENDERS, EACH), [])

    def test_a_conversation_that_is_stuck_keeps_no_other_waiting(self) -> None:
        def stuck(attempt: Attempt) -> Reply:
            return Reply(500 if attempt.data["sender"] == SENDER else 200)

        target = backend(self, stuck)
        running = daemon(
            self,
            reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group"),
            "[routing]\nretry_schedule = [0, 3600]\n",
        )
        peer = running.peer()
        self.addCleanup(peer.close)
        for count in range(3):
            for sender in (SENDER, OTHER_SENDER):
                peer.post_form(receiver=RECEIVER, sender=sender, message=f"{TEXT_MARKER} {count}")
        until(lambda: running.pending() == 3, "the other conversation's deliveries")
        self.assertEqual(
            sorted(attempt.data["sender"] for attempt in target.attempts),
            sorted([SENDER] + [OTHER_SENDER] * 3),
        )

    def test_a_dead_delivery_lets_the_next_one_go(self) -> None:
        def refuse_the_first(attempt: Attempt) -> Reply:
            return Reply(410 if attempt.data["text"].endswith(" 0") else 200)

        target = backend(self, refuse_the_first)
        running = daemon(
            self,
            reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group"),
            QUICK_RETRIES,
        )
        send_conversations([running], RECEIVER, 3, 3)
        until(lambda: running.pending() == 0, "the deliveries")
        self.assertEqual(faults_of_order(target.attempts, 3, 3), [])
        self.assertEqual(len(target.attempts), 9)
