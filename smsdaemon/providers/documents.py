"""The body formats that profiles read, each as a Document whose values are found by selectors.

All are bounded: by the body's size, fields.MAX_FIELDS, and what the parsers refuse (deep nesting, entities
and DTDs). What cannot be parsed raises MalformedRequest.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, Protocol
from xml.etree.ElementTree import Element

from smsdaemon.domain.forms import FormPairs, form_pairs, pair_count
from smsdaemon.domain.reading import MAX_ENTRIES
from smsdaemon.domain.text import bytes_again, decode, decode_reversibly, storable
from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.fields import Value, Values, check_count
from smsdaemon.providers.selectors import Anywhere, Attribute, Every, Index, Member, PathStep, Selector, Where
from smsdaemon.providers.xml_root import xml_root


class Document(Protocol):
    """Where values are found."""

    def value(self, wanted: Selector) -> Value | None:
        """The value; None where there is none. An empty one is a value."""
        ...

    def every_value(self, wanted: Selector) -> list[Value]:
        """All that a selector with ``[*]`` means, at most MAX_ENTRIES."""
        ...

    def entries(self, batch: tuple[PathStep, ...]) -> list[Document] | None:
        """The entries of a batch; None where the path leads to no list."""
        ...


def bounded(entries: Sequence[Any]) -> None:
    """Raises MalformedRequest for a batch that is too long."""
    if len(entries) > MAX_ENTRIES:
        raise MalformedRequest(f"more than {MAX_ENTRIES} SMS in one request")


# --- pairs: forms and queries ------------------------------------------------------------------


class Pairs:
    """A form over a query: the form's values count first."""

    __slots__ = ("_last", "_sources")

    def __init__(self, sources: Sequence[Values], *, last: bool) -> None:
        """``last``: of repeated names the last value counts, else the first that is not empty."""
        self._sources, self._last = sources, last

    def value(self, wanted: Selector) -> Value | None:
        empty = None
        for source in self._sources:
            values = source.get(wanted.wire)
            if values is None:
                continue
            for value in values[-1:] if self._last else values:
                if value[0]:
                    return value
                empty = empty or value
        return empty

    def every_value(self, wanted: Selector) -> list[Value]:
        found = next((source[wanted.wire] for source in self._sources if wanted.wire in source), [])
        bounded(found)
        return found

    def entries(self, batch: tuple[PathStep, ...]) -> list[Document] | None:
        return None


def read_pairs(
    raw: bytes, wanted: Collection[bytes], charset: str | None, separator: bytes
) -> tuple[Values, int]:
    """As form.read_form(), but names are compared as they are: some differ in case only."""
    if not raw:
        return {}, 0
    count = pair_count(raw, separator)
    check_count(count)
    return values_of(form_pairs(raw, separator), wanted, charset), count


def values_of(pairs: FormPairs, wanted: Collection[bytes], charset: str | None) -> Values:
    """The values of the wanted names; a name without an equals sign has an empty one."""
    values: Values = {}
    for name, _, value in pairs:
        if name in wanted:
            values.setdefault(name, []).append((*decode(value, charset), value))
    return values


# --- JSON ---------------------------------------------------------------------------------------


class JsonDocument:
    """A value of JSON; numbers count as the text they were written in, null as absent."""

    __slots__ = ("_ascii", "_encoding", "node")

    def __init__(self, node: Any, encoding: str, ascii: bool) -> None:
        self.node, self._encoding, self._ascii = node, encoding, ascii

    def value(self, wanted: Selector) -> Value | None:
        node = self.node
        for step in wanted.path:
            node = _json_step(node, step)
            if node is None:
                return None
        return self._text(node)

    def every_value(self, wanted: Selector) -> list[Value]:
        nodes = [self.node]
        for step in wanted.path:
            if isinstance(step, Every):
                nodes = [inner for node in nodes if isinstance(node, list) for inner in node]
                bounded(nodes)
            else:
                nodes = [inner for node in nodes if (inner := _json_step(node, step)) is not None]
        return [value for node in nodes if (value := self._text(node)) is not None]

    def entries(self, batch: tuple[PathStep, ...]) -> list[Document] | None:
        node = self.node
        for step in batch:
            node = _json_step(node, step)
        if not isinstance(node, list):
            return None
        bounded(node)
        return [JsonDocument(entry, self._encoding, self._ascii) for entry in node]

    def _text(self, node: Any) -> Value | None:
        if isinstance(node, bool):
            return ("true" if node else "false"), self._encoding, None
        if not isinstance(node, str):
            return None
        if self._ascii:
            return storable(node), self._encoding, None
        raw = bytes_again(node, self._encoding)
        return (storable(node), self._encoding, None) if raw is None else (*decode(raw, self._encoding), raw)


def _json_step(node: Any, step: PathStep) -> Any:
    if isinstance(step, Member):
        return node.get(step.name) if isinstance(node, dict) else None
    if isinstance(step, Index):
        return node[step.n] if isinstance(node, list) and step.n < len(node) else None
    if isinstance(step, Where) and isinstance(node, list):
        for entry in node:
            if isinstance(entry, dict) and entry.get(step.key) == step.value:
                return entry
    return None


def read_json(raw: bytes, charset: str | None) -> JsonDocument:
    """Any JSON value."""
    text, encoding = decode_reversibly(raw, charset)
    try:
        parsed = json.loads(
            # NUL within a string would be a syntax error here, where elsewhere it becomes U+FFFD.
            text.removeprefix("\ufeff").replace("\0", "\ufffd"),
            # Text as it stands: int() of many digits fails, float() changes what was written.
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
        )
    # RecursionError: thousands of brackets.
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not valid JSON") from error
    return JsonDocument(parsed, encoding, raw.isascii() and len(raw) == len(text))


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# --- XML ----------------------------------------------------------------------------------------


class XmlDocument:
    """An element; names have no namespace (xml_root.py)."""

    __slots__ = ("_element", "_encoding")

    def __init__(self, element: Element, encoding: str) -> None:
        self._element, self._encoding = element, encoding

    def value(self, wanted: Selector) -> Value | None:
        found = self._find(wanted.path)
        if found is None:
            return None
        text = found if isinstance(found, str) else "".join(found.itertext())
        return storable(text), self._encoding, None

    def every_value(self, wanted: Selector) -> list[Value]:
        elements = [self._element]
        for step in wanted.path:
            if isinstance(step, Every):
                continue
            elements = [e for element in elements for e in _steps(element, step) if isinstance(e, Element)]
            bounded(elements)
        return [(storable("".join(e.itertext())), self._encoding, None) for e in elements]

    def entries(self, batch: tuple[PathStep, ...]) -> list[Document] | None:
        """All children of the last step's name."""
        parent = self._find(batch[:-1])
        if parent is None or isinstance(parent, str):
            return None
        found = [e for e in _steps(parent, batch[-1]) if isinstance(e, Element)] if batch else []
        bounded(found)
        return [XmlDocument(e, self._encoding) for e in found] or None

    def _find(self, path: tuple[PathStep, ...]) -> Element | str | None:
        element: Element | str = self._element
        candidates: list[Element | str] = [element]
        for step in path:
            if isinstance(step, Index):
                candidates = candidates[step.n : step.n + 1]
            elif isinstance(step, Where):
                candidates = [e for e in candidates if isinstance(e, Element) and _says(e, step)]
            elif not candidates or isinstance(candidates[0], str):
                return None
            else:
                candidates = _steps(candidates[0], step)
        return candidates[0] if candidates else None


def _steps(element: Element, step: PathStep) -> list[Element | str]:
    if isinstance(step, Member):
        children: list[Element | str] = [child for child in element if child.tag == step.name]
        return children
    if isinstance(step, Attribute):
        text = element.get(step.name)
        return [] if text is None else [text]
    if isinstance(step, Anywhere):
        found = next((inner for inner in element.iter() if inner.tag == step.name), None)
        return [] if found is None else [found]
    return []


def _says(element: Element, where: Where) -> bool:
    if where.key.startswith("@"):
        return element.get(where.key[1:]) == where.value
    return any(child.tag == where.key and child.text == where.value for child in element)


def read_xml(raw: bytes, charset: str | None) -> XmlDocument:
    """The root element; without DTD, entities and whatever else makes little into much."""
    return XmlDocument(*xml_root(raw, charset))
