"""The signature of seven.io's webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import md5
from typing import ClassVar
from urllib.parse import urlsplit

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    SKEW_SECONDS,
    SharedSecret,
    as_bytes,
    check_window,
    is_one_of,
    keys,
    one_header,
    one_nonce,
    seconds,
    signature,
    unix_time,
    without_fragment,
)


@frozen(kw_only=True)
class Seven(SharedSecret):
    """HMAC-SHA256 of timestamp, nonce, method, URL and the body's MD5, a line each.

    Whether the URL is signed as a whole or from its path on is not settled by the sources: both are taken.
    Source: seven-io/js-client:src/lib/WebhookVerifier.ts.
    """

    name: ClassVar[str] = "seven"
    takes: ClassVar[str] = "the signing secret of the API key"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "always"

    tolerance_seconds: int = seconds(300)
    skew_seconds: int = seconds(SKEW_SECONDS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless it is right, and the timestamp of about now."""
        told = one_header(request, "x-signature").lower()
        nonce = one_nonce(request, "x-nonce")
        timestamp = one_header(request, "x-timestamp")
        at = unix_time(timestamp)
        body = md5(request.body, usedforsecurity=False).hexdigest()
        messages = [
            as_bytes("\n".join((timestamp, nonce, request.method, url, body))) for url in _urls(request.url)
        ]
        expected = [signature(key, message, "sha256", "hex") for key in keys(secrets) for message in messages]
        if not is_one_of(told, expected):
            raise SignatureRefused("the signature is wrong, or is of another URL than public_url gives")
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        return Verified(nonce=nonce)


def _urls(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(without_fragment(url))
    except ValueError:
        return (url,)
    return url, parts.path + (f"?{parts.query}" if parts.query else "")
