"""XML from a peer: what its bytes say, and its elements under their names without namespaces."""

from __future__ import annotations

import re
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from smsdaemon.domain.text import charset_label, decode
from smsdaemon.errors import MalformedRequest

_BEGINNINGS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"<\0", "utf-16le"),
    (b"\0<", "utf-16be"),
)
"""Byte order marks, and how XML must begin without one."""
_MARKS = 3
_DECLARED = re.compile(rb"""<\?xml\s[^>]*?\sencoding\s*=\s*["']([^"'>]*)""")
_MAX_DECLARATION, _MAX_NAME = 300, 40


def xml_root(raw: bytes, charset: str | None) -> tuple[Element, str]:
    """The root element, and the charset that it was read by; ``charset``: the Content-Type's.

    A byte order mark counts first, then the Content-Type, then what the document declares. Raises
    MalformedRequest for what is no XML, has a DTD, or declares a charset that nobody knows.
    """
    text, label = decode(raw, _charset(raw, charset))
    try:
        return _parsed(text), label
    except (expat.ExpatError, ValueError) as error:
        raise MalformedRequest("the body is not valid XML") from error


def _charset(raw: bytes, charset: str | None) -> str | None:
    """None: UTF-8, or windows-1252 of careless senders, who declare UTF-8 or nothing."""
    marked = next((label for mark, label in _BEGINNINGS[:_MARKS] if raw.startswith(mark)), None)
    if marked is not None:
        return marked
    if charset is not None and (label := charset_label(charset)) is not None:
        return label
    wide = next((label for beginning, label in _BEGINNINGS[_MARKS:] if raw.startswith(beginning)), None)
    return wide or _declared(raw)


def _declared(raw: bytes) -> str | None:
    found = _DECLARED.match(raw[:_MAX_DECLARATION])
    if found is None:
        return None
    label = charset_label(found[1].decode("latin-1")) if len(found[1]) <= _MAX_NAME else None
    if label is None:
        raise MalformedRequest("the XML declares a charset that is not known")
    # What could be read here is in none of the wide ones: some write UTF-16 in front of any text.
    return None if label in ("utf-8", "us-ascii") or label.startswith(("utf-16", "utf-32")) else label


def _parsed(text: str) -> Element:
    # Never bytes: expat asks Python for any encoding that they declare, and codecs.lookup() keeps each
    # unknown name for ever. Not namespace-aware: expat then makes every name anew with its whole namespace,
    # and 60 kB of XML with a long one took 0.15 s; so did defusedxml, which cannot do without.
    parser = expat.ParserCreate("utf-8")
    builder = TreeBuilder()
    local: dict[str, str] = {}

    def start(tag: str, attributes: list[str]) -> None:
        name = local.get(tag) or local.setdefault(tag, tag.rpartition(":")[2])
        builder.start(name, _plain(attributes) if attributes else {})

    parser.ordered_attributes = True
    parser.buffer_text = True
    # Without a DTD there are no entities, neither many of one nor another's file.
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(text, True)
    return builder.close()


def _plain(attributes: list[str]) -> dict[str, str]:
    """By local name, of which the first counts; ``attributes``: names and values by turns."""
    plain: dict[str, str] = {}
    for name, value in zip(attributes[::2], attributes[1::2], strict=True):
        if name != "xmlns" and not name.startswith("xmlns:"):
            plain.setdefault(name.rpartition(":")[2], value)
    return plain


def _refuse(*_: object) -> NoReturn:
    raise ValueError("DTDs are not read")
