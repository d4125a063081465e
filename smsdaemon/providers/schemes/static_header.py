"""A secret in a header."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import SharedSecret, header_name, is_one_of, keys, one_header, text


@frozen(kw_only=True)
class StaticHeader(SharedSecret):
    """The header's whole value, or what follows a word such as ``Bearer``."""

    name: ClassVar[str] = "static_header"
    takes: ClassVar[str] = "the secret that the provider sends in a header"
    covers_body: ClassVar[bool] = False
    reads_query: ClassVar[QueryRead] = "always"

    header: str = header_name("authorization")
    prefix: str = text("")
    """What stands before the secret, ``Bearer`` or ``Token``; upper and lower case are the same."""

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the header holds one of the secrets."""
        told = one_header(request, self.header)
        expected = keys(secrets)
        if self.prefix:
            kind, told = told[: len(self.prefix)], told[len(self.prefix) :]
            if kind.lower() != self.prefix.lower() or (self.prefix[-1].isalnum() and told[:1] != " "):
                raise SignatureRefused(f"the header {self.header} does not begin with {self.prefix.strip()}")
        if not is_one_of(told.strip(), expected):
            raise SignatureRefused(f"the header {self.header} is wrong")
        return Verified()
