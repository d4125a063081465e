"""The token that comes with httpSMS' requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import field, frozen, validators

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.json_web_tokens import check_times, signed_claims, token_id
from smsdaemon.providers.signatures import SharedSecret, as_bytes, bearer_token, is_one_of, seconds


@frozen(kw_only=True)
class HttpSms(SharedSecret):
    """A JWT of HS256 for this URL and these minutes; it does not cover the body.

    Source: NdoleStudio/httpsms:api/pkg/services/webhook_service.go.
    """

    name: ClassVar[str] = "httpsms"
    takes: ClassVar[str] = "the webhook's signing key"
    covers_body: ClassVar[bool] = False
    reads_query: ClassVar[QueryRead] = "always"

    audience: bool = field(default=True, validator=validators.instance_of(bool))
    """False: the token may be for another URL of the same key."""
    skew_seconds: int = seconds(60)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the token is good, of now, and for this URL."""
        claims = signed_claims(bearer_token(request), secrets, ("HS256",))
        check_times(claims, now, self.skew_seconds, required=("exp",))
        if self.audience:
            told = claims.get("aud")
            audiences = told if isinstance(told, list) else [told]
            urls = [as_bytes(url) for url in audiences[:16] if isinstance(url, str)]
            if not is_one_of(request.url, urls):
                raise SignatureRefused("the token is for another URL than public_url gives")
        return Verified(nonce=token_id(claims))
