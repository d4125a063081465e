"""Named values of a request, and how one of several spellings is chosen among them (contract 3)."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from smsdaemon.errors import MalformedRequest

MAX_FIELDS = 100

Value = tuple[str, str, bytes | None]
"""A text, the charset it was in, and its bytes; None: its bytes can only mean this text."""

Values = dict[bytes, list[Value]]
"""Lower-case name -> its values in the order of the request."""


@frozen
class Names:
    """A field's canonical name and its aliases, in the order in which they are looked up."""

    canonical: str
    aliases: tuple[str, ...] = ()
    max_length: int | None = None
    """Characters, after stripping."""
    wire: tuple[bytes, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        names = (self.canonical, *self.aliases)
        object.__setattr__(self, "wire", tuple(name.encode() for name in names))

    def __str__(self) -> str:
        return f"{self.canonical} (or {', '.join(self.aliases)})" if self.aliases else self.canonical


def check_count(count: int) -> None:
    """Raises MalformedRequest where a request has more fields than it may."""
    if count > MAX_FIELDS:
        raise MalformedRequest(f"more than {MAX_FIELDS} fields")


def first_not_blank(names: Names, sources: Iterable[Values]) -> str | None:
    """The first value with more than blanks in it, as it came; None where there is none.

    Raises MalformedRequest where it is too long.
    """
    for source in sources:
        for name in names.wire:
            for value, _, _ in source.get(name, ()):
                if stripped := value.strip():
                    if names.max_length is not None and len(stripped) > names.max_length:
                        raise MalformedRequest(
                            f"{names.canonical} is longer than {names.max_length} characters"
                        )
                    return value
    return None


def first_not_empty(names: Names, sources: Iterable[Values]) -> Value | None:
    """The first value of at least one character, blanks count.

    Where the field is there but always empty, its first value; None where it is not there.
    """
    empty = None
    for source in sources:
        for name in names.wire:
            for value in source.get(name, ()):
                if value[0]:
                    return value
                empty = empty or value
    return empty
