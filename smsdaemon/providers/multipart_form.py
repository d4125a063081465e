"""multipart/form-data (RFC 7578); parts with a file name are ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from multipart import MultipartSegment, PushMultipartParser  # type: ignore[import-untyped]

from smsdaemon.domain.text import decode
from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.fields import Values, check_count


def read_multipart(
    raw: bytes, boundary: str, wanted: Collection[bytes], charset: str | None
) -> tuple[Values, int]:
    """The values of the wanted names, and how many fields there are in all.

    A part's own charset counts before ``charset``. Raises MalformedRequest where the body is no
    complete multipart body or has too many fields.
    """
    values: Values = {}
    count = 0
    try:
        for part, content in _parts(raw, boundary):
            if part.filename is not None:
                continue
            count += 1
            check_count(count)
            name = (part.name or "").encode("latin-1").lower()
            if name in wanted:
                values.setdefault(name, []).append((*decode(content, part.charset or charset), content))
    # ValueError: the parser's own errors, and whatever str() and bytes() make of odd headers.
    except ValueError as error:
        raise MalformedRequest("the multipart body cannot be parsed") from error
    return values, count


def _parts(raw: bytes, boundary: str) -> Iterator[tuple[MultipartSegment, bytes]]:
    # latin-1: names are compared byte by byte, and no byte of a header fails to decode.
    with PushMultipartParser(boundary.encode("latin-1"), header_charset="latin-1") as parser:
        part: MultipartSegment | None = None
        content: list[bytes] = []
        for event in parser.parse(raw):
            if isinstance(event, MultipartSegment):
                part, content = event, []
            elif event is not None:
                content.append(bytes(event))
            elif part is not None:
                yield part, b"".join(content)
