"""Bodies of answers with values of the request in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from xml.sax.saxutils import escape

from attrs import frozen

from smsdaemon.providers.selectors import Selector, selector

_PLACEHOLDER = re.compile(r'\{([^{}"\s]+)\}')
"""Not the braces of JSON, which have a quotation mark, a blank or nothing behind them."""
NAMES = ("id", "message_id", "receiver", "sender", "detail")
"""id: ours, of the SMS; message_id: the provider's; detail: what is wrong, of an error."""
_MAX_VALUE = 1000

Look = Callable[[Selector], str]


@frozen
class Template:
    """A text in which ``{message_id}`` and the like stand for values."""

    pieces: tuple[str | Selector, ...]
    """Text, and what is put in between; names (NAMES) are selectors too."""
    escape: Callable[[str], str]

    @property
    def constant(self) -> bool:
        """Whether nothing is put in."""
        return all(isinstance(piece, str) for piece in self.pieces)

    def filled(self, look: Look) -> str:
        """``look`` knows what each selector, or name, stands for."""
        if len(self.pieces) == 1 and isinstance(self.pieces[0], str):
            return self.pieces[0]
        return "".join(
            piece if isinstance(piece, str) else self.escape(look(piece)[:_MAX_VALUE])
            for piece in self.pieces
        )


def template(text: str, content_type: str) -> Template:
    """Compile; values are escaped as the content type needs it. Raises ValueError."""
    pieces: list[str | Selector] = []
    position = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > position:
            pieces.append(text[position : match.start()])
        pieces.append(selector(match[1]))
        position = match.end()
    if position < len(text) or not pieces:
        pieces.append(text[position:])
    return Template(tuple(pieces), _escape(content_type))


def header_template(text: str) -> Template:
    """The value of a header: whatever is put in cannot end it. Raises ValueError."""
    if not text.isascii() or (text and not text.isprintable()):
        raise ValueError("must be of printable ASCII, on one line")
    return Template(template(text, "").pieces, _in_header)


def _escape(content_type: str) -> Callable[[str], str]:
    kind = content_type.lower()
    if "json" in kind:
        return lambda value: json.dumps(value)[1:-1]
    if "xml" in kind or "html" in kind:
        return lambda value: escape(value, {'"': "&quot;", "'": "&#39;"})
    return lambda value: value


def _in_header(value: str) -> str:
    return "".join(mark for mark in value if " " <= mark <= "~")
