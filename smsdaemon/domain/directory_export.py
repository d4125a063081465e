"""The stored directory as a directory file; applying it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from smsdaemon.domain.directory_changes import ConnectorRow, StoredDirectory, TargetRow
from smsdaemon.domain.directory_values import HASH_PREFIX, quoted
from smsdaemon.domain.reading import GENERIC

_HEAD = "# Written by `smsdaemon export`: tokens are hashes, and secrets are left out.\n"


def render(directory: StoredDirectory) -> Iterator[str]:
    """The file, entry by entry: required keys, and those that differ from their default."""
    yield _HEAD
    for _, reseller in sorted(directory.resellers.items()):
        yield _entry("reseller", [("name", quoted(reseller.name)), *_disabled(reseller.enabled)])
    for _, client in sorted(directory.clients.items()):
        keys = [("name", quoted(client.name)), ("reseller", quoted(client.reseller))]
        yield _entry("client", [*keys, *_disabled(client.enabled)])
    for _, target in sorted(directory.targets.items(), key=_kind_first):
        yield _entry(target.kind, _target_keys(target))
    for connector in sorted(directory.connectors.values(), key=lambda c: (c.client, c.number_key)):
        yield _entry("connector", _connector_keys(connector))


def _kind_first(item: tuple[tuple[str, str, str], TargetRow]) -> tuple[str, str, str]:
    client, kind, name = item[0]
    return (kind, client, name)


def _entry(table: str, keys: list[tuple[str, str]]) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in keys)
    return f"\n[[{table}]]\n{lines}"


def _disabled(enabled: bool) -> list[tuple[str, str]]:
    return [] if enabled else [("enabled", "false")]


def _target_keys(target: TargetRow) -> list[tuple[str, str]]:
    keys = [("client", quoted(target.client)), ("name", quoted(target.name)), ("url", quoted(target.url))]
    if target.subject:
        keys.append(("subject", quoted(target.subject)))
    return keys + _disabled(target.enabled)


def _connector_keys(connector: ConnectorRow) -> list[tuple[str, str]]:
    keys = [("client", quoted(connector.client)), ("number", quoted(connector.number))]
    # A target of another client cannot be written in the format; left out, it is kept.
    if connector.target is not None and connector.target[0] == connector.client:
        keys.append((connector.target[1], quoted(connector.target[2])))
    if connector.require_token:
        keys.append(("require_token", "true"))
    if connector.tokens:
        hashes = ", ".join(quoted(HASH_PREFIX + digest.hex()) for digest in sorted(connector.tokens))
        keys.append(("tokens", f"[{hashes}]"))
    if connector.sender_format != "e164":
        keys.append(("sender_format", quoted(connector.sender_format)))
    if connector.providers != (GENERIC,):
        names = ", ".join(map(quoted, connector.providers))
        keys.append(("provider", names if len(connector.providers) == 1 else f"[{names}]"))
    if connector.unsigned:
        keys.append(("unsigned", "true"))
    return keys + _disabled(connector.enabled)
