"""An HMAC of the body and a timestamp, in headers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Literal

from attrs import Attribute, field, frozen, validators

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.ports import QueryRead
from smsdaemon.providers.signatures import (
    HASHES,
    SKEW_SECONDS,
    SharedSecret,
    as_bytes,
    check_signature,
    check_window,
    header_name,
    one_header,
    one_nonce,
    one_of,
    seconds,
    text,
    unix_time,
    without_prefix,
)

_PLACES = re.compile(r"\{(\w*)\}")
_KNOWN = ("body", "timestamp", "nonce", "method", "url")


def _whole(_instance: object, attribute: Attribute[str], value: str) -> None:
    found = _PLACES.findall(value)
    if not set(found) <= set(_KNOWN) or not {"body", "timestamp"} <= set(found):
        raise ValueError(
            f"{attribute.name} must hold {{body}} and {{timestamp}}, and may hold the rest of "
            + " ".join(f"{{{name}}}" for name in _KNOWN)
        )


@frozen(kw_only=True)
class HmacTimestamp(SharedSecret):
    """What is signed, and in which order, is written down in ``signs``."""

    name: ClassVar[str] = "hmac_timestamp"
    takes: ClassVar[str] = "the signing secret shared with the provider"
    covers_body: ClassVar[bool] = True

    header: str = header_name("x-signature")
    timestamp_header: str = header_name("x-timestamp")
    nonce_header: str = header_name("x-nonce")
    """Asked for only where ``signs`` holds it."""
    signs: str = field(default="{timestamp}.{body}", validator=[validators.instance_of(str), _whole])
    algorithm: str = one_of("sha256", HASHES)
    encoding: Literal["hex", "base64"] = one_of("hex", ("hex", "base64"))
    prefix: str = text("")
    timestamp_unit: Literal["seconds", "milliseconds"] = one_of("seconds", ("seconds", "milliseconds"))
    tolerance_seconds: int = seconds(300)
    skew_seconds: int = seconds(SKEW_SECONDS)

    @property
    def reads_query(self) -> QueryRead:
        return "always" if "{url}" in self.signs else "never"

    def verify(self, request: WireRequest, secrets: Sequence[str], now: datetime) -> Verified:
        """Raises SignatureRefused unless the header is the HMAC, and the timestamp is of about now."""
        told = one_header(request, self.header)
        timestamp = one_header(request, self.timestamp_header)
        nonce = one_nonce(request, self.nonce_header) if "{nonce}" in self.signs else None
        at = unix_time(timestamp, milliseconds=self.timestamp_unit == "milliseconds")
        told = without_prefix(told, self.prefix)
        values = {
            "body": request.body,
            "timestamp": as_bytes(timestamp),
            "nonce": as_bytes(nonce or ""),
            "method": as_bytes(request.method),
            "url": as_bytes(request.url),
        }
        # Every second piece is the name of a value.
        pieces = _PLACES.split(self.signs)
        message = b"".join(values[piece] if n % 2 else as_bytes(piece) for n, piece in enumerate(pieces))
        check_signature(told, message, secrets, self.algorithm, self.encoding)
        check_window(at, now, self.tolerance_seconds, self.skew_seconds)
        return Verified(nonce=nonce)
