"""application/x-www-form-urlencoded, in a body and in a query."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from smsdaemon.domain.text import decode
from smsdaemon.providers.fields import Values, check_count


def read_form(raw: bytes, wanted: Collection[bytes], charset: str | None) -> tuple[Values, int]:
    """The values of the wanted names, and how many fields there are in all.

    A blank may be written as ``+``; a malformed %-escape stands for itself. ``wanted`` is in lower
    case, names are compared after decoding. Raises MalformedRequest for too many fields.
    """
    values: Values = {}
    if not raw:
        return values, 0
    pairs = raw.split(b"&")
    count = sum(map(bool, pairs))
    check_count(count)
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if name not in wanted:
            name = _unescaped(name).lower()
            if name not in wanted:
                continue
        plain = _unescaped(value)
        values.setdefault(name, []).append((*decode(plain, charset), plain))
    return values, count


def _unescaped(raw: bytes) -> bytes:
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    return unquote_to_bytes(raw) if b"%" in raw else raw
