"""Plivo's three signatures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.forms import FormPairs
from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    MAX_HEADER_LENGTH,
    SharedSecret,
    as_bytes,
    is_one_of,
    keys,
    one_nonce,
    query_of,
    signature,
    signed_form,
    signed_query,
    some_of,
    without_query,
)

_MAX_SIGNATURES = 8
_VERSIONS = ("v3", "v2", "v1")
_HEADERS = {
    "v3": ("x-plivo-signature-v3", "x-plivo-signature-ma-v3"),
    "v2": ("x-plivo-signature-v2", "x-plivo-signature-ma-v2"),
    "v1": ("x-plivo-signature",),
}


@frozen(kw_only=True)
class Plivo(SharedSecret):
    """The first of ``versions`` that the request has a header of is the one that must be right.

    V3 covers URL and form, V1 too (without a nonce), V2 only the URL without its query: as it is what
    Plivo names for SMS, it is taken by default. The header with ``-Ma`` is signed by the main account
    where a subaccount has the number. Sources: plivo/plivo-python:plivo/utils/__init__.py, signature_v3.py.
    """

    name: ClassVar[str] = "plivo"
    takes: ClassVar[str] = "the auth token of the account (or subaccount) that has the number"
    covers_body: ClassVar[bool] = False
    """Of V2; leave it out of ``versions``, and the body is covered."""
    reads_query: ClassVar[QueryRead] = "always"

    versions: tuple[str, ...] = some_of(("v3", "v2"), _VERSIONS)

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless one of the secrets signed what the version covers."""
        for version in self.versions:
            told = _signatures(request, _HEADERS[version])
            if told:
                return _verify(version, told, request, keys(secrets))
        raise SignatureRefused(f"the header {_HEADERS[self.versions[0]][0]} is missing")


def _verify(version: str, told: list[str], request: WireRequest, secrets: list[bytes]) -> Verified:
    nonce = None if version == "v1" else one_nonce(request, f"x-plivo-signature-{version}-nonce")
    signed_by = _SIGNED[version]
    message = signed_by(request) + as_bytes(nonce or "")
    algorithm = "sha1" if version == "v1" else "sha256"
    expected = [signature(key, message, algorithm, "base64") for key in secrets]
    if not any(is_one_of(one, expected) for one in told):
        raise SignatureRefused("the signature is wrong, or is of another URL than public_url gives")
    return Verified(nonce=nonce, in_time=False)


def _signatures(request: WireRequest, names: Sequence[str]) -> list[str]:
    values = [value for name in names for value in request.headers.get(name, ())]
    found = [one.strip() for value in values[:2] for one in value[:MAX_HEADER_LENGTH].split(",")]
    return [one for one in found if one][:_MAX_SIGNATURES]


def _v1(request: WireRequest) -> bytes:
    return as_bytes(request.url) + _names_and_values(signed_form(request))


def _v2(request: WireRequest) -> bytes:
    return as_bytes(without_query(request.url))


def _v3(request: WireRequest) -> bytes:
    url = as_bytes(without_query(request.url))
    query = b"&".join(map(b"".join, sorted(signed_query(query_of(request.url)))))
    form = _names_and_values(signed_form(request))
    if query or form:
        url += b"?" + query
    return url + (b"." if query and form else b"") + form + b"."


def _names_and_values(pairs: FormPairs) -> bytes:
    return b"".join(name + value for name, _, value in sorted(pairs))


_SIGNED = {"v1": _v1, "v2": _v2, "v3": _v3}
