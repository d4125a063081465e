"""A provider sends a header, and wants it back (RingCentral's Validation-Token)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import MalformedRequest
from smsdaemon.ports import Fetch, HandshakeAnswer
from smsdaemon.providers.signatures import header_name

_MAX_LENGTH = 256


@frozen(kw_only=True)
class EchoHeader:
    """A request with the header is a handshake, whatever else is in it."""

    name: ClassVar[str] = "echo_header"
    signed: ClassVar[bool] = False
    """The subscription is being made just then; its token is not there yet."""

    header: str = header_name("validation-token")

    def recognise(self, request: WireRequest, document: object) -> bool:
        """By the header."""
        return self.header in request.headers

    async def answer(
        self,
        request: WireRequest,
        document: object,
        *,
        secrets: Sequence[str],
        now: datetime,
        fetch: Fetch,
    ) -> HandshakeAnswer:
        """Raises MalformedRequest where the value is nothing that a header may hold."""
        value = request.header(self.header)
        if not (0 < len(value) <= _MAX_LENGTH and value.isascii() and value.isprintable()):
            raise MalformedRequest(f"the header {self.header} is empty, too long or not printable ASCII")
        return HandshakeAnswer(200, "", b"", {self.header.title(): value})
