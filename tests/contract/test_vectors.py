"""Recorded requests of providers: those that have a profile are read right, and accepted or refused right."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from smsdaemon.domain.model import Connector, Submission
from smsdaemon.errors import RequestRefused, SignatureRefused
from smsdaemon.ports import PreparedScheme
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.loaded import LoadedProfile
from tests.support.cases import UnitTest
from tests.support.vectors import Vector, clock_of, request_of, vectors

PROFILES = load(None)
OF_ANOTHER_NAME: dict[str, str] = {}
"""Vectors' providers -> profiles, where they are called otherwise."""


def profile_of(vector: Vector) -> LoadedProfile | None:
    provider: str = vector["provider"]
    return PROFILES.get(OF_ANOTHER_NAME.get(provider, provider))


def has_profile(vector: Vector) -> bool:
    return profile_of(vector) is not None


def seen(submission: Submission, expected: dict[str, Any]) -> dict[str, Any]:
    """What was read, as far as the vector says what is expected."""
    part = submission.part
    found = {
        "receiver": submission.receiver,
        "sender": submission.sender.strip(),
        "text": submission.text,
        "message_id": submission.message_id,
        "parts": part and {"ref": part.reference, "part": part.number, "total": part.total},
    }
    return {key: value for key, value in found.items() if expected.get(key) is not None}


class VectorTests(UnitTest):
    def test_there_are_vectors_and_profiles_for_them(self) -> None:
        self.assertEqual(len(vectors()), 198)
        self.assertGreaterEqual(len({v["provider"] for v in vectors() if has_profile(v)}), 6)

    def test_messages_are_read_right(self) -> None:
        for vector in vectors():
            expected = vector["expect"]
            profile = profile_of(vector)
            if profile is None or expected["kind"] not in ("mo", "batch") or _unreadable(vector):
                continue
            reading = profile.read(_with_receiver(vector))
            self.assertEqual(reading.kind, "messages", vector["id"])
            wanted = expected.get("messages") or [expected]
            found = [seen(s, w) for s, w in zip(reading.submissions, wanted, strict=True)]
            self.assertEqual(
                found,
                [{k: w[k] for k in f} for f, w in zip(found, wanted, strict=True)],
                vector["id"],
            )

    def test_what_is_no_message_is_acknowledged(self) -> None:
        for vector in vectors():
            profile = profile_of(vector)
            if profile is None or vector["expect"]["kind"] not in ("status", "control"):
                continue
            if profile.profile.handshake is not None:
                continue  # tests of handshakes
            reading = profile.read(request_of(vector))
            self.assertEqual((reading.kind, reading.submissions), ("not_an_sms", ()), vector["id"])
            assert reading.answer is not None
            self.assertEqual(reading.answer.status // 100, 2, vector["id"])

    def test_what_cannot_be_read_is_refused(self) -> None:
        for vector in vectors():
            profile = profile_of(vector)
            if profile is not None and _unreadable(vector):
                with self.assertRaises(RequestRefused, msg=vector["id"]):
                    profile.read(request_of(vector))

    def test_signatures_are_judged_right(self) -> None:
        for vector in vectors():
            profile = profile_of(vector)
            if profile is None or not vector.get("scheme"):
                continue
            connector = Connector(
                id=1,
                client_id=1,
                number="1",
                number_key="1",
                target_id=1,
                provider_secrets=(vector["secret"],),
            )
            scheme, secrets = profile.scheme_and_secrets(connector)
            if isinstance(scheme, PreparedScheme):
                continue  # needs a network; tests of the scheme
            try:
                scheme.verify(request_of(vector), secrets, clock_of(vector))
                good = True
            except SignatureRefused:
                good = False
            self.assertEqual(good, vector["signature_valid"], vector["id"])


def _unreadable(vector: Vector) -> bool:
    """Refused, and not for its signature."""
    expected = vector["expect"]
    return expected["kind"] == "mo" and not expected["valid"] and vector.get("signature_valid") is None


def _with_receiver(vector: Vector) -> Any:
    request = request_of(vector)
    if vector["expect"].get("receiver") or vector["expect"].get("messages"):
        return request

    extra = b"receiver=%2B4900000000"
    return evolve(request, query=request.query + b"&" + extra if request.query else extra)
