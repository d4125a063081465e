"""How the text of an SMS is got out of what a provider has made of it."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable
from typing import Literal
from urllib.parse import unquote_to_bytes

from gsm0338 import Codec  # type: ignore[import-untyped]

from smsdaemon.domain.forms import unescaped
from smsdaemon.domain.text import charset_label, decode, storable
from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.fields import Value

Wrapping = Literal["text", "hex", "base64", "percent", "form"]
WRAPPINGS: tuple[Wrapping, ...] = ("text", "hex", "base64", "percent", "form")
"""What the bytes of a text are written in. text: as they are; percent: %-escapes; form: and + is a blank."""

GSM, GSM_PACKED, BINARY = "gsm0338", "gsm0338-packed", "binary"
"""Charsets that are none of Python's: GSM 03.38, a byte for each septet; septets packed into bytes; no
text at all: the text is empty and the bytes are kept."""


def is_charset(name: str) -> bool:
    """Whether a profile may name it."""
    return name in (GSM, GSM_PACKED, BINARY) or charset_label(name) is not None


def text_of(value: Value, wrapping: Wrapping, charset: str | None) -> Value:
    """Text, charset and bytes of what a value has wrapped up.

    ``charset`` may be one that nobody knows, as it may come from the request. Raises MalformedRequest
    where the value is not wrapped like that.
    """
    text, _, raw = value
    if wrapping == "text":
        if charset is None:
            return value
        # Without bytes there was no charset to be wrong about: it was all ASCII, or escaped.
        content = text.encode() if raw is None and text.isascii() else raw
        return value if content is None else decoded(content, charset)
    try:
        content = _UNWRAP[wrapping](text)
    except (ValueError, binascii.Error) as error:
        raise MalformedRequest(f"the text is not {_NAMES[wrapping]}") from error
    return decoded(content, charset)


def decoded(content: bytes, charset: str | None) -> Value:
    """Storable text, the charset's name, and the bytes."""
    if charset == GSM:
        return gsm_text(content), GSM, content
    if charset == GSM_PACKED:
        return gsm_text(septets(content)), GSM_PACKED, content
    if charset == BINARY:
        return "", BINARY, content
    return (*decode(content, charset), content)


_codec = Codec()


def gsm_text(content: bytes) -> str:
    """GSM 03.38 with its extension table; a byte that means nothing there becomes U+FFFD."""
    return storable(_codec.decode(content, "replace")[0])


def septets(packed: bytes) -> bytes:
    """Unpack (3GPP TS 23.038, 6.1.2.1); a whole last septet of zeros is taken for padding."""
    bits = int.from_bytes(packed, "little")
    count = len(packed) * 8 // 7
    unpacked = bytes(bits >> 7 * n & 0x7F for n in range(count)) if count <= 512 else _in_pieces(packed)
    if packed and len(packed) % 7 == 0 and unpacked.endswith(b"\0"):
        return unpacked[:-1]
    return unpacked


def _in_pieces(packed: bytes) -> bytes:
    """7 bytes hold 8 septets: shifting one large number would take time by the square of its length."""
    pieces = (packed[start : start + 7] for start in range(0, len(packed), 7))
    unpacked = bytearray()
    for piece in pieces:
        bits = int.from_bytes(piece, "little")
        unpacked += bytes(bits >> 7 * n & 0x7F for n in range(len(piece) * 8 // 7))
    return bytes(unpacked)


def _percent(text: str) -> bytes:
    return unquote_to_bytes(text)


def _form(text: str) -> bytes:
    return unescaped(text.encode())


def _base64(text: str) -> bytes:
    return b64decode("".join(text.split()), validate=True)


_UNWRAP: dict[str, Callable[[str], bytes]] = {
    "hex": bytes.fromhex,
    "base64": _base64,
    "percent": _percent,
    "form": _form,
}
_NAMES = {"hex": "hexadecimal", "base64": "base64", "percent": "percent-encoded", "form": "percent-encoded"}
