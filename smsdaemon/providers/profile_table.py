"""A table of a profile's TOML, read key by key; every problem is collected with its dotted key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}


class Problems:
    """What is wrong with one file, a line each: file, key, what is wrong, what is allowed."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: list[str] = []

    def add(self, key: str, text: str) -> None:
        line = f"{self.file}: {key}: {text}" if key else f"{self.file}: {text}"
        self.lines.append("".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in line))


class Table:
    """One table. What was not asked for when it is closed is an unknown key."""

    def __init__(self, content: Mapping[str, Any], key: str, problems: Problems) -> None:
        self._content, self._key, self._problems = content, key, problems
        self._asked: list[str] = []

    def has(self, key: str) -> bool:
        return key in self._content

    def path(self, key: str) -> str:
        """The dotted key."""
        return f"{self._key}.{key}" if self._key else key

    def wrong(self, key: str, text: str) -> None:
        self._problems.add(self.path(key) if key else self._key, text)

    def close(self, also: Collection[str] = ()) -> None:
        """Report what nobody has asked for."""
        known = [*self._asked, *also]
        for key in self._content:
            if key not in known:
                self.wrong(key, f"unknown key; allowed: {', '.join(sorted(set(known)))}")

    # --- values --------------------------------------------------------------------------------

    def raw(self, key: str) -> Any:
        """Whatever is there; None for nothing."""
        self._asked.append(key)
        return self._content.get(key)

    def value(self, key: str, wanted: type[T], default: T, allowed: str = "") -> T:
        found = self.raw(key)
        if found is None:
            return default
        if type(found) is not wanted:
            self.wrong(key, f"is {_kind(found)}; allowed: {allowed or _KINDS[wanted]}")
            return default
        return found

    def made(self, key: str, make: Callable[[str], T], default: T, allowed: str = "a string") -> T:
        """What ``make`` makes of a string; its ValueError is the rest of a sentence."""
        text = self.value(key, str, "", allowed)
        if key not in self._content or not isinstance(self._content[key], str):
            return default
        try:
            return make(text)
        except ValueError as error:
            self.wrong(key, str(error))
            return default

    def choice(self, key: str, choices: Collection[str], default: Any) -> Any:
        found = self.value(key, str, default, _one_of(choices))
        if found is not default and found not in choices:
            self.wrong(key, f'"{found}" is not allowed; allowed: {_one_of(choices)}')
            return default
        return found

    def strings(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of strings; one alone may stand without brackets."""
        found = self.raw(key)
        if found is None:
            return default
        if isinstance(found, str):
            return (found,)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            self.wrong(key, f"is {_kind(found)}; allowed: a list of strings")
            return default
        return tuple(found)

    def table(self, key: str) -> Table | None:
        found = self.raw(key)
        if found is None:
            return None
        if not isinstance(found, dict):
            self.wrong(key, f"is {_kind(found)}; allowed: the table [{self.path(key)}]")
            return None
        return Table(found, self.path(key), self._problems)

    def tables(self, key: str) -> list[Table]:
        """A list of tables, numbered from 0 in messages."""
        found = self.raw(key)
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            self.wrong(key, f"is {_kind(found)}; allowed: tables [[{self.path(key)}]]")
            return []
        return [Table(entry, f"{self.path(key)}[{n}]", self._problems) for n, entry in enumerate(found)]

    def one_or_several(self, key: str) -> list[Table]:
        """A table [key], or tables [[key]]."""
        if isinstance(self._content.get(key), list):
            return self.tables(key)
        found = self.table(key)
        return [] if found is None else [found]

    def unasked(self) -> list[str]:
        """The keys that nobody has asked for."""
        return [key for key in self._content if key not in self._asked]

    def names(self) -> list[str]:
        return list(self._content)

    def sub(self, content: Mapping[str, Any], key: str) -> Table:
        """A table that stands where a value may stand too."""
        return Table(content, self.path(key), self._problems)


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")


def _one_of(choices: Collection[str]) -> str:
    return ", ".join(f'"{choice}"' for choice in choices)
