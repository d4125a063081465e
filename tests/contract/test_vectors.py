"""Recorded requests of providers: every one is read right by its profile, and accepted or refused right."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from smsdaemon.domain.model import Connector, Submission, WireRequest
from smsdaemon.domain.numbers import matching_key
from smsdaemon.domain.reading import ProviderAnswer, Reading
from smsdaemon.errors import MalformedRequest, SignatureRefused
from smsdaemon.ports import PreparedScheme, Scheme
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.handshaking import HandshakeDesk, recognised
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.providers.schemes.vonage_jwt import VonageJwt
from tests.support.cases import UnitTest
from tests.support.fired import outcome
from tests.support.vectors import Vector, clock_of, request_of, vectors

PROFILES = load(None)
TOPIC = "arn:aws:sns:us-east-1:123456789012:mo"
OUR_NUMBER = "+4900000000"
"""In the URL, where the provider does not say whom an SMS is for."""

READ = ("mo", "batch")
"""Kinds of requests that hold SMS."""
NO_TEXT = ("sinch-06", "kannel-05", "thinq-02")
"""Bytes that are no text."""


def profile_of(vector: Vector) -> LoadedProfile:
    return PROFILES[vector["provider"]]


def is_unreadable(vector: Vector) -> bool:
    """Refused, and not for its signature."""
    expected = vector["expect"]
    return expected["kind"] == "mo" and not expected["valid"] and vector.get("signature_valid") is None


def is_handshake(vector: Vector) -> bool:
    return recognised(profile_of(vector), request_of(vector))


def request_for_us(vector: Vector) -> WireRequest:
    """With the receiver in the URL where the provider does not give it."""
    request = request_of(vector)
    if vector["expect"].get("receiver") or vector["expect"].get("messages"):
        return request
    given = b"receiver=%2B4900000000"
    return evolve(request, query=request.query + b"&" + given if request.query else given)


def seen(submission: Submission) -> dict[str, Any]:
    """What was read; numbers as they are compared."""
    part = submission.part
    return {
        "receiver": matching_key(submission.receiver),
        "sender": matching_key(submission.sender),
        "text": submission.text,
        "message_id": submission.message_id,
        "parts": part and {"ref": part.reference, "part": part.number, "total": part.total},
    }


def wanted(expected: dict[str, Any]) -> dict[str, Any]:
    return {
        "receiver": matching_key(expected.get("receiver") or OUR_NUMBER),
        "sender": matching_key(expected["sender"]),
        "text": expected.get("text") or "",
        "message_id": expected.get("message_id"),
        "parts": expected.get("parts"),
    }


class ReadingTests(UnitTest):
    def test_all_of_them_have_a_profile(self) -> None:
        self.assertEqual(len(vectors()), 198)
        self.assertEqual({v["provider"] for v in vectors()} - set(PROFILES), set())
        self.assertEqual(len({v["provider"] for v in vectors()}), 77)

    def test_all_of_them_are_judged(self) -> None:
        judged = [v for v in vectors() if self.ways(v)]
        self.assertEqual(len(judged), 198)

    def ways(self, vector: Vector) -> list[str]:
        """The tests below that a vector is part of."""
        kind = vector["expect"]["kind"]
        ways = ["signature"] if vector.get("scheme") else []
        if kind in READ:
            ways.append("unreadable" if is_unreadable(vector) else "read")
        elif kind in ("status", "control"):
            ways.append("handshake" if is_handshake(vector) else "acknowledged")
        return ways

    def chosen(self, way: str) -> list[Vector]:
        return [vector for vector in vectors() if way in self.ways(vector)]

    def read(self, vector: Vector) -> Reading:
        return profile_of(vector).read(request_for_us(vector))

    def test_sms_are_read_right(self) -> None:
        chosen = self.chosen("read")
        self.assertEqual(len(chosen), 132)
        for vector in chosen:
            reading = self.read(vector)
            expected = [wanted(one) for one in vector["expect"].get("messages") or [vector["expect"]]]
            self.assertEqual(reading.kind, "messages", vector["id"])
            self.assertEqual([seen(s) for s in reading.submissions], expected, vector["id"])

    def test_bytes_that_are_no_text_are_kept(self) -> None:
        for vector in vectors():
            if vector["id"] in NO_TEXT:
                [submission] = self.read(vector).submissions
                self.assertEqual((submission.text, submission.encoding), ("", "binary"))
                self.assertTrue(submission.raw_text)

    def test_what_is_no_sms_is_acknowledged_and_nothing_of_it_stored(self) -> None:
        for vector in self.chosen("acknowledged"):
            reading = self.read(vector)
            self.assertEqual((reading.kind, reading.submissions), ("not_an_sms", ()), vector["id"])
            assert reading.answer is not None
            self.assertEqual(reading.answer.status // 100, 2, vector["id"])

    def test_their_methods_are_allowed(self) -> None:
        for vector in vectors():
            if vector["expect"]["kind"] != "signature-only":
                self.assertIn(vector["method"], profile_of(vector).methods, vector["id"])

    def test_what_cannot_be_read_is_refused(self) -> None:
        chosen = self.chosen("unreadable")
        self.assertEqual({v["id"] for v in chosen}, {"infobip-05", "africastalking-03", "telnyx-v1-01"})
        for vector in chosen:
            with self.assertRaises(MalformedRequest, msg=vector["id"]):
                self.read(vector)


class Network:
    """Has the certificate of the vectors of SNS, and remembers what was asked for."""

    def __init__(self, certificate: str) -> None:
        self.certificate, self.asked = certificate.encode(), list[str]()

    def fetch(self, url: str) -> Deferred[bytes]:
        self.asked.append(url)
        return succeed(self.certificate)


class AcceptanceTests(UnitTest):
    def connector(self, vector: Vector) -> Connector:
        secret = TOPIC if vector.get("scheme") == "sns" else vector.get("secret")
        return Connector(
            id=1,
            client_id=1,
            number=OUR_NUMBER,
            number_key=matching_key(OUR_NUMBER),
            target_id=1,
            providers=(vector["provider"],),
            provider_secrets=(secret,) if secret else (),
        )

    def test_signatures_are_judged_right(self) -> None:
        chosen = [vector for vector in vectors() if vector.get("scheme")]
        self.assertEqual(len(chosen), 97)
        for vector in chosen:
            self.assertEqual(self.is_authentic(vector), vector["signature_valid"], vector["id"])

    def is_authentic(self, vector: Vector) -> bool:
        connector = self.connector(vector)
        profile, request, now = profile_of(vector), request_of(vector), clock_of(vector)
        if connector.provider_secrets:
            self.assertTrue(profile.must_verify(connector))
        try:
            scheme, secrets = profile.scheme_and_secrets(connector)
            scheme = self.as_recorded(scheme)
            if isinstance(scheme, PreparedScheme):
                outcome(scheme.prepare(request, secrets, now, Network(vector["secret"]).fetch))
            scheme.verify(request, secrets, now)
        except SignatureRefused:
            return False
        return True

    def as_recorded(self, scheme: Scheme) -> Scheme:
        """Vonage's tokens are those of its library's tests, which have no payload_hash.

        Vonage says that its own have one, so the profile takes none without: it would be good for any body.
        """
        return evolve(scheme, payload_hash_required=False) if isinstance(scheme, VonageJwt) else scheme

    def test_a_token_of_vonage_that_is_good_for_any_body_is_refused(self) -> None:
        for vector in vectors():
            if vector["id"] in ("vonage-messages-01", "vonage-messages-03"):
                scheme, secrets = profile_of(vector).scheme_and_secrets(self.connector(vector))
                with self.assertRaisesRegex(SignatureRefused, "payload_hash"):
                    scheme.verify(request_of(vector), secrets, clock_of(vector))

    def test_what_is_not_signed_needs_a_connector_that_says_so_or_a_format_without(self) -> None:
        signing = {
            v["id"]
            for v in vectors()
            if v["expect"]["valid"] and not v.get("scheme") and profile_of(v).must_verify(self.connector(v))
        }
        # They sign where it is switched on, and so must be unsigned = true where it is not.
        self.assertEqual({id.rpartition("-")[0] for id in signing}, {"bandwidth", "plivo", "vonage"})

    def test_a_subscription_of_sns_is_confirmed(self) -> None:
        vector = next(v for v in vectors() if v["id"] == "aws-sns-05")
        network = Network(vector["secret"])
        answer = self.handshake(vector, network)
        self.assertEqual(answer.status, 200)
        envelope = json.loads(vector["body"])
        self.assertEqual(network.asked, [envelope["SigningCertURL"], envelope["SubscribeURL"]])

    def test_event_grid_hears_its_code(self) -> None:
        vector = next(v for v in vectors() if v["id"] == "azure-eventgrid-03")
        network = Network("")
        answer = self.handshake(vector, network)
        code = json.loads(vector["body"])[0]["data"]["validationCode"]
        self.assertEqual((answer.status, json.loads(answer.body)), (200, {"validationResponse": code}))
        self.assertEqual(network.asked, [])

    def handshake(self, vector: Vector, network: Network) -> ProviderAnswer:
        self.assertTrue(is_handshake(vector))
        desk = HandshakeDesk(
            profile=profile_of(vector),
            request=request_of(vector),
            fetch=network.fetch,
            utc_now=lambda: clock_of(vector),
        )
        # Azure's has no secret in its URL, as Microsoft shows it.
        connector = evolve(self.connector(vector), unsigned=vector["provider"] == "azure-eventgrid")
        return outcome(desk.answer([connector]))
