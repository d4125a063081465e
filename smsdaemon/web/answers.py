"""The bodies of answers, as plain text or as JSON, whichever the peer asked for."""

from __future__ import annotations

import json
from functools import lru_cache
from uuid import UUID

from attrs import frozen

from smsdaemon.web.errors import Header, Refusal

TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
PROBLEM = b"application/problem+json"

_JSON_TYPES = frozenset({b"application/json", b"application/problem+json"})
_TEXT_RANGES = (b"text/plain", b"text/*", b"*/*")
_MAX_ACCEPT_LENGTH = 500

Rank = tuple[float, bool, int]


@frozen
class Answer:
    """A whole response but for what is the same in all of them."""

    status: int
    content_type: bytes
    body: bytes
    headers: tuple[Header, ...] = ()


def accepted(id: UUID, as_json: bool) -> Answer:
    """The SMS is durable."""
    text = str(id).encode()
    headers = ((b"SMS-Message-Id", text),)
    if as_json:
        return Answer(200, JSON, b'{"status":"OK","id":"%s"}' % text, headers)
    return Answer(200, TEXT, b"OK", headers)


def refused(row: Refusal, detail: str, as_json: bool) -> Answer:
    """A line of text, or a problem document (RFC 9457)."""
    if as_json:
        problem = {"type": "about:blank", "title": row.title, "status": row.status, "detail": detail}
        return Answer(row.status, PROBLEM, json.dumps(problem).encode(), row.headers)
    return Answer(row.status, TEXT, detail.encode("utf-8", "replace") + b"\n", row.headers)


def wants_json(accept: bytes) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) names JSON and likes it at least as well as text.

    Text is what everybody gets who does not ask: a bare ``*/*`` is not asking.
    """
    if not accept or accept == b"*/*" or len(accept) > _MAX_ACCEPT_LENGTH:
        return False
    return _prefers_json(accept)


@lru_cache(maxsize=64)
def _prefers_json(accept: bytes) -> bool:
    # Liking, whether the type is named, and of two that are named the earlier one.
    best_json: Rank = (0.0, False, 0)
    text: dict[bytes, Rank] = {}
    for position, media_range in enumerate(accept.lower().split(b",")):
        kind, *parameters = (part.strip() for part in media_range.split(b";"))
        rank = (_quality(parameters), kind != b"*/*", -position)
        if kind in _JSON_TYPES:
            best_json = max(best_json, rank)
        elif kind in _TEXT_RANGES:
            text.setdefault(kind, rank)
    # The most specific range that covers text says how much it is liked.
    best_text = next((text[kind] for kind in _TEXT_RANGES if kind in text), (0.0, False, 0))
    return best_json[0] > 0 and best_json > best_text


def _quality(parameters: list[bytes]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
