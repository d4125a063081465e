"""Reads the settings file and the environment into one tree that remembers where each value came from."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path

from attrs import Factory, define, frozen

from smsdaemon.settings_values import KEYS, TABLES

PREFIX = "SMSDAEMON_"
FILE_VARIABLE = f"{PREFIX}CONFIG"
IGNORED_PREFIX = f"{PREFIX}TEST_"
"""The test suite's own variables."""

VARIABLES = {PREFIX + key.replace(".", "__").upper(): key for key in KEYS}
BUILT_IN = "built-in defaults"
DEFAULT_STATE_DIR = "var"
DEFAULT_LISTENERS = {
    "http": "tcp:8080:interface=127.0.0.1",
    "https": "tcp:8443:interface=127.0.0.1",
    "admin": "tcp:8081:interface=127.0.0.1",
}
"""Only where there is no file: in a file, a table that is left out is a listener that is off."""


@frozen
class Given:
    """A value as it was written, and by whom."""

    key: str
    value: object
    origin: str
    """The file, or the variable's name."""
    folder: Path
    """Where a relative path starts."""
    from_environment: bool = False
    """The value is the variable's text."""


@define
class Tree:
    """What was given: values by key, and tables of them."""

    origin: str
    """What a key that nobody gave is missing from."""
    complete: bool
    """False: there is a file, and it could not be read."""
    entries: dict[str, Given | dict[str, Given]] = Factory(dict)

    def names(self) -> Set[str]:
        """The tables that are there."""
        return {name for name in self.entries if name in TABLES}

    def add(self, given: Given) -> None:
        """Put a value in its place, also over another."""
        table, _, name = given.key.rpartition(".")
        if not table:
            self.entries[name] = given
        elif isinstance(entries := self.entries.setdefault(table, {}), dict):
            entries[name] = given

    def problem(self, key: str, text: str) -> str:
        """One line: who said it, which key, what is wrong with it."""
        table, _, name = key.partition("[")[0].rpartition(".")
        entries = self.entries.get(table) if table else self.entries
        given = entries.get(name) if isinstance(entries, dict) else entries
        if given is None and isinstance(entries, dict) and table:
            given = next(iter(entries.values()), None)
        return one_line(f"{given.origin if isinstance(given, Given) else self.origin}: {key}: {text}")


def one_line(text: str) -> str:
    """The text with everything a terminal would not print as a character escaped."""
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def read(path: Path | None, environ: Mapping[str, str], cwd: Path) -> tuple[Tree, list[str]]:
    """Everything that was given, the environment over the file, and what is wrong with either."""
    if path is None and environ.get(FILE_VARIABLE):
        path = Path(environ[FILE_VARIABLE])
    problems: list[str] = []
    content: dict[str, object] | None = None
    if path is not None:
        try:
            content = _toml(cwd / path)
        except ValueError as error:
            problems.append(one_line(f"{path}: {error}"))
    tree = Tree(BUILT_IN if path is None else str(path), complete=not problems)
    tree.add(Given("state_dir", DEFAULT_STATE_DIR, BUILT_IN, cwd))
    if path is None or content is None:
        for table, endpoint in DEFAULT_LISTENERS.items():
            tree.add(Given(f"{table}.listen", [endpoint], BUILT_IN, cwd))
    else:
        _add_file(tree, content, str(path), (cwd / path).parent)
    problems += _add_environment(tree, environ, cwd)
    return tree, problems


def _toml(path: Path) -> dict[str, object]:
    """The file's content; a ValueError says in one line why there is none."""
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}; allowed: a readable TOML file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start + 1}; allowed: a TOML file in UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply; allowed: a TOML file as in etc/smsdaemon.toml") from None
    except ValueError as error:
        raise ValueError(f"is not TOML: {error}; allowed: a TOML file as in etc/smsdaemon.toml") from None


def _add_file(tree: Tree, content: Mapping[str, object], origin: str, folder: Path) -> None:
    for name, value in content.items():
        if isinstance(value, dict):
            tree.entries[name] = {key: Given(f"{name}.{key}", v, origin, folder) for key, v in value.items()}
        else:
            tree.entries[name] = Given(name, value, origin, folder)


def _add_environment(tree: Tree, environ: Mapping[str, str], cwd: Path) -> list[str]:
    problems = []
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name == FILE_VARIABLE or name.startswith(IGNORED_PREFIX):
            continue
        if name in VARIABLES:
            tree.add(Given(VARIABLES[name], environ[name], name, cwd, from_environment=True))
        else:
            problems.append(one_line(f"{name}: unknown variable{_nearest(name)}"))
    return problems


def _nearest(name: str) -> str:
    """What to say is allowed instead of an unknown name."""
    like = difflib.get_close_matches(name, [*VARIABLES, FILE_VARIABLE], 1, cutoff=0.8)
    hint = f", perhaps {like[0]}" if like else ""
    return f"{hint}; allowed: {FILE_VARIABLE} and the keys, as in {PREFIX}STATE_DIR, {PREFIX}DATABASE__POOL"


def absolute(given: Given, text: str) -> Path:
    """The path as seen from where it was written; ``text`` may use no ``~``."""
    return Path(os.path.abspath(given.folder / text))
