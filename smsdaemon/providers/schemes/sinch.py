"""The signature of Sinch's webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    SKEW_SECONDS,
    SharedSecret,
    as_bytes,
    check_signature,
    check_window,
    one_header,
    one_nonce,
    seconds,
    unix_time,
)

_HEADER = "x-sinch-webhook-signature"


@frozen(kw_only=True)
class Sinch(SharedSecret):
    """HMAC-SHA256 of body, nonce and timestamp, with dots between.

    (Of callbacks about numbers Sinch signs the body alone, with SHA-1 in hex: hmac_body does that.)
    Source: sinch/sinch-sdk-node:packages/sms/tests/rest/v1/callbacks/callbacks-webhook.test.ts.
    """

    name: ClassVar[str] = "sinch"
    takes: ClassVar[str] = "the secret that Sinch was given for its webhooks"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "never"

    tolerance_seconds: int = seconds(72 * 3600)
    """Sinch repeats for days; whether it signs anew each time is not known."""
    skew_seconds: int = seconds(SKEW_SECONDS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless it is right, and the timestamp of about now."""
        told = one_header(request, _HEADER)
        nonce = one_nonce(request, f"{_HEADER}-nonce")
        timestamp = one_header(request, f"{_HEADER}-timestamp")
        at = unix_time(timestamp)
        if request.header(f"{_HEADER}-algorithm").lower() not in ("", "hmacsha256"):
            raise SignatureRefused("the signature's algorithm is not known")
        message = b".".join((request.body, as_bytes(nonce), as_bytes(timestamp)))
        check_signature(told, message, secrets, "sha256", "base64")
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        return Verified(nonce=nonce)
