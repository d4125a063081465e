"""What signature schemes share: headers that may lie, times, secrets, comparison in constant time."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import field, validators

from smsdaemon.domain.forms import FormPairs, form_pairs
from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import SignatureRefused
from smsdaemon.providers.content_type import content_type

MAX_HEADER_LENGTH = 8192
MAX_NONCE_LENGTH = 256
SKEW_SECONDS = 300
"""How far a provider's clock may be ahead of ours."""

HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")
Encoding = Literal["hex", "base64"]

_MAX_TIME_DIGITS = 13
_NO_SECRET = "this connector has no secret to check the provider's signature with"


# --- a scheme's parameters -------------------------------------------------------------------


def _in_lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def header_name(default: str) -> Any:
    """An attribute that holds the name of a header, in lower case."""
    return field(
        default=default,
        converter=_in_lower_case,
        validator=[validators.instance_of(str), validators.matches_re(r"[a-z0-9!#$%&'*+.^_`|~-]+")],
    )


def seconds(default: int) -> Any:
    """An attribute that holds a span of at least a second."""
    return field(default=default, validator=[validators.instance_of(int), validators.ge(1)])


def one_of(default: str, options: Sequence[str]) -> Any:
    """An attribute that holds one of these words."""
    return field(default=default, validator=validators.in_(options))


def some_of(default: Sequence[str], options: Sequence[str]) -> Any:
    """An attribute that holds a list of at least one of these words."""
    words = validators.deep_iterable(validators.in_(options), validators.instance_of(tuple))
    return field(
        default=tuple(default),
        converter=lambda value: tuple(value) if isinstance(value, list) else value,
        validator=[words, validators.min_len(1)],
    )


def text(default: str) -> Any:
    """An attribute that holds any text."""
    return field(default=default, validator=validators.instance_of(str))


# --- secrets ---------------------------------------------------------------------------------


class SharedSecret:
    """A scheme whose secret is a text that both sides know."""

    def check_secret(self, secret: str) -> None:
        """Raises ValueError for what was surely not meant: nothing, or blanks around it."""
        if not secret:
            raise ValueError("it is empty")
        if secret != secret.strip() or not secret.isprintable():
            raise ValueError("it begins or ends with a blank, or holds a control character")

    def is_public(self, secret: str) -> bool:
        """Never: it is shared with the provider only."""
        return False


def keys(secrets: Sequence[str]) -> list[bytes]:
    """The secrets as bytes. Raises SignatureRefused where there is none; an empty one is none."""
    found = [as_bytes(secret) for secret in secrets if secret]
    if not found:
        raise SignatureRefused(_NO_SECRET)
    return found


def as_bytes(told: str) -> bytes:
    """UTF-8 of any text; a lone surrogate becomes a question mark."""
    return told.encode("utf-8", "replace")


def is_one_of(told: str | bytes, expected: Iterable[bytes]) -> bool:
    """Whether it is one of the expected, without telling by the time taken how much of it is right."""
    given = told if isinstance(told, bytes) else as_bytes(told)
    found = False
    for candidate in expected:
        found |= hmac.compare_digest(given, candidate)
    return found


def signature(key: bytes, message: bytes, algorithm: str, encoding: Encoding) -> bytes:
    """The HMAC as it stands in a header; hex is in lower case."""
    digest = hmac.digest(key, message, algorithm)
    return digest.hex().encode() if encoding == "hex" else b64encode(digest)


def from_base64(told: str, what: str) -> bytes:
    """Its bytes; raises SignatureRefused unless it is just how base64 writes them."""
    given = as_bytes(told)
    try:
        raw = b64decode(given, validate=True)
    except binascii.Error as error:
        raise SignatureRefused(f"{what} is not base64") from error
    if b64encode(raw) != given:
        raise SignatureRefused(f"{what} is not base64")
    return raw


def check_signature(
    told: str, message: bytes, secrets: Sequence[str], algorithm: str, encoding: Encoding
) -> None:
    """Raises SignatureRefused unless it is the HMAC of the message with one of the secrets."""
    given = told.lower() if encoding == "hex" else told
    if not is_one_of(given, [signature(key, message, algorithm, encoding) for key in keys(secrets)]):
        raise SignatureRefused("the signature is wrong")


def without_prefix(told: str, prefix: str) -> str:
    """What follows the prefix; raises SignatureRefused where it is not there."""
    if not told.startswith(prefix):
        raise SignatureRefused("the signature does not begin as it should")
    return told[len(prefix) :]


# --- what comes with a request ---------------------------------------------------------------


def one_header(request: WireRequest, name: str) -> str:
    """The header's value; raises SignatureRefused unless it is there once, and of a sane length."""
    values = request.headers.get(name, ())
    if not values or not values[0]:
        raise SignatureRefused(f"the header {name} is missing")
    if len(values) > 1:
        raise SignatureRefused(f"the header {name} is there more than once")
    if len(values[0]) > MAX_HEADER_LENGTH:
        raise SignatureRefused(f"the header {name} is too long")
    return values[0]


def one_nonce(request: WireRequest, name: str) -> str:
    """The same for a header that is kept for a while."""
    nonce = one_header(request, name)
    if len(nonce) > MAX_NONCE_LENGTH or not nonce.isprintable():
        raise SignatureRefused(f"the header {name} is too long, or holds a control character")
    return nonce


def bearer_token(request: WireRequest) -> str:
    """What stands behind ``Authorization: Bearer``."""
    kind, _, token = one_header(request, "authorization").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise SignatureRefused("the header authorization holds no bearer token")
    return token.strip()


def unix_time(told: str, milliseconds: bool = False) -> float:
    """Seconds since 1970; raises SignatureRefused for anything but digits."""
    if not (told.isascii() and told.isdigit() and len(told) <= _MAX_TIME_DIGITS):
        raise SignatureRefused("the timestamp is no number")
    return int(told) / 1000 if milliseconds else int(told)


def check_window(at: float, now: datetime, tolerance: int, skew: int) -> None:
    """Raises SignatureRefused for what was signed more than ``tolerance`` ago, or ``skew`` ahead."""
    age = now.timestamp() - at
    if age > tolerance:
        raise SignatureRefused("the timestamp is too old")
    if age < -skew:
        raise SignatureRefused("the timestamp is in the future")


def iso_time(told: object) -> float:
    """Seconds since 1970 of an ISO 8601 time, UTC where it names no zone."""
    try:
        if not isinstance(told, str) or len(told) > 40:
            raise ValueError
        at = datetime.fromisoformat(told)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise SignatureRefused("the timestamp is no time") from error


# --- forms and URLs --------------------------------------------------------------------------


def is_form(request: WireRequest) -> bool:
    """Whether the body is a form, as it also is where it has no type."""
    header = request.content_type
    if len(header) > MAX_HEADER_LENGTH:
        return False
    return header.partition(";")[0].strip().lower() in ("", "application/x-www-form-urlencoded")


def is_json(request: WireRequest) -> bool:
    """Whether the body is declared as JSON."""
    header = request.content_type
    return len(header) <= 1000 and content_type(header).type.lower() == "application/json"


def signed_pairs(pairs: FormPairs) -> FormPairs:
    """The same, if all have an equals sign.

    Raises SignatureRefused for a name without ``=``: schemes that sign names and values one after the
    other would take it for the value before it.
    """
    for _, equals, _ in pairs:
        if not equals:
            raise SignatureRefused("a field has no equals sign")
    return pairs


def signed_form(request: WireRequest) -> FormPairs:
    """The pairs of a form that must be signed as a whole; raises SignatureRefused for another body."""
    if not request.body:
        return []
    if not is_form(request):
        raise SignatureRefused("the signature covers no body but a form")
    return signed_pairs(request.form)


def signed_query(query: bytes) -> FormPairs:
    """The pairs of a URL's query that is signed."""
    return signed_pairs(form_pairs(query))


def query_of(url: str) -> bytes:
    """What stands behind the first question mark; raises as without_fragment()."""
    return as_bytes(without_fragment(url).partition("?")[2])


def without_query(url: str) -> str:
    """The URL up to its question mark; raises as without_fragment()."""
    return without_fragment(url).partition("?")[0]


def without_fragment(url: str) -> str:
    """The same. Raises SignatureRefused for a ``#``, which no client sends.

    Signatures do not cover what follows, but who reads the query takes it for part of that.
    """
    if "#" in url:
        raise SignatureRefused("the URL holds a #")
    return url
