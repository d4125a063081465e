"""The token that comes with MessageBird's (Bird's) requests."""

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
    Claims,
    check_times,
    signed_claims,
    text_claim,
    token_id,
)
from smsdaemon.providers.signatures import (
    SharedSecret,
    as_bytes,
    header_name,
    is_one_of,
    one_header,
    seconds,
    without_query,
)


@frozen(kw_only=True)
class MessageBirdJwt(SharedSecret):
    """A JWT that holds the hashes of the whole URL and of the body, if there is one.

    Source: messagebird/go-rest-api:signature_jwt.
    """

    name: ClassVar[str] = "messagebird_jwt"
    takes: ClassVar[str] = "the account's signing key (not the API key)"
    covers_body: ClassVar[bool] = True

    header: str = header_name("messagebird-signature-jwt")
    url_with_query: bool = field(default=True, validator=validators.instance_of(bool))
    """False: the hash is of the URL up to its question mark."""
    skew_seconds: int = seconds(1)

    @property
    def reads_query(self) -> QueryRead:
        return "always" if self.url_with_query else "never"

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the token is good, of now, and of this URL and body."""
        claims = signed_claims(one_header(request, self.header), secrets, ("HS256", "HS384", "HS512"))
        if text_claim(claims, "iss") != "MessageBird":
            raise SignatureRefused("the token is not MessageBird's")
        check_times(claims, now, self.skew_seconds, required=("exp", "nbf"))
        url = request.url if self.url_with_query else without_query(request.url)
        if not _is_hash(claims, "url_hash", as_bytes(url)):
            raise SignatureRefused("the token is of another URL than public_url gives")
        hashed = bool(claims.get("payload_hash"))
        if hashed != bool(request.body) or (hashed and not _is_hash(claims, "payload_hash", request.body)):
            raise SignatureRefused("the body is not the one that the token is of")
        return Verified(nonce=token_id(claims))


def _is_hash(claims: Claims, name: str, content: bytes) -> bool:
    return is_one_of(text_claim(claims, name).lower(), (sha256(content).hexdigest().encode(),))
