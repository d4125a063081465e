"""application/json: one flat object."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NoReturn

from smsdaemon.domain.text import bytes_again, decode, decode_reversibly, storable
from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.fields import Value, Values, check_count


class _Object(list[tuple[str, object]]):
    """An object's members, also those whose name comes twice."""


def read_json(raw: bytes, wanted: Collection[bytes], charset: str | None) -> tuple[Values, int]:
    """The values of the wanted names, and how many members there are in all.

    Numbers count as the text they were written in, ``true`` and ``false`` as theirs, ``null`` as
    absent. Raises MalformedRequest for anything that is no flat JSON object, too many members too.
    """
    text, encoding = decode_reversibly(raw, charset)
    # NUL within a string would be a syntax error here, where in any other body it becomes U+FFFD.
    members = _parsed(text.removeprefix("\ufeff").replace("\0", "\ufffd"))
    # What stands in ASCII, most of it as \uXXXX, means the same in every charset. (Bytes of UTF-16 can
    # look like ASCII too, but they are more than characters.)
    ascii = raw.isascii() and len(raw) == len(text)
    check_count(len(members))
    values: Values = {}
    for name, value in members:
        if isinstance(value, list):
            raise MalformedRequest("the JSON object is not flat")
        key = name.encode("utf-8", "surrogatepass").lower()
        if key in wanted and value is not None:
            found = _literal(value)
            values.setdefault(key, []).append(
                (storable(found), encoding, None) if ascii else _with_bytes(found, encoding)
            )
    return values, len(members)


def _parsed(text: str) -> _Object:
    try:
        parsed = json.loads(
            text,
            # Text as it stands: int() of many digits fails, float() changes what was written.
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=_Object,
        )
    # RecursionError: thousands of brackets.
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not valid JSON") from error
    if not isinstance(parsed, _Object):
        raise MalformedRequest("the JSON body is not an object")
    return parsed


def _with_bytes(text: str, encoding: str) -> Value:
    """The bytes are made of the parsed text by the body's charset.

    Those between the quotation marks would be none of the text's own: escapes are in them. A character
    that came as an escape and is not in the charset has no bytes, and so has all of its text.
    """
    raw = bytes_again(text, encoding)
    return (storable(text), encoding, None) if raw is None else (*decode(raw, encoding), raw)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _refuse_constant(constant: str) -> NoReturn:
    """NaN and Infinity, which Python would take and JSON does not know."""
    raise ValueError(f"{constant} is not JSON")
