"""Handshakes that need no network."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from twisted.internet.defer import Deferred

from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import MalformedRequest, SignatureRefused
from smsdaemon.ports import Handshake, HandshakeAnswer
from smsdaemon.providers.handshakes import HANDSHAKES
from smsdaemon.providers.handshakes.echo_header import EchoHeader
from smsdaemon.providers.handshakes.echo_query import EchoQuery
from smsdaemon.providers.handshakes.event_grid_validation import EventGridValidation
from tests.support.cases import UnitTest
from tests.support.fired import outcome
from tests.support.vectors import request_of, vectors, wire_request

URL = "https://sms.example.com/SMSReceiver/x"
NOW = datetime(2026, 11, 26, tzinfo=UTC)


def unreachable(url: str) -> Deferred[bytes]:
    raise AssertionError(f"nothing is to be fetched, not even {url}")


class HandshakeTests(UnitTest):
    def answer(
        self,
        handshake: Handshake,
        request: WireRequest,
        document: object = None,
        secrets: tuple[str, ...] = (),
    ) -> HandshakeAnswer:
        self.assertTrue(handshake.recognise(request, document))
        return outcome(handshake.answer(request, document, secrets=secrets, now=NOW, fetch=unreachable))

    def test_they_are_found_by_name(self) -> None:
        self.assertEqual(
            set(HANDSHAKES), {"echo_header", "echo_query", "event_grid_validation", "sns_subscription"}
        )

    def test_event_grid_hears_its_code(self) -> None:
        for vector in vectors():
            if "SubscriptionValidationEvent" in (vector.get("body") or ""):
                request = request_of(vector)
                document = json.loads(request.body)
                answer = self.answer(EventGridValidation(), request, document)
                self.assertEqual(answer[:2], (200, "application/json"))
                code = document[0]["data"]["validationCode"]
                self.assertEqual(json.loads(answer.body), {"validationResponse": code})
                return
        self.fail("no vector")

    def test_event_grid_s_other_events_are_no_handshakes(self) -> None:
        request = wire_request("POST", URL)
        event = {"eventType": "Microsoft.Communication.SMSReceived"}
        documents: list[object] = [None, {}, [], [event], [1], [event, event], "x"]
        for document in documents:
            self.assertFalse(EventGridValidation().recognise(request, document))

    def test_event_grid_without_a_code_is_malformed(self) -> None:
        kind = "Microsoft.EventGrid.SubscriptionValidationEvent"
        for data in (None, {}, {"validationCode": 1}, {"validationCode": ""}, {"validationCode": "x" * 300}):
            with self.assertRaises(MalformedRequest):
                self.answer(
                    EventGridValidation(), wire_request("POST", URL), [{"eventType": kind, "data": data}]
                )

    def test_the_header_is_given_back(self) -> None:
        request = wire_request("POST", URL, {"Validation-Token": "4f2c-…"[:5]})
        answer = self.answer(EchoHeader(), request)
        self.assertEqual(answer, (200, "", b"", {"Validation-Token": "4f2c-"}))
        self.assertFalse(EchoHeader().recognise(wire_request("POST", URL), None))

    def test_a_header_that_would_make_two_is_malformed(self) -> None:
        for value in ("a\r\nSet-Cookie: x", "", "ü", "x" * 300):
            with self.assertRaises(MalformedRequest):
                self.answer(EchoHeader(), wire_request("POST", URL, {"Validation-Token": value}))

    def test_the_parameter_is_given_back_as_plain_text(self) -> None:
        request = wire_request("GET", f"{URL}?hub.challenge=%3Cb%3E1&hub.verify_token=s3cret")
        handshake = EchoQuery(parameter="hub.challenge", token="hub.verify_token")
        answer = self.answer(handshake, request, secrets=("old", "s3cret"))
        self.assertEqual(answer.body, b"<b>1")
        self.assertTrue(answer.content_type.startswith("text/plain"))
        self.assertEqual(answer.headers, {"X-Content-Type-Options": "nosniff"})

    def test_a_wrong_token_is_refused(self) -> None:
        handshake = EchoQuery(parameter="c", token="t")
        for query in ("c=1", "c=1&t=", "c=1&t=x", "c=1&t=s3cret&t=s3cret"):
            with self.assertRaises(SignatureRefused):
                self.answer(handshake, wire_request("GET", f"{URL}?{query}"), secrets=("s3cret",))

    def test_only_a_get_with_one_value_is_a_challenge(self) -> None:
        self.assertFalse(EchoQuery().recognise(wire_request("POST", f"{URL}?challenge=1"), None))
        self.assertFalse(EchoQuery().recognise(wire_request("GET", f"{URL}?other=1&broken"), None))
        for query in ("challenge=1&challenge=2", "challenge=", "challenge=" + "x" * 1001):
            with self.assertRaises(MalformedRequest):
                self.answer(EchoQuery(), wire_request("GET", f"{URL}?{query}"))
