"""A provider sends a parameter in the query, and wants its value back as the body."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.forms import form_pairs
from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import MalformedRequest, SignatureRefused
from smsdaemon.ports import Fetch, HandshakeAnswer
from smsdaemon.providers.signatures import as_bytes, is_one_of, keys, text

_MAX_LENGTH = 1000


@frozen(kw_only=True)
class EchoQuery:
    """A GET with the parameter is a handshake. ``token``: a parameter that must hold one of the secrets."""

    name: ClassVar[str] = "echo_query"
    signed: ClassVar[bool] = False

    parameter: str = text("challenge")
    token: str = text("")
    """"" for none."""

    def recognise(self, request: WireRequest, document: object) -> bool:
        """By method and parameter."""
        return request.method == "GET" and bool(self._values(request, self.parameter))

    async def answer(
        self,
        request: WireRequest,
        document: object,
        *,
        secrets: Sequence[str],
        now: datetime,
        fetch: Fetch,
    ) -> HandshakeAnswer:
        """Raises SignatureRefused for a wrong token, MalformedRequest for an unfit value."""
        if self.token:
            told = self._values(request, self.token)
            expected = keys(secrets)
            if len(told) != 1 or not is_one_of(told[0], expected):
                raise SignatureRefused(f"the parameter {self.token} is missing or wrong")
        values = self._values(request, self.parameter)
        if len(values) != 1 or not 0 < len(values[0]) <= _MAX_LENGTH:
            raise MalformedRequest(f"the parameter {self.parameter} is empty, too long or repeated")
        # What a stranger sends is given back: no browser may take it for a page.
        headers = {"X-Content-Type-Options": "nosniff"}
        return HandshakeAnswer(200, "text/plain; charset=utf-8", values[0], headers)

    def _values(self, request: WireRequest, parameter: str) -> list[bytes]:
        name = as_bytes(parameter)
        return [value for found, equals, value in form_pairs(request.query) if equals and found == name]
