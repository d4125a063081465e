"""Where in a request a value stands: the small language of profiles, compiled once.

    to                          a field of a form or query, a member of a JSON object, a child element
    data.payload.to[0].number   members of members, an element of an array
    contents[type=text].text    the first element whose member says so (in XML also [@name=text])
    to[*]                       all elements
    service@request_id          an attribute (XML); //content: the first such element wherever it stands
    "a.b".c                     a name with a dot in it (JSON, XML)
    header:X-Kannel-From        a header; body: the body itself; query:key a field of the URL
    request:Type                as the first ones, but in the whole request and not in the batch's entry

In forms and queries a name is taken as it stands, dots too.
"""

from __future__ import annotations

import re
from typing import Literal

from attrs import field, frozen

Place = Literal["entry", "request", "query", "header", "body"]

_MAX_LENGTH = 200
_MAX_STEPS = 16
_PREFIXES: dict[str, Place] = {"header": "header", "query": "query", "request": "request"}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_NAME = r'(?:"(?P<quoted>[^"]+)"|(?P<name>[^.\[\]"@]+))'
_INDEX = r"\[(?P<index>\d{1,4})\]"
_ALL = r"(?P<all>\[\*\])"
_WHERE = r'\[(?P<key>@?[^\[\]="]+)=(?P<value>[^\[\]]*)\]'
_STEP = re.compile(rf"(?:{_NAME}|{_INDEX}|{_ALL}|{_WHERE}|@(?P<attribute>[^.\[\]\"@]+))")


@frozen
class Member:
    """A member of an object, a child of an element."""

    name: str


@frozen
class Index:
    """An element of an array, from 0."""

    n: int


@frozen
class Every:
    """All elements of an array."""


@frozen
class Where:
    """The first element of an array whose member (or attribute, with ``@``) has this text."""

    key: str
    value: str


@frozen
class Attribute:
    """An attribute of an element."""

    name: str


@frozen
class Anywhere:
    """The first element of this name, however deep."""

    name: str


PathStep = Member | Index | Every | Where | Attribute | Anywhere


@frozen
class Selector:
    """One place, compiled."""

    text: str
    """As written in the profile."""
    place: Place
    name: str
    """As a form or a query has it; of a header in lower case."""
    wire: bytes = field(repr=False)
    """The name's bytes."""
    path: tuple[PathStep, ...] = field(repr=False)

    @property
    def several(self) -> bool:
        """Whether it means all elements of an array."""
        return any(isinstance(step, Every) for step in self.path)


def is_header_name(text: str) -> bool:
    """Whether a header can be called that (RFC 9110, 5.6.2)."""
    return _HEADER.fullmatch(text) is not None


def selector(text: str) -> Selector:
    """Compile; raises ValueError, whose text continues a sentence that begins with the key."""
    if not text or len(text) > _MAX_LENGTH:
        raise ValueError(f"must be a selector of 1 to {_MAX_LENGTH} characters")
    if text == "body:":
        return Selector(text, "body", "", b"", ())
    prefix, colon, rest = text.partition(":")
    place = _PREFIXES.get(prefix) if colon else None
    if place is None:
        return Selector(text, "entry", text, text.encode(), path(text))
    if not rest:
        raise ValueError(f'must name something after "{prefix}:"')
    if place == "header":
        if not is_header_name(rest):
            raise ValueError(f'"{rest}" is no name of a header')
        return Selector(text, place, rest.lower(), b"", ())
    return Selector(text, place, rest, rest.encode(), path(rest) if place == "request" else ())


def path(text: str) -> tuple[PathStep, ...]:
    """The steps of a path; raises ValueError."""
    steps: list[PathStep] = []
    position = 0
    if text.startswith("//"):
        match = _STEP.match(text, 2)
        if match is None or not _named(match):
            raise ValueError(f'"{text}" must have a name after "//"')
        steps.append(Anywhere(_named(match)))
        position = match.end()
    while position < len(text):
        if steps and text[position] == ".":
            position += 1
        elif steps and text[position] not in "[@":
            raise ValueError(f'"{text}" is no path at character {position + 1}')
        match = _STEP.match(text, position)
        if match is None:
            raise ValueError(f'"{text}" is no path at character {position + 1}')
        steps.append(_step(match))
        position = match.end()
    if len(steps) > _MAX_STEPS:
        raise ValueError(f'"{text}" has more than {_MAX_STEPS} steps')
    return tuple(steps)


def _named(match: re.Match[str]) -> str:
    return match["quoted"] or match["name"] or ""


def _step(match: re.Match[str]) -> PathStep:
    if name := _named(match):
        return Member(name)
    if match["index"] is not None:
        return Index(int(match["index"]))
    if match["all"] is not None:
        return Every()
    if match["attribute"] is not None:
        return Attribute(match["attribute"])
    return Where(match["key"], match["value"])
