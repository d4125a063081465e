"""What a Content-Type header says."""

from __future__ import annotations

from functools import lru_cache

from attrs import frozen
from multipart import parse_options_header  # type: ignore[import-untyped]

from smsdaemon.errors import UnsupportedBody

_MAX_LENGTH = 1000


@frozen
class ContentType:
    """Type in lower case, "" where there is none, and the parameters that matter here."""

    type: str
    charset: str | None = None
    boundary: str = ""


NO_TYPE = ContentType("")


@lru_cache(maxsize=64)
def content_type(header: str) -> ContentType:
    """Read the header; raises UnsupportedBody where it is absurdly long."""
    if not header:
        return NO_TYPE
    if len(header) > _MAX_LENGTH:
        raise UnsupportedBody("the Content-Type is too long")
    kind, parameters = parse_options_header(header)
    return ContentType(kind, parameters.get("charset") or None, parameters.get("boundary", ""))
