"""Requests that come again: one SMS, stored and delivered once (contract 3, Repeats)."""

from __future__ import annotations

from functools import cache

from tests.support.backend import Backend
from tests.support.daemon import Daemon, acd_group, client, connector, reseller, shared_daemon
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import OTHER_SENDER, RECEIVER, SECRET, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, in_threads

CLIENT = "acme/repeats"
NUMBER, OTHER_NUMBER = f"{RECEIVER}31", f"{RECEIVER}32"


@cache
def scene() -> tuple[Daemon, Backend]:
    """The run's daemon with two connectors of these tests', and where their SMS go."""
    target, daemon = Backend(), shared_daemon()
    daemon.apply(
        reseller()
        + client("repeats")
        + acd_group("group", target.url(), CLIENT, secret=SECRET)
        + connector(NUMBER, CLIENT, acd_group="group")
        + connector(OTHER_NUMBER, CLIENT, acd_group="group")
    )
    return daemon, target


class RepeatTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.daemon, self.target = scene()

    def at_once(self, count: int, **fields: str) -> list[Answer]:
        """That many requests, each by a peer of its own, at the same time."""
        answers: list[Answer] = []

        def send(_: int) -> None:
            peer = self.daemon.peer()
            answers.append(peer.post_form(**fields))
            peer.close()

        in_threads(count, send)
        return answers

    def once(self, answers: list[Answer]) -> str:
        """All were accepted as one SMS, which is stored and delivered once; its id."""
        self.assertEqual({answer.status for answer in answers}, {200})
        [id] = {answer.id for answer in answers}
        until(lambda: id in self.target.ids(), "the delivery")
        until(
            lambda: not self.daemon.ask("SELECT 1 FROM delivery WHERE message_id = %s", [id]), "its outcome"
        )
        self.assertEqual(len(self.attempts(id)), 1)
        self.assertEqual(len(self.daemon.ask("SELECT 1 FROM ended_delivery WHERE message_id = %s", [id])), 1)
        return id

    def attempts(self, id: str) -> list[object]:
        return [attempt for attempt in self.target.attempts if attempt.data["id"] == id]

    def stored(self, message_id: str) -> int:
        return len(self.daemon.ask("SELECT 1 FROM message WHERE provider_message_id = %s", [message_id]))

    def test_fifty_requests_at_once_with_one_message_id_are_one_sms(self) -> None:
        answers = self.at_once(
            50, receiver=NUMBER, sender=SENDER, message=TEXT_MARKER, message_id="fifty-at-once"
        )
        self.assertEqual(len(answers), 50)
        self.once(answers)
        self.assertEqual(self.stored("fifty-at-once"), 1)

    def test_a_repeat_much_later_hears_the_same_id(self) -> None:
        fields = {"receiver": NUMBER, "sender": SENDER, "message": TEXT_MARKER, "message_id": "later"}
        first = self.once(self.at_once(1, **fields))
        self.assertEqual(self.once(self.at_once(1, **fields)), first)

    def test_another_text_sender_connector_or_id_makes_another_sms(self) -> None:
        fields = {"receiver": NUMBER, "sender": SENDER, "message": TEXT_MARKER, "message_id": "same"}
        ids = [
            self.once(self.at_once(5, **{**fields, **other}))
            for other in (
                {},
                {"message": f"{TEXT_MARKER} again"},
                {"sender": OTHER_SENDER},
                {"receiver": OTHER_NUMBER},
                {"message_id": "other"},
            )
        ]
        self.assertEqual(len(set(ids)), 5)
        self.assertEqual(self.stored("same"), 4)

    def test_without_a_message_id_the_same_text_again_is_another_sms(self) -> None:
        answers = self.at_once(10, receiver=NUMBER, sender=SENDER, message=TEXT_MARKER)
        self.assertEqual(len({answer.id for answer in answers}), 10)
        until(lambda: {answer.id for answer in answers} <= self.target.ids(), "all ten")
