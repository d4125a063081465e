"""A secret in a parameter of the request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import ClassVar, Literal

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import RequestRefused, SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.content_type import content_type
from smsdaemon.providers.fields import Values
from smsdaemon.providers.form import read_form
from smsdaemon.providers.json_object import read_json
from smsdaemon.providers.multipart_form import read_multipart
from smsdaemon.providers.signatures import SharedSecret, as_bytes, is_one_of, keys, one_of, text

_MAX_VALUES = 4


@frozen(kw_only=True)
class Token(SharedSecret):
    """Looked for by name in the query, in the body (a form, or a flat JSON object), or in both."""

    name: ClassVar[str] = "token"
    takes: ClassVar[str] = "the secret that the provider sends in a parameter of its requests"
    covers_body: ClassVar[bool] = False
    reads_query: ClassVar[QueryRead] = "always"

    parameter: str = text("token")
    """Its name; upper and lower case are the same."""
    place: Literal["anywhere", "query", "body"] = one_of("anywhere", ("anywhere", "query", "body"))

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the parameter holds one of the secrets."""
        told = [value for value in self._values(request) if value][:_MAX_VALUES]
        expected = keys(secrets)
        if not told:
            raise SignatureRefused(f"the parameter {self.parameter} is missing")
        if not any(is_one_of(value, expected) for value in told):
            raise SignatureRefused(f"the parameter {self.parameter} is wrong")
        return Verified()

    def _values(self, request: WireRequest) -> Iterator[str]:
        name = as_bytes(self.parameter.lower())
        for read in (self._in_query, self._in_body):
            try:
                for value, _, _ in read(request, name).get(name, ()):
                    yield value
            except RequestRefused:
                # Whoever reads the request for its SMS says what is wrong with it.
                continue

    def _in_query(self, request: WireRequest, name: bytes) -> Values:
        return {} if self.place == "body" else read_form(request.query, {name}, None)[0]

    def _in_body(self, request: WireRequest, name: bytes) -> Values:
        if self.place == "query" or not request.body:
            return {}
        declared = content_type(request.content_type)
        if declared.type in ("", "application/x-www-form-urlencoded"):
            return read_form(request.body, {name}, declared.charset)[0]
        if declared.type == "multipart/form-data":
            return read_multipart(request.body, declared.boundary, {name}, declared.charset)[0]
        if declared.type == "application/json":
            return read_json(request.body, {name}, declared.charset)[0]
        return {}
