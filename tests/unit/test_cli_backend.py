"""What `smsdaemon sink` makes of the attempts it gets."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from standardwebhooks.webhooks import Webhook

from smsdaemon.cli.backend_site import Attempt, Behaviour, Record, signature_ok, webhook
from tests.support.cases import UnitTest

AT = datetime(2026, 11, 22, 16, 43, 42, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFy"


def payload(n: int, **more: Any) -> dict[str, Any]:
    """Of the n-th SMS of one conversation."""
    data = {
        "id": f"sms-{n}",
        "delivery": f"delivery-{n}",
        "connector": "+49123123",
        "receiver": "+49123123",
        "sender": "+49789789",
        "received_at": f"2026-11-22T16:43:{n:02}.000000Z",
        "target": {"kind": "acd_group", "name": "support"},
        "attempt": 1,
    }
    return {"type": "sms.received", "data": {**data, **more}}


class RecordTests(UnitTest):
    def setUp(self) -> None:
        self.record = Record()

    def note(self, n: int, status: int = 200, **more: Any) -> Attempt:
        return self.record.note(AT, payload(n, **more), None, status)

    def test_a_delivery_is_a_duplicate_only_after_it_was_taken(self) -> None:
        self.assertFalse(self.note(1, status=503).duplicate)
        self.assertFalse(self.note(1).duplicate)
        self.assertTrue(self.note(1).duplicate)
        counts = self.record.counts
        self.assertEqual((counts.attempts, counts.delivered, counts.duplicates), (3, 1, 1))

    def test_an_sms_that_overtook_another_of_its_conversation_is_noticed(self) -> None:
        self.assertEqual([self.note(n).late for n in (1, 3, 2, 4)], [False, False, True, False])
        self.assertEqual(self.record.counts.late, 1)

    def test_conversations_have_nothing_to_do_with_each_other(self) -> None:
        self.note(5)
        for other in ({"sender": "+491"}, {"connector": "+492"}, {"target": {"name": "sales"}}):
            self.assertFalse(self.note(1, **other, delivery=str(other)).late)

    def test_a_repeat_is_not_out_of_order(self) -> None:
        for n in (1, 2):
            self.note(n)
        self.assertFalse(self.note(1).late)

    def test_what_is_no_delivery_is_noted_all_the_same(self) -> None:
        for strange in ({}, {"data": 1}, {"data": {"target": [], "attempt": "x"}}):
            self.assertEqual(self.record.note(AT, strange, None, 200).number, 0)


class BehaviourTests(UnitTest):
    def test_statuses_come_in_turn_unless_it_fails_or_the_signature_is_wrong(self) -> None:
        fails = iter((False, True, False))
        behaviour = Behaviour(statuses=itertools.cycle((500, 200)), fails=lambda: next(fails))
        found = [behaviour.status(signature) for signature in (None, True, False, True)]
        self.assertEqual(found, [500, 503, 401, 200])


class SignatureTests(UnitTest):
    def headers(self, at: datetime, body: str = "{}") -> dict[str, str]:
        signature = Webhook(SECRET).sign("d1", at, body)
        return {
            "Webhook-Id": "d1",
            "Webhook-Timestamp": str(int(at.timestamp())),
            "Webhook-Signature": signature,
        }

    def test_any_of_several_secrets_may_have_signed(self) -> None:
        headers = self.headers(datetime.now(UTC))
        self.assertTrue(signature_ok([webhook(OTHER), webhook(SECRET)], b"{}", headers))
        self.assertIsNone(signature_ok([], b"{}", headers))

    def test_another_secret_body_or_time_is_wrong(self) -> None:
        now = datetime.now(UTC)
        for secret, body, at in (
            (OTHER, b"{}", now),
            (SECRET, b"{ }", now),
            (SECRET, b"{}", now - timedelta(hours=1)),
        ):
            self.assertFalse(signature_ok([webhook(secret)], body, self.headers(at)))

    def test_headers_that_make_no_sense_are_wrong_and_no_error(self) -> None:
        good = self.headers(datetime.now(UTC))
        for name, value in (
            ("Webhook-Signature", "v1"),
            ("Webhook-Signature", "v1,ä"),
            ("Webhook-Timestamp", "x"),
        ):
            self.assertFalse(signature_ok([webhook(SECRET)], b"{}", {**good, name: value}), value)
        self.assertFalse(signature_ok([webhook(SECRET)], b"\xff", good))
        self.assertFalse(signature_ok([webhook(SECRET)], b"{}", {}))
