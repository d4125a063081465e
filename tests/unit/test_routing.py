"""What a target's answer means."""

from __future__ import annotations

import json
from datetime import timedelta
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.domain.model import Answer, Dead, Delivered, Directory, Hop, Target, TargetKind
from smsdaemon.domain.routing import TryAgain, excerpt, read_answer, retry_after_seconds
from tests.support.cases import UnitTest
from tests.support.deliveries import RECEIVED_AT as NOW
from tests.support.deliveries import delivery, target

APPLICATION = target(id=1, kind="application", name="survey")
SUPPORT = target(id=2, name="support")
CLOSED = target(id=3, name="closed", enabled=False)
FOREIGN = target(id=4, name="foreign", client_id=2)
NEXT = target(id=5, kind="application", name="next")
DIRECTORY = Directory(targets={t.id: t for t in (APPLICATION, SUPPORT, CLOSED, FOREIGN, NEXT)})


def meaning(
    status: int,
    body: bytes = b"",
    *,
    of: Target = APPLICATION,
    hops: tuple[Hop, ...] = (),
    retry_after: str | None = None,
) -> Delivered | Dead | TryAgain:
    answer = Answer(status=status, body=body, retry_after=retry_after)
    return read_answer(answer, delivery(hops=hops), of, DIRECTORY, NOW)


class StatusTests(UnitTest):
    def test_every_2xx_is_delivered(self) -> None:
        for status in (200, 201, 202, 204, 299):
            self.assertEqual(meaning(status), Delivered(reason=f"answered {status}"))

    def test_410_is_dead_at_once(self) -> None:
        self.assertEqual(meaning(410), Dead(reason="answered 410"))

    def test_everything_else_is_tried_again(self) -> None:
        for status in (100, 199, 300, 302, 400, 401, 404, 408, 411, 429, 500, 503, 599):
            self.assertIsInstance(meaning(status), TryAgain)

    def test_retry_after_counts_with_429_and_503_only(self) -> None:
        waits = {}
        for status in (302, 429, 500, 503):
            outcome = meaning(status, retry_after="7")
            assert isinstance(outcome, TryAgain)
            waits[status] = outcome.retry_after
        self.assertEqual(waits, {302: None, 429: 7, 500: None, 503: 7})


class RetryAfterTests(UnitTest):
    def test_seconds_and_dates_are_read_and_cut_to_an_hour(self) -> None:
        whole = NOW.replace(microsecond=0)
        soon = format_datetime(whole + timedelta(seconds=90), usegmt=True)
        late = format_datetime(NOW + timedelta(days=9), usegmt=True)
        past = format_datetime(NOW - timedelta(days=9), usegmt=True)
        self.assertEqual(retry_after_seconds(" 120 ", NOW), 120)
        self.assertEqual(retry_after_seconds(soon, whole), 90)
        self.assertEqual(retry_after_seconds("9" * 5000, NOW), 3600)
        self.assertEqual(retry_after_seconds("3601", NOW), 3600)
        self.assertEqual(retry_after_seconds(late, NOW), 3600)
        self.assertEqual(retry_after_seconds(past, NOW), 0)

    def test_what_is_neither_says_nothing(self) -> None:
        for header in (None, "", "soon", "-1", "1.5", "١٢", "Mon, 99 Foo 2026 99:99:99 GMT"):
            self.assertIsNone(retry_after_seconds(header, NOW))

    @given(st.text())
    def test_no_header_breaks_it(self, header: str) -> None:
        seconds = retry_after_seconds(header, NOW)
        self.assertTrue(seconds is None or 0 <= seconds <= 3600)


class RouteTests(UnitTest):
    def route(self, route: object, hops: tuple[Hop, ...] = ()) -> Delivered | Dead | TryAgain:
        return meaning(200, json.dumps({"route": route}).encode(), hops=hops)

    def assert_dead(self, outcome: object, *words: str) -> None:
        assert isinstance(outcome, Dead), outcome
        for word in words:
            self.assertIn(word, outcome.reason)

    def test_a_route_leads_to_the_named_target_with_this_one_as_a_hop(self) -> None:
        before = (Hop(kind="application", name="first"),)
        for kind, onward in (("acd_group", SUPPORT), ("application", NEXT)):
            outcome = self.route({kind: onward.name}, hops=before)
            assert isinstance(outcome, Delivered)
            self.assertEqual(outcome.onward, onward)
            self.assertEqual(outcome.onward_hops, (*before, Hop(kind="application", name="survey")))

    def test_only_a_2xx_of_an_application_routes(self) -> None:
        body = b'{"route": {"acd_group": "support"}}'
        self.assertEqual(meaning(200, body, of=SUPPORT), Delivered(reason="answered 200"))
        self.assertIsInstance(meaning(500, body), TryAgain)
        self.assertIsInstance(meaning(410, body), Dead)

    def test_any_other_body_means_nothing(self) -> None:
        bodies = (
            b"OK",
            b"",
            b"{",
            b"null",
            b"[]",
            b'"route"',
            b"{}",
            b'{"status": "OK"}',
            b'{"route": null}',
            b'{"data": {"route": {"acd_group": "support"}}}',
            b"\xff\xfe\x00",
            b'{"route": ' + b"[" * 60_000,
            b'{"route": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
            b"1" * 60_000,
        )
        for body in bodies:
            self.assertEqual(meaning(200, body), Delivered(reason="answered 200"), body[:30])

    @given(st.binary())
    def test_no_body_breaks_it(self, body: bytes) -> None:
        self.assertIsInstance(meaning(200, body), Delivered)

    def test_a_target_that_is_unknown_disabled_or_of_another_client_is_no_route(self) -> None:
        self.assert_dead(self.route({"acd_group": "nobody"}), "acd_group 'nobody'")
        self.assert_dead(self.route({"application": "support"}), "application 'support'")
        self.assert_dead(self.route({"acd_group": "foreign"}), "acd_group 'foreign'")
        self.assert_dead(self.route({"acd_group": "closed"}), "'closed'", "disabled")

    def test_a_route_that_does_not_say_one_target_is_dead(self) -> None:
        self.assert_dead(self.route({"acd_group": "support", "application": "next"}), "both")
        self.assert_dead(self.route({}), "neither")
        self.assert_dead(self.route({"queue": "support"}), "neither")
        self.assert_dead(self.route({"acd_group": 7}), "acd_group is not a text")
        self.assert_dead(self.route("support"), "not an object")
        self.assert_dead(self.route([]), "not an object")

    def test_five_hops_are_allowed_and_a_sixth_is_not(self) -> None:
        kind: TargetKind = "application"
        four = tuple(Hop(kind=kind, name=str(n)) for n in range(4))
        fifth = self.route({"acd_group": "support"}, hops=four)
        assert isinstance(fifth, Delivered)
        self.assertEqual(len(fifth.onward_hops), 5)
        self.assert_dead(self.route({"acd_group": "support"}, hops=fifth.onward_hops), "hop 6")

    def test_a_reason_is_short_and_printable_whatever_the_name(self) -> None:
        outcome = self.route({"acd_group": "\0\ud800\n" + "x" * 10_000})
        self.assert_dead(outcome, "\\x00")
        assert isinstance(outcome, Dead)
        self.assertTrue(outcome.reason.isprintable())
        self.assertLess(len(outcome.reason), 300)


class ExcerptTests(UnitTest):
    def test_is_the_first_200_characters_whatever_their_bytes(self) -> None:
        for character in ("x", "ü", "€", "👋"):
            self.assertEqual(excerpt((character * 300).encode()), character * 200)

    def test_is_storable_whatever_came(self) -> None:
        self.assertEqual(excerpt(b"a\0b\xff\xed\xa0\x80c"), "a\ufffdb\ufffd\ufffd\ufffd\ufffdc")
        self.assertEqual(excerpt(b""), "")
