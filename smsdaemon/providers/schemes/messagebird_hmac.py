"""MessageBird's signature of old, before tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import ClassVar
from urllib.parse import quote_plus

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    SKEW_SECONDS,
    SharedSecret,
    as_bytes,
    check_signature,
    check_window,
    one_header,
    seconds,
    signed_query,
    unix_time,
)


@frozen(kw_only=True)
class MessageBirdHmac(SharedSecret):
    """Of timestamp, query sorted by name, and the body's hash (32 bytes), a line each.

    Source: messagebird/go-rest-api:signature/signature.go.
    """

    name: ClassVar[str] = "messagebird_hmac"
    takes: ClassVar[str] = "the account's signing key (not the API key)"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "always"

    tolerance_seconds: int = seconds(300)
    skew_seconds: int = seconds(SKEW_SECONDS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless it is right, and the timestamp of about now."""
        told = one_header(request, "messagebird-signature")
        timestamp = one_header(request, "messagebird-request-timestamp")
        at = unix_time(timestamp)
        # Sorted by name only: values of one name stay in their order.
        pairs = sorted(signed_query(request.query), key=itemgetter(0))
        query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, _, value in pairs)
        message = b"\n".join((as_bytes(timestamp), as_bytes(query), sha256(request.body).digest()))
        check_signature(told, message, secrets, "sha256", "base64")
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        return Verified()
