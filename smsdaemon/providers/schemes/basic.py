"""A name and a password, as HTTP has them (RFC 7617)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import SharedSecret, from_base64, is_one_of, keys, one_header


@frozen(kw_only=True)
class Basic(SharedSecret):
    """``Authorization: Basic``."""

    name: ClassVar[str] = "basic"
    takes: ClassVar[str] = "user:password, as entered at the provider"
    covers_body: ClassVar[bool] = False
    reads_query: ClassVar[QueryRead] = "always"

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless user and password are one of the secrets."""
        kind, _, told = one_header(request, "authorization").partition(" ")
        expected = keys(secrets)
        if kind.lower() != "basic":
            raise SignatureRefused("the header authorization holds no user and password")
        given = from_base64(told.strip(), "what the header authorization holds")
        if not is_one_of(given, expected):
            raise SignatureRefused("user or password is wrong")
        return Verified()

    def check_secret(self, secret: str) -> None:
        """Raises ValueError where it is not a user and a password."""
        SharedSecret.check_secret(self, secret)
        if ":" not in secret:
            raise ValueError("it has no colon between user and password")
