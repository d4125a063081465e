"""What all schemes have in common: nothing that was changed, is late or is strange gets through."""

from __future__ import annotations

import string
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from attrs import evolve
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.schemes import SCHEMES, make_scheme
from tests.support.cases import UnitTest
from tests.support.signers import FORM, NONCE, SIGNERS, Sent, Signer

ANY = settings(database=None, deadline=None, max_examples=200)
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())

FIELDS = st.dictionaries(
    st.text(string.ascii_letters + "._-", min_size=1, max_size=8).filter(
        lambda name: name not in ("sig", "timestamp", "nonce", "key")
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    min_size=1,
    max_size=5,
)
URLS = st.builds(
    lambda path, query: f"https://sms.example.com/{path}" + (f"?{query}" if query else ""),
    st.text(string.ascii_letters + string.digits + "/-", max_size=10),
    st.sampled_from(["", "receiver=%2B49123123", "b=2&a=1&b=1", "empty=&x=%C3%BC+y"]),
)
NAMES = st.sampled_from(sorted(SIGNERS))

ODD_TEXT = (
    st.text(st.characters(), max_size=40)
    | st.text(st.characters(max_codepoint=255), max_size=40)
    | st.sampled_from(["", " ", "Bearer", "Bearer a.b.c", "Basic =", "x" * 100_000, "Bearer " + "e" * 9000])
    | st.sampled_from(
        ["1" * 40, "-1", "1e9", "²", "\u0661", "9" * 13, "a," * 5000, "Bearer eyJhbGciOiJub25lIn0.e30."]
    )
)
HEADER_NAMES = (
    *(signer.signature for signer in SIGNERS.values() if signer.signature),
    "x-timestamp",
    "x-nonce",
    "content-type",
    "telnyx-timestamp",
    "messagebird-request-timestamp",
    "x-sinch-webhook-signature-nonce",
    "x-sinch-webhook-signature-timestamp",
    "x-sinch-webhook-signature-algorithm",
    "x-plivo-signature-v2-nonce",
    "x-plivo-signature-v3-nonce",
    "x-twilio-webhooks-signature-settings",
)
ODD_HEADERS = st.dictionaries(
    st.sampled_from(HEADER_NAMES), st.lists(ODD_TEXT, max_size=3).map(tuple), max_size=len(HEADER_NAMES)
)
KINDS = st.sampled_from([FORM, "application/json", "multipart/form-data; boundary=b", "text/plain"])
ODD_BODIES = st.binary(max_size=60) | st.sampled_from(
    [
        b"[" * 20_000,
        b'{"sig":' * 5000,
        b'{"a":1,"a":2}',
        b'{"sig":"1","timestamp":"' + b"9" * 5000 + b'"}',
        b"sig=1&timestamp=%FF",
        b"&" * 5000,
        b"token",
        b"NaN",
        b'{"Type":"Notification","TopicArn":{}}',
    ]
)


@st.composite
def sent(draw: st.DrawFn, signer: Signer) -> Sent:
    """Anything that the scheme can sign."""
    return Sent(
        url=draw(URLS),
        fields=draw(FIELDS),
        json=draw(st.sampled_from(signer.bodies)),
        at=AT,
        secret=_signing_secret(signer),
    )


def _signing_secret(signer: Signer) -> str:
    return "" if signer.secret == SIGNERS["telnyx"].secret else signer.secret


def refusal(
    signer: Signer, request: WireRequest, secrets: Sequence[str] | None = None, now: datetime = NOW
) -> str | None:
    """Why it is refused; None where it is accepted."""
    try:
        signer.scheme.verify(request, [signer.secret] if secrets is None else secrets, now)
    except SignatureRefused as error:
        return str(error)
    return None


def changed(draw: st.DataObject, text: str) -> str:
    """The text with one of its characters made another."""
    at = draw.draw(st.integers(0, len(text) - 1))
    other = draw.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[at]))
    return text[:at] + other + text[at + 1 :]


def content(raw: bytes) -> list[tuple[str, str]]:
    """What a form says, in whatever way it is written."""
    return sorted(set(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, encoding="latin-1")))


class SchemeTests(UnitTest):
    def test_there_is_a_signer_for_each_scheme(self) -> None:
        self.assertEqual({signer.scheme.name for signer in SIGNERS.values()} | {"sns"}, set(SCHEMES))

    def test_each_says_in_a_line_what_its_secrets_are(self) -> None:
        for name, scheme in SCHEMES.items():
            self.assertEqual(scheme.name, name)
            self.assertRegex(str(scheme.takes), r"\A[^\n]{10,100}\Z")

    @ANY
    @given(NAMES, st.data())
    def test_what_the_provider_signs_is_accepted(self, name: str, data: st.DataObject) -> None:
        signer = SIGNERS[name]
        self.assertIsNone(refusal(signer, signer.sign(data.draw(sent(signer)))))

    @ANY
    @given(NAMES, st.data())
    def test_a_changed_body_is_refused(self, name: str, data: st.DataObject) -> None:
        signer = SIGNERS[name]
        assume(signer.covers_body)
        self.assertTrue(signer.scheme.covers_body or signer.scheme.name == "plivo")
        given_request = data.draw(sent(signer))
        request = signer.sign(given_request)
        body = changed(data, request.body.decode()).encode()
        if not given_request.json:
            assume(content(body) != content(request.body))
        if signer.scheme.name == "vonage_sms":
            assume(body.lower() != request.body.lower())
        self.assertIsNotNone(refusal(signer, evolve(request, body=body)))

    @ANY
    @given(NAMES, st.data())
    def test_a_changed_url_is_refused(self, name: str, data: st.DataObject) -> None:
        signer = SIGNERS[name]
        assume(signer.covers_url)
        request = signer.sign(data.draw(sent(signer)))
        url = changed(data, request.url)
        if signer.scheme.name == "plivo":
            assume(url.partition("?")[0] != request.url.partition("?")[0])
        if signer.scheme.name == "seven":
            # From its path on it may be signed too, so that another host makes no difference.
            assume(url.startswith("https://sms.example.com/"))
        changed_request = evolve(request, url=url, query=url.partition("?")[2].encode())
        self.assertIsNotNone(refusal(signer, changed_request))

    def test_a_form_of_vonage_that_is_cut_otherwise_is_refused(self) -> None:
        signer = SIGNERS["vonage sms"]
        for json in (True, False):
            fields = {"b": "1", "c": "2"}
            request = signer.sign(Sent(url="https://sms.example.com/x", fields=fields, json=json, at=AT))
            self.assertIsNone(refusal(signer, request))
            body = request.body.replace(b'"b": "1", "c": "2"', b'"b=1&c": "2"')
            body = body.replace(b"b=1&c=2", b"b%3D1%26c=2")
            self.assertNotEqual(body, request.body)
            self.assertIn("name", str(refusal(signer, evolve(request, body=body))))

    def test_what_stands_behind_a_number_sign_is_not_taken_for_unsigned_query(self) -> None:
        chosen = {name: signer for name, signer in SIGNERS.items() if signer.covers_url}
        self.assertIn("plivo v3", chosen)
        for name, signer in chosen.items():
            request = signer.sign(
                Sent(url="https://sms.example.com/x?a=1", fields={"From": "1"}, json=False, at=AT)
            )
            self.assertIsNone(refusal(signer, request), name)
            more = evolve(request, url=request.url + "#&Text=x", query=request.query + b"#&Text=x")
            self.assertIsNotNone(refusal(signer, more), name)

    @ANY
    @given(NAMES, st.data())
    def test_a_changed_signature_is_refused(self, name: str, data: st.DataObject) -> None:
        signer = SIGNERS[name]
        assume(signer.signature)
        request = signer.sign(data.draw(sent(signer)))
        told = request.header(signer.signature)
        other = changed(data, told)
        # Of several signatures one must be right.
        assume(not told.startswith("AAAA, ") or other.split(",")[-1].strip() != told.split(", ")[-1])
        headers = {**request.headers, signer.signature: (other,)}
        refused = refusal(signer, evolve(request, headers=headers))
        if refused is None:
            # Hex, and the word before a token.
            self.assertEqual(other.lower(), told.lower())
        else:
            self.assertNotIn(told, refused)

    @ANY
    @given(NAMES, st.data())
    def test_another_secret_or_none_is_refused(self, name: str, data: st.DataObject) -> None:
        signer = SIGNERS[name]
        request = signer.sign(data.draw(sent(signer)))
        for secrets in ([], [""], ["another"], [signer.secret + "x"], [signer.secret[:-1]]):
            self.assertIsNotNone(refusal(signer, request, secrets))

    def test_several_secrets_are_good_at_once(self) -> None:
        for name, signer in SIGNERS.items():
            given_request = Sent(
                url="https://sms.example.com/x",
                fields={"From": "+49"},
                json=signer.bodies[0],
                at=AT,
                secret=_signing_secret(signer),
            )
            request = signer.sign(given_request)
            self.assertIsNone(refusal(signer, request, ["the next", signer.secret, "an old one"]), name)

    def test_what_was_signed_too_long_ago_or_ahead_is_refused(self) -> None:
        for name, signer in SIGNERS.items():
            if signer.valid_seconds is None:
                continue
            ahead, ago = signer.valid_seconds
            given_request = Sent(url="https://sms.example.com/x", fields={"a": "b"}, json=True, at=AT)
            request = signer.sign(given_request)
            for seconds, good in ((-ahead, True), (-ahead - 1, False), (ago, True), (ago + 1, False)):
                refused = refusal(signer, request, now=NOW + timedelta(seconds=seconds))
                self.assertEqual(refused is None, good, f"{name} {seconds}: {refused}")

    def test_what_comes_once_only_is_handed_on(self) -> None:
        for name, signer in SIGNERS.items():
            given_request = Sent(
                url="https://sms.example.com/x",
                fields={"a": "b"},
                json=signer.bodies[0],
                at=AT,
                secret=_signing_secret(signer),
            )
            request = signer.sign(given_request)
            verified = signer.scheme.verify(request, [signer.secret], NOW)
            with_nonce = NONCE in str(request.headers) or name in (
                "vonage sms",
                "vonage jwt",
                "messagebird jwt",
            )
            self.assertEqual(verified.nonce, NONCE if with_nonce else None, name)

    @ANY
    @given(
        NAMES,
        ODD_HEADERS,
        ODD_BODIES,
        KINDS,
        st.sampled_from(["GET", "POST"]),
        ODD_TEXT,
        st.lists(st.text(max_size=20), max_size=3),
    )
    def test_whatever_comes_is_refused_and_nothing_else_is_raised(
        self,
        name: str,
        headers: dict[str, tuple[str, ...]],
        body: bytes,
        kind: str,
        method: str,
        url: str,
        secrets: list[str],
    ) -> None:
        request = WireRequest(
            method=method,
            url=url,
            query=url.encode("utf-8", "replace"),
            headers={"content-type": (kind,), **headers},
            body=body,
        )
        refused = refusal(SIGNERS[name], request, secrets)
        self.assertIsNotNone(refused)
        self.assertNotIn("\n", str(refused))

    @ANY
    @given(NAMES, st.data())
    def test_a_header_that_comes_twice_is_refused(self, name: str, data: st.DataObject) -> None:
        signer = SIGNERS[name]
        assume(signer.signature and signer.scheme.name != "plivo")
        request = signer.sign(data.draw(sent(signer)))
        twice = request.headers[signer.signature] * 2
        headers = {**request.headers, signer.signature: twice}
        self.assertIsNotNone(refusal(signer, evolve(request, headers=headers)))


class ParameterTests(UnitTest):
    def test_a_wrong_parameter_is_named(self) -> None:
        for name, given_parameters, problem in (
            ("none", {}, "there is no scheme none"),
            ("twilio", {"headers": "x"}, "scheme twilio knows no headers; it knows: header, "),
            ("basic", {"header": "x"}, "scheme basic knows no header; it knows: nothing"),
            ("twilio", {"header": 3}, "header of scheme twilio: "),
            ("static_header", {"header": "not a name"}, "header of scheme static_header: "),
            ("plivo", {"versions": []}, "versions of scheme plivo: "),
            ("plivo", {"versions": ["v9"]}, "versions of scheme plivo: "),
            ("hmac_body", {"algorithm": "md4"}, "algorithm of scheme hmac_body: "),
            ("hmac_timestamp", {"signs": "{body}"}, "signs of scheme hmac_timestamp: "),
            ("hmac_timestamp", {"signs": "{body}{timestamp}{secret}"}, "signs of scheme hmac_timestamp: "),
            ("telnyx", {"tolerance_seconds": 0}, "tolerance_seconds of scheme telnyx: "),
            ("telnyx", {"tolerance_seconds": "300"}, "tolerance_seconds of scheme telnyx: "),
            ("sns", {"certificates": None}, "scheme sns knows no certificates"),
        ):
            with self.assertRaises(ValueError) as raised:
                make_scheme(name, given_parameters)
            self.assertTrue(str(raised.exception).startswith(problem), raised.exception)

    def test_a_secret_that_cannot_be_one_is_refused_without_being_repeated(self) -> None:
        for name, secret in (
            ("twilio", ""),
            ("twilio", " 12345"),
            ("basic", "user-only"),
            ("telnyx", "c2hvcnQ="),
            ("telnyx", "kein base64 ü"),
            ("sns", "arn:aws:sqs:eu-central-1:123456789012:mo"),
            ("sns", "arn:aws:sns:evil.example#:123456789012:mo"),
        ):
            with self.assertRaises(ValueError) as raised:
                make_scheme(name, {}).check_secret(secret)
            if secret:
                self.assertNotIn(secret, str(raised.exception))

    def test_good_secrets_are_taken(self) -> None:
        make_scheme("twilio", {}).check_secret("12345")
        make_scheme("basic", {}).check_secret("user:pass:word")
        make_scheme("telnyx", {}).check_secret(SIGNERS["telnyx"].secret)
        for arn in (
            "arn:aws:sns:us-east-1:123456789012:mo",
            "arn:aws-us-gov:sns:us-gov-west-1:123456789012:m.fifo",
        ):
            make_scheme("sns", {}).check_secret(arn)
