"""An HMAC of the body in a header: what most do who have no scheme of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Literal

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    HASHES,
    SharedSecret,
    check_signature,
    header_name,
    one_header,
    one_of,
    text,
    without_prefix,
)


@frozen(kw_only=True)
class HmacBody(SharedSecret):
    """Of the body and nothing else: such a request can be sent again at any time."""

    name: ClassVar[str] = "hmac_body"
    takes: ClassVar[str] = "the signing secret shared with the provider"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "never"

    header: str = header_name("x-signature")
    algorithm: str = one_of("sha256", HASHES)
    encoding: Literal["hex", "base64"] = one_of("hex", ("hex", "base64"))
    prefix: str = text("")
    """What stands before the signature, ``sha256=``."""

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the header is the body's HMAC."""
        told = one_header(request, self.header)
        check_signature(
            without_prefix(told, self.prefix), request.body, secrets, self.algorithm, self.encoding
        )
        return Verified()
