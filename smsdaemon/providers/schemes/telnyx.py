"""Telnyx' signature, with a key of which only Telnyx has the private half."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import ClassVar

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    SKEW_SECONDS,
    as_bytes,
    check_window,
    from_base64,
    keys,
    one_header,
    seconds,
    unix_time,
)


@frozen(kw_only=True)
class Telnyx:
    """Ed25519 of the timestamp, a bar, and the body.

    Source: team-telnyx/telnyx-python:src/telnyx/lib/webhook_verification.py.
    """

    name: ClassVar[str] = "telnyx"
    takes: ClassVar[str] = "the account's public key (base64, from Mission Control)"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "never"

    tolerance_seconds: int = seconds(300)
    skew_seconds: int = seconds(SKEW_SECONDS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless one of the keys signed it, and at about now."""
        told = one_header(request, "telnyx-signature-ed25519")
        timestamp = one_header(request, "telnyx-timestamp")
        at = unix_time(timestamp)
        signed = from_base64(told, "the signature")
        message = as_bytes(timestamp) + b"|" + request.body
        if not any(_signed(key, signed, message) for key in keys(secrets)):
            raise SignatureRefused("the signature is wrong")
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        return Verified()

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where it is no public key."""
        if _public_key(as_bytes(secret)) is None:
            raise ValueError("it is not the base64 of a public key (32 bytes)")

    def is_public(self, secret: str) -> bool:
        """Whether it is a public key."""
        return _public_key(as_bytes(secret)) is not None


def _signed(key: bytes, signed: bytes, message: bytes) -> bool:
    public = _public_key(key)
    if public is None:
        return False
    try:
        public.verify(signed, message)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=256)
def _public_key(key: bytes) -> Ed25519PublicKey | None:
    try:
        return Ed25519PublicKey.from_public_bytes(b64decode(key, validate=True))
    except ValueError:
        return None
