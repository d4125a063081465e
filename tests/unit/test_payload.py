"""The JSON of a delivery."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.backends.payload import body, subject
from smsdaemon.domain.model import Delivery, Hop, Target
from tests.support.cases import UnitTest
from tests.support.deliveries import RECEIVED_AT, client, delivery, sms, target

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def document(a_delivery: Delivery, a_target: Target) -> Any:
    return json.loads(body(a_delivery, a_target, client()))


class PayloadTests(UnitTest):
    def test_has_the_keys_of_the_contract_in_its_order(self) -> None:
        an_sms = sms()
        a_delivery = delivery(sms=an_sms)
        self.assertEqual(
            list(_flat(document(a_delivery, target(subject="SMS from {sender}")))),
            [
                ("type", "sms.received"),
                ("timestamp", "2026-11-22T16:43:42.123456Z"),
                ("data.id", str(an_sms.id)),
                ("data.delivery", str(a_delivery.id)),
                ("data.receiver", "+49123123"),
                ("data.sender", "+49789789"),
                ("data.sender_raw", "49789789"),
                ("data.text", "This is a test message"),
                ("data.keyword", None),
                ("data.received_at", "2026-11-22T16:43:42.123456Z"),
                ("data.reseller", "acme"),
                ("data.client", "shop"),
                ("data.connector", "+49123123"),
                ("data.provider", "generic"),
                ("data.provider_message_id", None),
                ("data.encoding", "utf-8"),
                ("data.parts", 1),
                ("data.target.kind", "acd_group"),
                ("data.target.name", "support"),
                ("data.target.subject", "SMS from +49789789"),
                ("data.attempt", 1),
                ("data.hops", []),
            ],
        )

    def test_missing_parts_are_named_only_where_some_are_missing(self) -> None:
        whole = document(delivery(sms=sms(parts=3)), target())["data"]
        self.assertEqual((whole["parts"], "parts_missing" in whole), (3, False))
        given_up = document(delivery(sms=sms(parts=3, parts_missing=(2,))), target())["data"]
        self.assertEqual((given_up["parts"], given_up["parts_missing"]), (3, [2]))

    def test_hops_are_kind_and_name(self) -> None:
        hops = (Hop(kind="application", name="survey"), Hop(kind="application", name="vip"))
        self.assertEqual(
            document(delivery(hops=hops), target())["data"]["hops"],
            [{"kind": "application", "name": "survey"}, {"kind": "application", "name": "vip"}],
        )

    def test_times_are_utc_with_microseconds_whatever_zone_they_come_in(self) -> None:
        noon = RECEIVED_AT.replace(microsecond=0).astimezone(timezone(timedelta(hours=5, minutes=30)))
        self.assertEqual(
            document(delivery(sms=sms(received_at=noon)), target())["timestamp"],
            "2026-11-22T16:43:42.000000Z",
        )

    def test_text_that_is_not_ascii_goes_out_as_utf8_and_unescaped(self) -> None:
        content = body(delivery(sms=sms(text="Grüße 🐟")), target(), client())
        self.assertIn("Grüße 🐟".encode(), content)

    @given(TEXTS)
    def test_any_text_arrives_unchanged(self, text: str) -> None:
        self.assertEqual(document(delivery(sms=sms(text=text)), target())["data"]["text"], text)


class SubjectTests(UnitTest):
    def test_fields_are_put_in_and_a_missing_keyword_is_empty(self) -> None:
        template = "{sender} to {receiver}: {keyword}."
        self.assertEqual(subject(template, sms()), "+49789789 to +49123123: .")
        self.assertEqual(subject(template, sms(keyword="WIN")), "+49789789 to +49123123: WIN.")

    def test_what_is_put_in_is_not_expanded_again(self) -> None:
        an_sms = sms(sender="{receiver}", keyword="{sender}")
        self.assertEqual(subject("{sender} {keyword}", an_sms), "{receiver} {sender}")

    def test_nothing_else_in_braces_is_expanded(self) -> None:
        template = "{text} {sender.__class__} {0} {{sender}} {"
        self.assertEqual(subject(template, sms()), "{text} {sender.__class__} {0} {+49789789} {")

    def test_line_breaks_are_dropped_from_template_and_values(self) -> None:
        an_sms = sms(sender="a\r\nBcc: b")
        self.assertEqual(subject("x\n{sender}\ry", an_sms), "xaBcc: by")


def _flat(value: dict[str, Any], prefix: str = "") -> Any:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, inner
