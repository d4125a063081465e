"""The token that comes with Vonage's Messages API, and other Vonage webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import ClassVar

from attrs import field, frozen, validators

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.json_web_tokens import (
    check_times,
    signed_claims,
    text_claim,
    time_claim,
    token_id,
)
from smsdaemon.providers.signatures import (
    SKEW_SECONDS,
    SharedSecret,
    bearer_token,
    check_window,
    is_one_of,
    seconds,
)


@frozen(kw_only=True)
class VonageJwt(SharedSecret):
    """``Authorization: Bearer`` with a JWT of HS256 that holds the body's hash.

    Source: Nexmo/nexmo-developer:_documentation/en/messages/concepts/signed-webhooks.md.
    """

    name: ClassVar[str] = "vonage_jwt"
    takes: ClassVar[str] = "the account's signature secret (not the API secret)"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "never"

    payload_hash_required: bool = field(default=True, validator=validators.instance_of(bool))
    """False: a token without the claim covers any body; where it is there, it is checked anyway."""
    tolerance_seconds: int = seconds(25 * 3600)
    """From ``iat``. Vonage repeats for 24 hours; whether it signs anew each time is not known."""
    skew_seconds: int = seconds(SKEW_SECONDS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the token is good, of about now, and of this body."""
        claims = signed_claims(bearer_token(request), secrets, ("HS256",))
        check_times(claims, now, self.skew_seconds)
        check_window(time_claim(claims, "iat"), now, self.tolerance_seconds, self.skew_seconds)
        if "payload_hash" in claims:
            told = text_claim(claims, "payload_hash").lower()
            if not is_one_of(told, (sha256(request.body).hexdigest().encode(),)):
                raise SignatureRefused("the body is not the one that the token is of")
        elif self.payload_hash_required:
            raise SignatureRefused("the token has no payload_hash")
        return Verified(nonce=token_id(claims))
