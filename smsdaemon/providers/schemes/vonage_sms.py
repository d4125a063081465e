"""The ``sig`` parameter of Vonage's (Nexmo's) SMS API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import md5
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    MAX_HEADER_LENGTH,
    MAX_NONCE_LENGTH,
    SKEW_SECONDS,
    SharedSecret,
    as_bytes,
    check_window,
    is_form,
    is_json,
    is_one_of,
    keys,
    seconds,
    signature,
    signed_pairs,
    signed_query,
    some_of,
    unix_time,
)
from smsdaemon.providers.signed_json import signed_object

_ALGORITHMS = ("md5hash", "md5", "sha1", "sha256", "sha512")
_HEX_DIGITS = {"md5hash": 32, "md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}


@frozen(kw_only=True)
class VonageSms(SharedSecret):
    """Of all other parameters by name, as ``&name=value`` with & and = in the values made _.

    They are those of the body, or, where there is none, of the query. Which algorithm an account has is
    set at Vonage; the signature's length tells which it can be.
    Source: Nexmo/nexmo-developer:_documentation/en/concepts/guides/signing-messages.md.
    """

    name: ClassVar[str] = "vonage_sms"
    takes: ClassVar[str] = "the account's signature secret (not the API secret)"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "without a body"

    algorithms: tuple[str, ...] = some_of(_ALGORITHMS, _ALGORITHMS)
    """Those taken; md5hash is the plain hash with the secret behind, the others are HMACs."""
    tolerance_seconds: int = seconds(25 * 3600)
    """Vonage repeats for 24 hours; whether it signs anew each time is not known."""
    skew_seconds: int = seconds(SKEW_SECONDS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless ``sig`` is right, and ``timestamp`` is of about now."""
        signed = _parameters(request)
        expected_keys = keys(secrets)
        told = signed.pop(b"sig", b"").lower()
        timestamp = signed.get(b"timestamp", b"")
        if not told or not timestamp:
            raise SignatureRefused(f"the parameter {'timestamp' if told else 'sig'} is missing")
        if len(told) > MAX_HEADER_LENGTH:
            raise SignatureRefused("the parameter sig is too long")
        message = b"".join(
            b"&%s=%s" % (name, value.replace(b"&", b"_").replace(b"=", b"_"))
            for name, value in sorted(signed.items())
        )
        possible = [name for name in self.algorithms if _HEX_DIGITS[name] == len(told)]
        expected = [_signature(key, message, name) for key in expected_keys for name in possible]
        if not is_one_of(told, expected):
            raise SignatureRefused("the signature is wrong")
        at = unix_time(timestamp.decode("latin-1"))
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        nonce = signed.get(b"nonce", b"").decode("utf-8", "replace")
        return Verified(nonce=nonce if 0 < len(nonce) <= MAX_NONCE_LENGTH else None)


def _signature(key: bytes, message: bytes, algorithm: str) -> bytes:
    if algorithm == "md5hash":
        return md5(message + key, usedforsecurity=False).hexdigest().encode()
    return signature(key, message, algorithm, "hex")


def _parameters(request: WireRequest) -> dict[bytes, bytes]:
    if request.body and is_json(request):
        members = signed_object(request.body).items()
        return _plain_names({as_bytes(name): _as_sent(value) for name, value in members})
    if request.body and not is_form(request):
        raise SignatureRefused("the signature covers no body but a form and JSON")
    pairs = signed_pairs(request.form) if request.body else signed_query(request.query)
    found = {name: value for name, _, value in pairs}
    if len(found) != len(pairs):
        raise SignatureRefused("a parameter comes twice")
    return _plain_names(found)


def _plain_names(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    # Names are signed as they are: one that holds a delimiter could stand for several fields.
    if any(b"&" in name or b"=" in name for name in found):
        raise SignatureRefused("a parameter's name holds & or =")
    return found


def _as_sent(value: object) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if value is None:
        return b""
    if not isinstance(value, str):
        raise SignatureRefused("a member of the JSON object is no text")
    return as_bytes(value)
