"""What applying a directory file would change: the file's entries compared with what is stored."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from attrs import Factory, evolve, field, fields, frozen

from smsdaemon.domain.directory_file import (
    ClientEntry,
    ConnectorEntry,
    DirectoryFile,
    ResellerEntry,
    TargetEntry,
)
from smsdaemon.domain.directory_values import quoted
from smsdaemon.domain.model import SenderFormat, TargetKind
from smsdaemon.domain.providers import NO_PROVIDERS, Providers, problems
from smsdaemon.domain.reading import GENERIC
from smsdaemon.errors import ConfigurationError

NOT_STORED = 0
"""The ``id`` of what is yet to be created."""

TargetKey = tuple[str, TargetKind, str]
"""What is unique: ``reseller/client``, kind, name."""

# --- what is stored, or is to be -------------------------------------------------------------


@frozen(kw_only=True)
class ResellerRow:
    id: int
    name: str
    enabled: bool = True

    @property
    def label(self) -> str:
        return f"reseller {self.name}"


@frozen(kw_only=True)
class ClientRow:
    id: int
    reseller: str
    name: str
    enabled: bool = True

    @property
    def path(self) -> str:
        return f"{self.reseller}/{self.name}"

    @property
    def label(self) -> str:
        return f"client {self.path}"


@frozen(kw_only=True)
class TargetRow:
    id: int
    client: str
    kind: TargetKind
    name: str
    url: str = field(repr=False)
    secret: str = field(repr=False)
    subject: str = ""
    enabled: bool = True

    @property
    def key(self) -> TargetKey:
        return (self.client, self.kind, self.name)

    @property
    def label(self) -> str:
        return f"{self.kind} {self.client}/{self.name}"


@frozen(kw_only=True)
class ConnectorRow:
    id: int
    client: str
    number: str
    number_key: str
    target: TargetKey | None = None
    require_token: bool = False
    tokens: frozenset[bytes] = field(default=frozenset(), repr=False)
    sender_format: SenderFormat = "e164"
    providers: tuple[str, ...] = (GENERIC,)
    provider_secrets: tuple[str, ...] = field(default=(), repr=False)
    unsigned: bool = False
    enabled: bool = True

    @property
    def label(self) -> str:
        return f"connector {self.number}"


@frozen(kw_only=True)
class StoredDirectory:
    """Everything that is not removed, by what it is unique by."""

    resellers: Mapping[str, ResellerRow] = Factory(dict)
    clients: Mapping[str, ClientRow] = Factory(dict)
    targets: Mapping[TargetKey, TargetRow] = Factory(dict)
    connectors: Mapping[str, ConnectorRow] = Factory(dict)


# --- the changes -----------------------------------------------------------------------------


class _Row(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def label(self) -> str: ...


R = TypeVar("R", bound=_Row)


@frozen(kw_only=True)
class Change(Generic[R]):
    """One entry whose row is created (``old`` is None) or updated."""

    new: R
    old: R | None = None
    note: str = field(default="", repr=False)
    """May hold a secret that was made."""

    @property
    def line(self) -> str:
        if self.old is None:
            return f"create {self.new.label}{self.note}"
        return f"update {self.new.label}: {', '.join(_changed_keys(self.old, self.new))}"


@frozen(kw_only=True)
class Changes:
    """The difference, with names in place of ids; nothing of it is done yet."""

    resellers: list[Change[ResellerRow]] = Factory(list)
    clients: list[Change[ClientRow]] = Factory(list)
    targets: list[Change[TargetRow]] = Factory(list)
    connectors: list[Change[ConnectorRow]] = Factory(list)
    unchanged: int = 0
    removed_resellers: list[ResellerRow] = Factory(list)
    removed_clients: list[ClientRow] = Factory(list)
    removed_targets: list[TargetRow] = Factory(list)
    removed_connectors: list[ConnectorRow] = Factory(list)

    def all(
        self,
    ) -> Iterator[Change[ResellerRow] | Change[ClientRow] | Change[TargetRow] | Change[ConnectorRow]]:
        yield from self.resellers
        yield from self.clients
        yield from self.targets
        yield from self.connectors


def _changed_keys(old: Any, new: Any) -> list[str]:
    """The keys as the file has them: a connector's target is its acd_group or application."""
    names = [a.name for a in fields(type(old)) if getattr(old, a.name) != getattr(new, a.name)]
    names = ["provider" if name == "providers" else name for name in names]
    if "target" not in names:
        return names
    target = new.target or old.target
    return [target[1] if name == "target" else name for name in names]


def changes(
    file: DirectoryFile,
    stored: StoredDirectory,
    *,
    prune: bool,
    make_secret: Callable[[], str],
    show_secrets: bool,
    providers: Providers = NO_PROVIDERS,
) -> Changes:
    """Compare; raises ConfigurationError where the file names what neither it nor the store has.

    ``providers``: the profiles that are loaded; the generic one is always there.
    """
    return _Comparison(file, stored, prune, make_secret, show_secrets, providers).run()


class _Comparison:
    def __init__(
        self,
        file: DirectoryFile,
        stored: StoredDirectory,
        prune: bool,
        make_secret: Callable[[], str],
        show_secrets: bool,
        providers: Providers,
    ) -> None:
        self._file, self._stored, self._providers = file, stored, providers
        self._make_secret, self._show_secrets = make_secret, show_secrets
        self._prune = prune
        self._problems: list[str] = []
        # What may be named: what the file names, and what is stored and stays.
        self._resellers = self._known({entry.name for entry in file.resellers}, stored.resellers)
        self._clients = self._known({entry.label for entry in file.clients}, stored.clients)
        in_file = {(entry.client, entry.kind, entry.name) for entry in file.targets}
        self._targets = self._known(in_file, stored.targets)

    def _known(self, in_file: Collection[Hashable], stored: Collection[Hashable]) -> Collection[Hashable]:
        return in_file if self._prune else {*in_file, *stored}

    def run(self) -> Changes:
        file, stored = self._file, self._stored
        resellers = [self._reseller(entry) for entry in file.resellers]
        clients = [self._client(entry) for entry in file.clients]
        targets = [change for entry in file.targets if (change := self._target(entry))]
        connectors = [moved for entry in file.connectors if (moved := self._connector(entry))]
        if self._problems:
            raise ConfigurationError(self._problems)
        found = Changes(
            resellers=_changed(resellers),
            clients=_changed(clients),
            targets=_changed(targets),
            connectors=_changed(connectors),
        )
        entries = len(resellers) + len(clients) + len(targets) + len(connectors)
        found = evolve(found, unchanged=entries - sum(1 for _ in found.all()))
        if not self._prune:
            return found
        return evolve(
            found,
            removed_resellers=_left_over(stored.resellers, self._resellers),
            removed_clients=_left_over(stored.clients, self._clients),
            removed_targets=_left_over(stored.targets, self._targets),
            removed_connectors=_left_over(stored.connectors, {entry.number_key for entry in file.connectors}),
        )

    def _wrong(self, table: str, label: str, text: str) -> None:
        self._problems.append(f"{self._file.name}: {table} {quoted(label)}: {text}")

    def _reseller(self, entry: ResellerEntry) -> Change[ResellerRow]:
        old = self._stored.resellers.get(entry.name)
        base = old or ResellerRow(id=NOT_STORED, name=entry.name)
        return Change(old=old, new=evolve(base, enabled=_given(entry.enabled, base.enabled)))

    def _client(self, entry: ClientEntry) -> Change[ClientRow]:
        if entry.reseller not in self._resellers:
            self._wrong("client", entry.label, f"reseller {quoted(entry.reseller)} does not exist")
        old = self._stored.clients.get(entry.label)
        base = old or ClientRow(id=NOT_STORED, reseller=entry.reseller, name=entry.name)
        return Change(old=old, new=evolve(base, enabled=_given(entry.enabled, base.enabled)))

    def _target(self, entry: TargetEntry) -> Change[TargetRow] | None:
        if entry.client not in self._clients:
            self._wrong(entry.kind, entry.label, f"client {quoted(entry.client)} does not exist")
        old = self._stored.targets.get((entry.client, entry.kind, entry.name))
        note, secret, url = "", entry.secret, entry.url
        if old is not None:
            secret, url = _given(secret, old.secret), _given(url, old.url)
        elif secret is None:
            secret = self._make_secret()
            note = f" (secret {secret})" if self._show_secrets else " (a secret will be made)"
        if url is None:
            self._wrong(entry.kind, entry.label, "url is missing")
            return None
        new = TargetRow(
            id=old.id if old else NOT_STORED,
            client=entry.client,
            kind=entry.kind,
            name=entry.name,
            url=url,
            secret=secret,
            subject=_given(entry.subject, old.subject if old else ""),
            enabled=_given(entry.enabled, old.enabled if old else True),
        )
        return Change(old=old, new=new, note=note)

    def _connector(self, entry: ConnectorEntry) -> Change[ConnectorRow] | None:
        old = self._stored.connectors.get(entry.number_key)
        client = entry.client if entry.client is not None or old is None else old.client
        if client is None:
            self._wrong("connector", entry.number, "client is missing")
            return None
        if client not in self._clients:
            self._wrong("connector", entry.number, f"client {quoted(client)} does not exist")
            return None
        # Spelled out, not evolved: a directory may have 100,000 of them.
        base = old or ConnectorRow(
            id=NOT_STORED, client=client, number=entry.number, number_key=entry.number_key
        )
        new = ConnectorRow(
            id=base.id,
            client=client,
            number=entry.number,
            number_key=entry.number_key,
            target=self._connector_target(entry, client, base.target),
            require_token=_given(entry.require_token, base.require_token),
            tokens=_given(entry.tokens, base.tokens),
            sender_format=_given(entry.sender_format, base.sender_format),
            providers=_given(entry.providers, base.providers),
            provider_secrets=_given(entry.provider_secrets, base.provider_secrets),
            unsigned=_given(entry.unsigned, base.unsigned),
            enabled=_given(entry.enabled, base.enabled),
        )
        for text in problems(new.providers, new.provider_secrets, new.unsigned, self._providers):
            self._wrong("connector", entry.number, text)
        return Change(old=old, new=new)

    def _connector_target(
        self, entry: ConnectorEntry, client: str, kept: TargetKey | None
    ) -> TargetKey | None:
        kind: TargetKind = "application" if entry.application else "acd_group"
        name = entry.application or entry.acd_group
        if name:
            target: TargetKey = (client, kind, name)
            if target not in self._targets:
                self._wrong(
                    "connector", entry.number, f"{kind} {quoted(name)} does not exist in client {client}"
                )
            return target
        if entry.application is not None or entry.acd_group is not None:
            return None
        if kept is not None and kept not in self._targets:
            text = f"keeps {kept[1]} {quoted(kept[2])} of client {kept[0]}, which is to be removed"
            self._wrong("connector", entry.number, text)
        return kept


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def _given(value: T | None, otherwise: T) -> T:
    return otherwise if value is None else value


def _changed(candidates: list[Change[R]]) -> list[Change[R]]:
    return [change for change in candidates if change.new != change.old]


def _left_over(stored: Mapping[K, R], named: Collection[Hashable]) -> list[R]:
    return [row for key, row in stored.items() if key not in named]
