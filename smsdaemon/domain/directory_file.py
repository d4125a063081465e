"""The directory file (contract 4): TOML text to entries, every problem of it reported at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from attrs import field, frozen

from smsdaemon.domain import directory_values as values
from smsdaemon.domain.directory_values import quoted
from smsdaemon.domain.model import SenderFormat, TargetKind
from smsdaemon.domain.numbers import matching_key
from smsdaemon.errors import ConfigurationError

SCHEMES = frozenset({"http", "https", "log"})
"""The schemes of the backends that come with smsdaemon."""

# In an entry None always means that the key was left out: what is stored stays.


@frozen(kw_only=True)
class ResellerEntry:
    name: str
    enabled: bool | None = None

    @property
    def label(self) -> str:
        return self.name


@frozen(kw_only=True)
class ClientEntry:
    reseller: str
    name: str
    enabled: bool | None = None

    @property
    def label(self) -> str:
        return f"{self.reseller}/{self.name}"


@frozen(kw_only=True)
class TargetEntry:
    kind: TargetKind
    client: str
    """``reseller/client``."""
    name: str
    url: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    subject: str | None = None
    enabled: bool | None = None

    @property
    def label(self) -> str:
        return f"{self.client}/{self.name}"


@frozen(kw_only=True)
class ConnectorEntry:
    number: str
    number_key: str
    client: str | None = None
    acd_group: str | None = None
    """The name, "" for none; so for ``application``. At most one of the two is a name."""
    application: str | None = None
    require_token: bool | None = None
    tokens: frozenset[bytes] | None = field(default=None, repr=False)
    """SHA-256 digests."""
    sender_format: SenderFormat | None = None
    providers: tuple[str, ...] | None = None
    provider_secrets: tuple[str, ...] | None = field(default=None, repr=False)
    unsigned: bool | None = None
    enabled: bool | None = None

    @property
    def label(self) -> str:
        return self.number


@frozen(kw_only=True)
class DirectoryFile:
    """What a file says, sound in itself; whether its names exist is for the store to say."""

    name: str
    """The file's name as the user wrote it, for messages."""
    resellers: tuple[ResellerEntry, ...] = ()
    clients: tuple[ClientEntry, ...] = ()
    targets: tuple[TargetEntry, ...] = ()
    connectors: tuple[ConnectorEntry, ...] = ()


Check = Callable[[object], object]

_RESELLER: dict[str, Check] = {"name": values.name, "enabled": values.boolean}
_CLIENT: dict[str, Check] = {"name": values.name, "reseller": values.name, "enabled": values.boolean}
_TARGET: dict[str, Check] = {
    "client": values.client_path,
    "name": values.name,
    "url": partial(values.url, schemes=SCHEMES),
    "secret": values.secret,
    "subject": values.subject,
    "enabled": values.boolean,
}
_CONNECTOR: dict[str, Check] = {
    "client": values.client_path,
    "number": values.number,
    "acd_group": values.name_or_nothing,
    "application": values.name_or_nothing,
    "require_token": values.boolean,
    "tokens": values.tokens,
    "sender_format": values.sender_format,
    "provider": values.providers,
    "provider_secrets": values.provider_secrets,
    "unsigned": values.boolean,
    "enabled": values.boolean,
}
_TABLES = ("reseller", "client", "acd_group", "application", "connector")


def parse(content: bytes, name: str, schemes: Collection[str] = SCHEMES) -> DirectoryFile:
    """Read a directory file; raises ConfigurationError with one line for each problem.

    ``name`` is the file's name in those lines; ``schemes`` what a target's URL may begin with.
    """
    reader = _Reader(name)
    document = reader.document(content)
    target_checks = _TARGET | {"url": partial(values.url, schemes=schemes)}
    file = DirectoryFile(
        name=name,
        resellers=tuple(
            ResellerEntry(**found) for found in reader.entries(document, "reseller", _RESELLER, ("name",))
        ),
        clients=tuple(
            ClientEntry(**found)
            for found in reader.entries(document, "client", _CLIENT, ("reseller", "name"))
        ),
        targets=tuple(
            TargetEntry(kind=kind, **found)
            for kind in _TARGET_KINDS
            for found in reader.entries(document, kind, target_checks, ("client", "name"))
        ),
        connectors=tuple(
            ConnectorEntry(
                number_key=matching_key(found["number"]), providers=found.pop("provider", None), **found
            )
            for found in reader.entries(document, "connector", _CONNECTOR, ("number",))
        ),
    )
    reader.refuse_repeats(file)
    if reader.problems:
        raise ConfigurationError(reader.problems)
    return file


_TARGET_KINDS: tuple[TargetKind, ...] = ("acd_group", "application")


class _Reader:
    """Collects the problems of one file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.problems: list[str] = []

    def document(self, content: bytes) -> Mapping[str, Any]:
        try:
            document = tomllib.loads(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ConfigurationError([f"{self._name}: is not UTF-8 at byte {error.start}"]) from None
        except (ValueError, RecursionError) as error:  # a ValueError also for an endless integer
            text = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
            raise ConfigurationError([f"{self._name}: is not valid TOML: {text}"]) from None
        for key in document:
            if key not in _TABLES:
                allowed = ", ".join(f"[[{table}]]" for table in _TABLES)
                self.problems.append(
                    f"{self._name}: unknown table or key {quoted(key)}; allowed are {allowed}"
                )
        return document

    def entries(
        self, document: Mapping[str, Any], table: str, checks: Mapping[str, Check], required: tuple[str, ...]
    ) -> list[dict[str, Any]]:
        """The entries of a table as checked values; of a wrong one only what it takes to name it."""
        rows = document.get(table, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.problems.append(f"{self._name}: {table} must be a list of tables: write [[{table}]]")
            return []
        found = (self._entry(table, place, row, checks, required) for place, row in enumerate(rows, 1))
        return [entry for entry in found if entry is not None]

    def _entry(
        self,
        table: str,
        place: int,
        row: dict[str, Any],
        checks: Mapping[str, Check],
        required: tuple[str, ...],
    ) -> dict[str, Any] | None:
        entry: dict[str, Any] = {}
        wrong: list[str] = []
        for key, value in row.items():
            check = checks.get(key)
            if check is None:
                wrong.append(f"unknown key {quoted(key)}; allowed are {', '.join(checks)}")
                continue
            try:
                entry[key] = check(value)
            except ValueError as error:
                wrong.append(f"{key} {error}")
        wrong += [f"{key} is missing" for key in required if key not in row]
        wrong += _wrong_together(table, entry)
        for text in wrong:
            self.problems.append(f"{self._name}: {table} {_label(table, place, row)}: {text}")
        return entry if all(key in entry for key in required) and not _no_number(table, entry) else None

    def refuse_repeats(self, file: DirectoryFile) -> None:
        """One entry for each thing: two could contradict each other."""
        self._refuse_repeats("reseller", [(entry.name, entry.name) for entry in file.resellers])
        self._refuse_repeats("client", [(entry.label, entry.label) for entry in file.clients])
        for kind in _TARGET_KINDS:
            labels = [entry.label for entry in file.targets if entry.kind == kind]
            self._refuse_repeats(kind, [(label, label) for label in labels])
        self._refuse_repeats("connector", [(entry.number_key, entry.number) for entry in file.connectors])

    def _refuse_repeats(self, table: str, keys_and_labels: list[tuple[str, str]]) -> None:
        first: dict[str, str] = {}
        for key, label in keys_and_labels:
            if key not in first:
                first[key] = label
                continue
            same = "" if first[key] == label else f" as {quoted(first[key])}, which is the same number"
            self.problems.append(f"{self._name}: {table} {quoted(label)}: is in the file twice{same}")


def _wrong_together(table: str, entry: dict[str, Any]) -> list[str]:
    if table != "connector":
        return []
    wrong = []
    if entry.get("acd_group") and entry.get("application"):
        wrong.append("acd_group and application are both given; at most one can be")
    if _no_number(table, entry):
        wrong.append("number has nothing to compare")
    return wrong


def _no_number(table: str, entry: dict[str, Any]) -> bool:
    return table == "connector" and "number" in entry and not matching_key(entry["number"])


def _label(table: str, place: int, row: dict[str, Any]) -> str:
    """How a message calls an entry: by its name where it has one, else by its place."""
    keys = {"reseller": ("name",), "client": ("reseller", "name"), "connector": ("number",)}
    parts = [row.get(key) for key in keys.get(table, ("client", "name"))]
    if not all(isinstance(part, str) and part for part in parts):
        return f"no. {place}"
    return quoted("/".join(map(str, parts)))
