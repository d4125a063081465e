"""Twilio's signature, which SignalWire and others have taken over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    MAX_HEADER_LENGTH,
    SharedSecret,
    as_bytes,
    header_name,
    is_form,
    is_one_of,
    keys,
    one_header,
    query_of,
    signature,
    signed_pairs,
)

_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_HOST_AND_PORT = re.compile(r"(.*?)(?::(\d{1,5}))?")
_BODY_HASH = re.compile(rb"(?:^|&)bodySHA256=([0-9A-Fa-f]{64})(?=&|$)")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ALGORITHMS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}


@frozen(kw_only=True)
class Twilio(SharedSecret):
    """HMAC of the URL and, behind it, the form's names and values in byte order.

    Equal values of one name count once. The URL may have been signed with or without its port. A body
    that is no form is covered by its hash in the query (``bodySHA256``), and refused without.
    Source: twilio/twilio-python:twilio/request_validator.py.
    """

    name: ClassVar[str] = "twilio"
    takes: ClassVar[str] = "the account's auth token (or the secret of a shared key for webhooks)"
    covers_body: ClassVar[bool] = True
    reads_query: ClassVar[QueryRead] = "always"

    header: str = header_name("x-twilio-signature")
    settings_header: str = header_name("x-twilio-webhooks-signature-settings")
    """Says with a shared key that the hash is SHA-256; without it the hash is SHA-1."""

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless one of the secrets signed URL and body."""
        told = one_header(request, self.header)
        algorithm = self._algorithm(request)
        form = _signed_form(request)
        usable = keys(secrets)
        for url in url_variants(request.url):
            message = url + form
            if is_one_of(told, [signature(key, message, algorithm, "base64") for key in usable]):
                return Verified()
        raise SignatureRefused("the signature is wrong, or is of another URL than public_url gives")

    def _algorithm(self, request: WireRequest) -> str:
        settings = request.headers.get(self.settings_header)
        if not settings:
            return "sha1"
        for setting in settings[0][:MAX_HEADER_LENGTH].split(","):
            name, _, value = setting.partition("=")
            if name.strip() == "algorithm" and value.strip():
                algorithm = _ALGORITHMS.get(value.strip().upper())
                if algorithm is None:
                    raise SignatureRefused("the signature's algorithm is not known")
                return algorithm
        return "sha1"


def _signed_form(request: WireRequest) -> bytes:
    if not request.body:
        return b""
    if is_form(request):
        return b"".join([name + value for name, _, value in sorted(set(signed_pairs(request.form)))])
    told = _BODY_HASH.search(query_of(request.url))
    if told is None:
        raise SignatureRefused("the body is no form, and the URL has no bodySHA256")
    if not is_one_of(told[1].lower(), (sha256(request.body).hexdigest().encode(),)):
        raise SignatureRefused("the body is not the one that bodySHA256 is of")
    return b""


def url_variants(url: str) -> list[bytes]:
    """The URL as it is, and without its port, or with the default one where it has none."""
    found = _ORIGIN.match(url)
    if found is None:
        return [as_bytes(url)]
    rest = as_bytes(url[found.end() :])
    return [origin + rest for origin in _origins(found[0])]


@lru_cache(maxsize=256)
def _origins(origin: str) -> tuple[bytes, ...]:
    scheme, _, place = origin.partition("://")
    parts = _HOST_AND_PORT.fullmatch(place)
    host, port = parts.groups() if parts else (place, None)
    default = _DEFAULT_PORTS.get(scheme.lower())
    other = f"{scheme}://{host}" if port else f"{scheme}://{host}:{default}" if default else origin
    return (as_bytes(origin),) if other == origin else (as_bytes(origin), as_bytes(other))
