"""Every recorded request that is signed is accepted or refused as it must be."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import PreparedScheme, Scheme
from smsdaemon.providers.schemes import make_scheme
from tests.support.cases import UnitTest
from tests.support.fired import outcome
from tests.support.vectors import Vector, clock_of, request_of, signed_vectors

TOPIC = "arn:aws:sns:us-east-1:123456789012:mo"

_SCHEMES: dict[str, tuple[str, dict[str, object]]] = {
    "basic": ("basic", {}),
    "body_hex": ("hmac_body", {}),
    "body_ts_hex": ("hmac_timestamp", {"signs": "{body}{timestamp}"}),
    "httpsms": ("httpsms", {}),
    "messagebird_hmac": ("messagebird_hmac", {}),
    "messagebird_jwt": ("messagebird_jwt", {}),
    "plivo_v1": ("plivo", {"versions": ["v1"]}),
    "plivo_v2": ("plivo", {"versions": ["v2"]}),
    "plivo_v3": ("plivo", {"versions": ["v3"]}),
    "seven": ("seven", {}),
    "sinch": ("sinch", {}),
    "sinch_sha1": ("hmac_body", {"header": "X-Sinch-Signature", "algorithm": "sha1"}),
    "sns": ("sns", {}),
    "telnyx": ("telnyx", {}),
    "twilio": ("twilio", {}),
    "vonage": ("vonage_sms", {}),
    # The tokens that the vendor's libraries are tested with have no payload_hash.
    "vonage_jwt": ("vonage_jwt", {"payload_hash_required": False, "tolerance_seconds": 60}),
}


def scheme_of(vector: Vector) -> Scheme:
    """What the vector's profile would name."""
    if vector["scheme"] == "param":
        return make_scheme("token", {"parameter": vector["secret_param"]})
    if vector["scheme"] == "static_header":
        return make_scheme("static_header", {"header": vector["secret_header"]})
    return make_scheme(*_SCHEMES[vector["scheme"]])


class VectorTests(UnitTest):
    def test_there_are_as_many_as_were_recorded(self) -> None:
        self.assertEqual(len(signed_vectors()), 97)

    def test_what_is_signed_is_accepted_and_nothing_else(self) -> None:
        wrong = {
            vector["id"]: reason
            for vector in signed_vectors()
            if ((reason := self.refusal(vector)) is None) != vector["signature_valid"]
        }
        self.assertEqual(wrong, {})

    def test_another_secret_has_signed_none_of_them(self) -> None:
        for vector in signed_vectors():
            if vector["scheme"] not in ("sns", "telnyx"):
                self.assertIsNotNone(self.refusal({**vector, "secret": "another"}), vector["id"])

    def test_a_refusal_is_one_line_without_secret_and_signature(self) -> None:
        for vector in signed_vectors():
            reason = self.refusal(vector)
            if reason is not None:
                self.assertNotIn("\n", reason)
                told = [value for value in vector["headers"].values() if len(value) > 20]
                self.assertFalse([value for value in [*told, vector["secret"]] if value and value in reason])

    def refusal(self, vector: Vector) -> str | None:
        """Why it is refused; None where it is accepted."""
        scheme = scheme_of(vector)
        secret = TOPIC if vector["scheme"] == "sns" else vector["secret"]
        secrets = ["not the one", secret] if vector["scheme"] != "telnyx" else [secret]
        now = clock_of(vector)
        request = request_of(vector)
        try:
            if isinstance(scheme, PreparedScheme):

                def certificate(url: str) -> Deferred[bytes]:
                    return succeed(vector["secret"].encode())

                outcome(scheme.prepare(request, secrets, now, certificate))
            scheme.verify(request, secrets, now)
        except SignatureRefused as error:
            return str(error)
        return None
