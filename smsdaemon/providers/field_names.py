"""The names of the fields in a request: its shape, which says nothing of any value (drift.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from smsdaemon.domain.forms import unescaped
from smsdaemon.domain.text import charset_label
from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.content_type import NO_TYPE, content_type
from smsdaemon.providers.xml_root import xml_root

MAX_NAMES = 100
"""Of one request; what comes after is not looked at."""
_MAX_DEPTH = 4
_MAX_NODES = 2000
_NAME = re.compile(r"[A-Za-z_@][A-Za-z0-9_.:@\[\]-]{0,63}")
_DIGITS = re.compile(r"\d{5}")
"""May be a piece of a number: no name has that."""
_FALLBACK = "windows-1252"


def field_names(query: bytes, kind: str, body: bytes) -> frozenset[str]:
    """All of the query and of the body whose Content-Type is ``kind``; never fails.

    Members of JSON and XML as in ``data.payload.to[].number``. What does not look like a name is left out.
    """
    found: set[str] = set()
    for name in _names(query, kind, body):
        if len(found) == MAX_NAMES:
            break
        if _NAME.fullmatch(name) and not _DIGITS.search(name):
            found.add(name)
    return frozenset(found)


def fell_back(encoding: str, kind: str) -> bool:
    """Whether a text was read as windows-1252 because it was no UTF-8, and nothing said what it was."""
    if encoding != _FALLBACK:
        return False
    charset = content_type(kind).charset if kind else None
    return charset is None or charset_label(charset) != _FALLBACK


def _names(query: bytes, kind: str, body: bytes) -> Iterator[str]:
    yield from _of_pairs(query)
    given = content_type(kind) if kind else NO_TYPE
    declared = given.type
    try:
        if declared.endswith("json") or body[:1] in (b"{", b"["):
            yield from _of_json(json.loads(body))
        elif declared.endswith("xml") or body[:1] == b"<":
            yield from _of_xml(xml_root(body, given.charset)[0])
        elif declared == "multipart/form-data":
            yield from (name.decode("latin-1") for name in re.findall(rb'; ?name="?([^";\r\n]{1,64})', body))
        elif declared in ("", "application/x-www-form-urlencoded"):
            yield from _of_pairs(body)
    # Whatever it is: it was read by somebody who knows better, and this is only about names.
    except (ValueError, RecursionError, MalformedRequest):
        return


def _of_pairs(raw: bytes) -> Iterator[str]:
    for pair in raw.split(b"&"):
        name, equals, _ = pair.partition(b"=")
        # Without an equals sign it may be the rest of a text whose & was not escaped.
        if equals:
            yield unescaped(name).decode("latin-1")


def _of_json(document: Any) -> Iterator[str]:
    waiting: list[tuple[str, Any, int]] = [("", document, 0)]
    for _ in range(_MAX_NODES):
        if not waiting:
            return
        path, node, depth = waiting.pop()
        if isinstance(node, list):
            waiting += [(f"{path}[]" if path else "", entry, depth) for entry in node[:20]]
        elif isinstance(node, dict) and depth < _MAX_DEPTH:
            for name, inner in node.items():
                waiting.append((f"{path}.{name}" if path else name, inner, depth + 1))
        elif path:
            yield path


def _of_xml(root: Element) -> Iterator[str]:
    waiting: list[tuple[str, Element, int]] = [("", root, 0)]
    for _ in range(_MAX_NODES):
        if not waiting:
            return
        path, element, depth = waiting.pop()
        yield from (f"{path}@{name}" for name in element.attrib)
        children = list(element)
        if not children and path:
            yield path
        if depth < _MAX_DEPTH:
            for child in children[:100]:
                waiting.append((f"{path}.{child.tag}" if path else child.tag, child, depth + 1))
