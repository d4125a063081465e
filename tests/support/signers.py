"""Providers' side of each scheme: how a request of theirs is signed, written down a second time."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import md5, sha256
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from smsdaemon.domain.model import WireRequest
from smsdaemon.ports import Scheme
from smsdaemon.providers.schemes import make_scheme
from tests.support.vectors import wire_request

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
SECRET = "a-provider's-secret-Ünicode"
NONCE = "01JHFFHWYY7HSS4FWTMDTQEK8V"

Headers = dict[str, str]
Fields = Mapping[str, Any]
"""Texts; of JSON they may be anything."""


@frozen(kw_only=True)
class Sent:
    """What a provider is about to sign."""

    url: str
    fields: Fields
    json: bool
    at: int
    secret: str = SECRET
    nonce: str = NONCE

    @property
    def body(self) -> bytes:
        """A form or a flat JSON object of the fields."""
        if self.json:
            return json.dumps(dict(self.fields)).encode()
        return urlencode(dict(self.fields), encoding="utf-8").encode()

    def signed(self, headers: Headers) -> WireRequest:
        """As it goes out."""
        kind = JSON if self.json else FORM
        return wire_request("POST", self.url, {"Content-Type": kind, **headers}, self.body)

    def mac(self, message: bytes | str, algorithm: str = "sha256") -> bytes:
        """HMAC with the secret."""
        raw = message.encode() if isinstance(message, str) else message
        return hmac.digest(self.secret.encode(), raw, algorithm)

    def token(self, claims: Mapping[str, object], algorithm: str = "sha256") -> str:
        """A JWT."""
        header = {"alg": {"sha256": "HS256", "sha384": "HS384", "sha512": "HS512"}[algorithm], "typ": "JWT"}
        content = b".".join(_url64(json.dumps(part).encode()) for part in (header, dict(claims)))
        return (content + b"." + _url64(self.mac(content, algorithm))).decode()


@frozen(kw_only=True)
class Signer:
    """One scheme from the provider's side."""

    scheme: Scheme
    sign: Callable[[Sent], WireRequest]
    secret: str = SECRET
    """What the connector holds."""
    signature: str = ""
    """The header that holds the signature or the secret, "" where it is in the body or query."""
    covers_body: bool = True
    covers_url: bool = False
    bodies: tuple[bool, ...] = (True, False)
    """Which it can sign: JSON (True), form (False)."""
    valid_seconds: tuple[int, int] | None = None
    """How long before and after it was signed it is good; None: for ever."""


def _url64(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _form(sent: Sent) -> str:
    return "".join(name + value for name, value in sorted(sent.fields.items()))


def _twilio(sent: Sent) -> WireRequest:
    if not sent.json:
        return sent.signed({"X-Twilio-Signature": _b64(sent.mac(sent.url + _form(sent), "sha1"))})
    separator = "&" if "?" in sent.url else "?"
    url = f"{sent.url}{separator}bodySHA256={sha256(sent.body).hexdigest()}"
    headers = {"Content-Type": JSON, "X-Twilio-Signature": _b64(sent.mac(url, "sha1"))}
    return wire_request("POST", url, headers, sent.body)


def _plivo_v1(sent: Sent) -> WireRequest:
    return sent.signed({"X-Plivo-Signature": _b64(sent.mac(sent.url + _form(sent), "sha1"))})


def _plivo_v2(sent: Sent) -> WireRequest:
    signature = _b64(sent.mac(sent.url.partition("?")[0] + sent.nonce))
    return sent.signed({"X-Plivo-Signature-V2": signature, "X-Plivo-Signature-V2-Nonce": sent.nonce})


def _plivo_v3(sent: Sent) -> WireRequest:
    url, _, query = sent.url.partition("?")
    pairs = "&".join(f"{name}={value}" for name, value in sorted(parse_qsl(query, keep_blank_values=True)))
    form = _form(sent)
    message = url + ("?" + pairs if pairs or form else "") + ("." if pairs and form else "") + form
    signature = _b64(sent.mac(f"{message}.{sent.nonce}"))
    return sent.signed(
        {"X-Plivo-Signature-V3": f"AAAA, {signature}", "X-Plivo-Signature-V3-Nonce": sent.nonce}
    )


def _vonage_sms(sent: Sent) -> WireRequest:
    fields = {**sent.fields, "timestamp": str(sent.at), "nonce": sent.nonce}
    message = "".join(
        f"&{name}={value.replace('&', '_').replace('=', '_')}" for name, value in sorted(fields.items())
    )
    whole = Sent(
        url=sent.url, fields={**fields, "sig": sent.mac(message).hex().upper()}, json=sent.json, at=sent.at
    )
    return whole.signed({})


def _vonage_jwt(sent: Sent) -> WireRequest:
    claims = {
        "iat": sent.at,
        "jti": sent.nonce,
        "iss": "Vonage",
        "payload_hash": sha256(sent.body).hexdigest(),
    }
    return sent.signed({"Authorization": f"Bearer {sent.token(claims)}"})


def _httpsms(sent: Sent) -> WireRequest:
    claims = {"aud": [sent.url], "iat": sent.at, "nbf": sent.at - 600, "exp": sent.at + 600}
    return sent.signed({"Authorization": f"Bearer {sent.token(claims)}"})


def _messagebird_jwt(sent: Sent) -> WireRequest:
    claims = {
        "iss": "MessageBird",
        "nbf": sent.at,
        "exp": sent.at + 60,
        "jti": sent.nonce,
        "url_hash": sha256(sent.url.encode()).hexdigest(),
        "payload_hash": sha256(sent.body).hexdigest(),
    }
    return sent.signed({"MessageBird-Signature-JWT": sent.token(claims, "sha512")})


def _messagebird_hmac(sent: Sent) -> WireRequest:
    pairs = sorted(parse_qsl(urlsplit(sent.url).query, keep_blank_values=True), key=lambda pair: pair[0])
    message = f"{sent.at}\n{urlencode(pairs)}\n".encode() + sha256(sent.body).digest()
    signature = _b64(sent.mac(message))
    return sent.signed({"MessageBird-Signature": signature, "MessageBird-Request-Timestamp": str(sent.at)})


TELNYX_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def _telnyx(sent: Sent) -> WireRequest:
    signature = _b64(TELNYX_KEY.sign(f"{sent.at}|".encode() + sent.body))
    return sent.signed({"telnyx-signature-ed25519": signature, "telnyx-timestamp": str(sent.at)})


def _sinch(sent: Sent) -> WireRequest:
    name = "x-sinch-webhook-signature"
    signature = _b64(sent.mac(sent.body + f".{sent.nonce}.{sent.at}".encode()))
    return sent.signed(
        {
            name: signature,
            f"{name}-nonce": sent.nonce,
            f"{name}-timestamp": str(sent.at),
            f"{name}-algorithm": "HmacSHA256",
        }
    )


def _seven(sent: Sent) -> WireRequest:
    message = f"{sent.at}\n{sent.nonce}\nPOST\n{sent.url}\n{md5(sent.body).hexdigest()}"
    signature = sent.mac(message).hex()
    return sent.signed({"X-Signature": signature, "X-Nonce": sent.nonce, "X-Timestamp": str(sent.at)})


def _hmac_body(sent: Sent) -> WireRequest:
    return sent.signed({"X-Hub-Signature": f"sha256={sent.mac(sent.body).hex()}"})


def _hmac_timestamp(sent: Sent) -> WireRequest:
    signature = _b64(sent.mac(f"v0:{sent.at}:{sent.nonce}:".encode() + sent.body, "sha512"))
    return sent.signed({"X-Signature": signature, "X-Timestamp": str(sent.at), "X-Nonce": sent.nonce})


def _basic(sent: Sent) -> WireRequest:
    return sent.signed({"Authorization": f"Basic {_b64(sent.secret.encode())}"})


def _static_header(sent: Sent) -> WireRequest:
    return sent.signed({"Authorization": f"Token {sent.secret}"})


def _token(sent: Sent) -> WireRequest:
    separator = "&" if "?" in sent.url else "?"
    url = f"{sent.url}{separator}key={quote(sent.secret)}"
    return wire_request("POST", url, {"Content-Type": FORM}, sent.body)


SIGNERS: dict[str, Signer] = {
    "twilio": Signer(
        scheme=make_scheme("twilio", {}), sign=_twilio, signature="x-twilio-signature", covers_url=True
    ),
    "plivo v1": Signer(
        scheme=make_scheme("plivo", {"versions": ["v1"]}),
        sign=_plivo_v1,
        signature="x-plivo-signature",
        covers_url=True,
        bodies=(False,),
    ),
    "plivo v2": Signer(
        scheme=make_scheme("plivo", {}), sign=_plivo_v2, signature="x-plivo-signature-v2", covers_body=False
    ),
    "plivo v3": Signer(
        scheme=make_scheme("plivo", {}),
        sign=_plivo_v3,
        signature="x-plivo-signature-v3",
        covers_url=True,
        bodies=(False,),
    ),
    "vonage sms": Signer(
        scheme=make_scheme("vonage_sms", {}), sign=_vonage_sms, valid_seconds=(300, 25 * 3600)
    ),
    "vonage jwt": Signer(
        scheme=make_scheme("vonage_jwt", {}),
        sign=_vonage_jwt,
        signature="authorization",
        valid_seconds=(300, 25 * 3600),
    ),
    "httpsms": Signer(
        scheme=make_scheme("httpsms", {}),
        sign=_httpsms,
        signature="authorization",
        covers_body=False,
        covers_url=True,
        valid_seconds=(660, 659),
    ),
    "messagebird jwt": Signer(
        scheme=make_scheme("messagebird_jwt", {}),
        sign=_messagebird_jwt,
        signature="messagebird-signature-jwt",
        covers_url=True,
        valid_seconds=(1, 60),
    ),
    "messagebird hmac": Signer(
        scheme=make_scheme("messagebird_hmac", {}),
        sign=_messagebird_hmac,
        signature="messagebird-signature",
        valid_seconds=(300, 300),
    ),
    "telnyx": Signer(
        scheme=make_scheme("telnyx", {}),
        sign=_telnyx,
        secret=_b64(TELNYX_KEY.public_key().public_bytes_raw()),
        signature="telnyx-signature-ed25519",
        valid_seconds=(300, 300),
    ),
    "sinch": Signer(
        scheme=make_scheme("sinch", {}),
        sign=_sinch,
        signature="x-sinch-webhook-signature",
        valid_seconds=(300, 72 * 3600),
    ),
    "seven": Signer(
        scheme=make_scheme("seven", {}),
        sign=_seven,
        signature="x-signature",
        covers_url=True,
        valid_seconds=(300, 300),
    ),
    "hmac_body": Signer(
        scheme=make_scheme("hmac_body", {"header": "X-Hub-Signature", "prefix": "sha256="}),
        sign=_hmac_body,
        signature="x-hub-signature",
    ),
    "hmac_timestamp": Signer(
        scheme=make_scheme(
            "hmac_timestamp",
            {"signs": "v0:{timestamp}:{nonce}:{body}", "algorithm": "sha512", "encoding": "base64"},
        ),
        sign=_hmac_timestamp,
        signature="x-signature",
        valid_seconds=(300, 300),
    ),
    "basic": Signer(
        scheme=make_scheme("basic", {}),
        sign=_basic,
        secret=f"user:{SECRET}",
        signature="authorization",
        covers_body=False,
    ),
    "static_header": Signer(
        scheme=make_scheme("static_header", {"prefix": "Token"}),
        sign=_static_header,
        signature="authorization",
        covers_body=False,
    ),
    "token": Signer(scheme=make_scheme("token", {"parameter": "key"}), sign=_token, covers_body=False),
}
"""By name; SNS is in tests/unit/schemes/test_sns.py."""
