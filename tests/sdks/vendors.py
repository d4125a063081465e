"""What a vendor's library signs is accepted here, and what our tests' signers sign is accepted there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.schemes import make_scheme
from tests.support.cases import UnitTest
from tests.support.signers import FORM, NONCE, SECRET, SIGNERS, Sent
from tests.support.vectors import wire_request
from tests.unit.schemes.test_schemes import ANY, FIELDS, URLS, changed

NOW = datetime.now(UTC)
AT = int(NOW.timestamp())
PAIRS = st.lists(
    st.tuples(
        st.sampled_from(["From", "To", "Body", "a", "aa", "b.c", "Ä"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    ),
    min_size=1,
    max_size=8,
)


class Pairs:
    """A form as web frameworks give it to the vendor's library."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self._pairs])

    def __len__(self) -> int:
        return len(self._pairs)

    def getlist(self, name: str) -> list[str]:
        return [value for other, value in self._pairs if other == name]


class SdkTest(UnitTest):
    def accepted(self, scheme: str, request: Any, secret: str = SECRET, **parameters: object) -> bool:
        """Whether our side takes it, now."""
        try:
            make_scheme(scheme, parameters).verify(request, [secret], datetime.now(UTC))
        except SignatureRefused:
            return False
        return True


class TwilioTests(SdkTest):
    def setUp(self) -> None:
        self.validator = import_module("twilio.request_validator").RequestValidator(SECRET)

    @ANY
    @given(
        URLS,
        PAIRS,
        st.sampled_from(["HMAC_SHA1", "HMAC_SHA256", None]),
        st.sampled_from(["", ":443", ":8443"]),
    )
    def test_forms_that_the_library_signs(
        self, url: str, pairs: list[tuple[str, str]], algorithm: str | None, port: str
    ) -> None:
        headers = {"X-Twilio-Signature": self.validator.compute_signature(url, Pairs(pairs), algorithm)}
        if algorithm:
            headers["X-Twilio-Webhooks-Signature-Settings"] = f"key=k,algorithm={algorithm}"
        called = url.replace("example.com", f"example.com{port}")
        request = wire_request("POST", called, {"Content-Type": FORM, **headers}, urlencode(pairs).encode())
        self.assertTrue(self.accepted("twilio", request))
        self.assertFalse(self.accepted("twilio", evolve(request, body=request.body + b"&x=y")))

    @ANY
    @given(URLS, FIELDS, st.booleans(), st.data())
    def test_the_library_and_we_agree_on_what_was_changed(
        self, url: str, fields: dict[str, str], json: bool, data: st.DataObject
    ) -> None:
        request = SIGNERS["twilio"].sign(Sent(url=url, fields=fields, json=json, at=AT))
        other = data.draw(st.sampled_from([request.url, changed(data, request.url)]))
        # The library makes the scheme lower case before it compares.
        assume(other.startswith("https:"))
        called = evolve(request, url=other, query=other.partition("?")[2].encode())
        form: object = (
            request.body.decode() if json else Pairs(parse_qsl(request.body.decode(), keep_blank_values=True))
        )
        try:
            theirs = self.validator.validate(other, form, request.header("x-twilio-signature"))
        except (TypeError, ValueError):
            # Their answer to JSON where the URL has no bodySHA256, and to what is no URL.
            theirs = False
        self.assertEqual(self.accepted("twilio", called), theirs)
        self.assertTrue(theirs or other != request.url)


class PlivoTests(SdkTest):
    @ANY
    @given(URLS, FIELDS)
    def test_v3_that_the_library_signs_and_verifies(self, url: str, fields: dict[str, str]) -> None:
        library = import_module("plivo.utils.signature_v3")
        assume(url.isascii() and "%C3" not in url)
        message = library.construct_post_url(url, dict(fields)).decode("utf-8")
        signature = library.get_signature_v3(SECRET.encode(), message, NONCE).decode()
        headers = {"X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": NONCE}
        sent = Sent(url=url, fields=fields, json=False, at=AT)
        self.assertTrue(self.accepted("plivo", sent.signed(headers)))
        ours = SIGNERS["plivo v3"].sign(sent).header("x-plivo-signature-v3").replace(" ", "")
        self.assertTrue(library.validate_v3_signature("POST", url, NONCE, SECRET, ours, dict(fields)))

    @ANY
    @given(URLS, FIELDS)
    def test_v2_that_the_library_verifies(self, url: str, fields: dict[str, str]) -> None:
        verify = import_module("plivo.utils").validate_signature
        request = SIGNERS["plivo v2"].sign(Sent(url=url, fields=fields, json=False, at=AT))
        signature = request.header("x-plivo-signature-v2")
        self.assertTrue(verify(url, NONCE, signature, SECRET))
        self.assertTrue(self.accepted("plivo", request))
        self.assertFalse(verify(url, NONCE + "x", signature, SECRET))


class VonageTests(SdkTest):
    @ANY
    @given(FIELDS, st.sampled_from(["md5", "sha1", "sha256", "sha512"]), st.booleans())
    def test_sms_that_the_library_signs(self, fields: dict[str, str], algorithm: str, json: bool) -> None:
        auth = self.auth(algorithm)
        params = {**fields, "timestamp": str(int(time.time()))}
        signed = {**params, "sig": auth.sign_params(dict(params))}
        request = Sent(url="https://sms.example.com/", fields=signed, json=json, at=AT).signed({})
        self.assertTrue(self.accepted("vonage_sms", request))
        query = wire_request("GET", f"https://sms.example.com/?{urlencode(signed)}")
        self.assertTrue(self.accepted("vonage_sms", query))
        changed_params = {**signed, "text-of-another": "x"}
        other = Sent(url="https://sms.example.com/", fields=changed_params, json=json, at=AT).signed({})
        self.assertFalse(self.accepted("vonage_sms", other))

    @ANY
    @given(FIELDS)
    def test_sms_that_the_library_verifies(self, fields: dict[str, str]) -> None:
        request = SIGNERS["vonage sms"].sign(
            Sent(url="https://sms.example.com/", fields=fields, json=False, at=int(time.time()))
        )
        params = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
        self.assertTrue(self.auth("sha256").check_signature(params))
        self.assertTrue(self.accepted("vonage_sms", request))

    @ANY
    @given(URLS, FIELDS, st.booleans())
    def test_tokens_that_the_library_verifies(self, url: str, fields: dict[str, str], json: bool) -> None:
        verify = import_module("vonage_jwt").verify_signature
        request = SIGNERS["vonage jwt"].sign(Sent(url=url, fields=fields, json=json, at=int(time.time())))
        token = request.header("authorization").removeprefix("Bearer ")
        self.assertTrue(verify(token, SECRET))
        self.assertTrue(self.accepted("vonage_jwt", request))
        self.assertFalse(verify(token, SECRET + "x"))

    def auth(self, algorithm: str) -> Any:
        made = import_module("vonage_http_client.auth").Auth
        return made(api_key="key", signature_secret=SECRET, signature_method=algorithm)


class MessageBirdTests(SdkTest):
    @ANY
    @given(URLS, FIELDS, st.booleans(), st.data())
    def test_the_library_and_we_agree_on_what_was_changed(
        self, url: str, fields: dict[str, str], json: bool, data: st.DataObject
    ) -> None:
        request = SIGNERS["messagebird jwt"].sign(
            Sent(url=url, fields=fields, json=json, at=int(time.time()))
        )
        other = data.draw(st.sampled_from([request.url, changed(data, request.url)]))
        body = data.draw(st.sampled_from([request.body, request.body + b" ", b""]))
        library = import_module("messagebird.request_validator").RequestValidator(SECRET)
        token = request.header("messagebird-signature-jwt")
        try:
            library.validate_signature(token, other, body)
            theirs = True
        except import_module("messagebird.error").ValidationError:
            theirs = False
        self.assertEqual(self.accepted("messagebird_jwt", evolve(request, url=other, body=body)), theirs)
        self.assertEqual(theirs, (other, body) == (request.url, request.body))

    @ANY
    @given(URLS, FIELDS)
    def test_signatures_of_old_that_the_library_verifies(self, url: str, fields: dict[str, str]) -> None:
        # The library takes secrets for latin-1.
        secret = "an old secret"
        sent = Sent(url=url, fields=fields, json=False, at=int(time.time()), secret=secret)
        request = SIGNERS["messagebird hmac"].sign(sent)
        params: dict[str, list[str]] = {}
        for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
            params.setdefault(name, []).append(value)
        library = import_module("messagebird.signed_request").SignedRequest(
            request.header("messagebird-signature"), sent.at, request.body.decode(), params
        )
        self.assertTrue(library.verify(secret))
        self.assertTrue(self.accepted("messagebird_hmac", request, secret))


class TelnyxTests(SdkTest):
    @ANY
    @given(FIELDS, st.booleans(), st.data())
    def test_the_library_and_we_agree_on_what_was_changed(
        self, fields: dict[str, str], json: bool, data: st.DataObject
    ) -> None:
        library = import_module("telnyx.lib.webhook_verification")
        key = SIGNERS["telnyx"].secret
        sent = Sent(url="https://sms.example.com/", fields=fields, json=json, at=int(time.time()))
        request = SIGNERS["telnyx"].sign(sent)
        body = data.draw(st.sampled_from([request.body, changed(data, request.body.decode()).encode()]))
        headers = {name: values[0] for name, values in request.headers.items()}
        try:
            library.verify_webhook_signature(body, headers, key)
            theirs = True
        except library.WebhookVerificationError:
            theirs = False
        self.assertEqual(self.accepted("telnyx", evolve(request, body=body), key), theirs)
        self.assertEqual(theirs, body == request.body)
