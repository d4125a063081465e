"""Writes changes of the directory: ids in place of names, level by level, rows in bulk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import asdict

from smsdaemon.domain.directory_changes import Change, Changes, ConnectorRow, StoredDirectory
from smsdaemon.store import directory_queries as queries
from smsdaemon.store.driver import Rows
from smsdaemon.store.pool import Run

_ROWS_AT_ONCE = 10_000

Record = Mapping[str, object]


class DirectoryWriter:
    """Used for one transaction."""

    def __init__(self, run: Run, stored: StoredDirectory) -> None:
        self._run = run
        self._resellers = {row.name: row.id for row in stored.resellers.values()}
        self._clients = {row.path: row.id for row in stored.clients.values()}
        self._targets = {key: row.id for key, row in stored.targets.items()}

    async def write(self, found: Changes, now: datetime) -> None:
        """Do what was found; ``now`` (aware) is when things were removed."""
        await self._write_resellers(found)
        await self._write_clients(found)
        await self._write_targets(found)
        await self._write_connectors(found)
        await self._remove(queries.REMOVE_CONNECTORS, found.removed_connectors, now)
        await self._remove(queries.REMOVE_TARGETS, found.removed_targets, now)
        await self._remove(queries.REMOVE_CLIENTS, found.removed_clients, now)
        await self._remove(queries.REMOVE_RESELLERS, found.removed_resellers, now)

    async def _write_resellers(self, found: Changes) -> None:
        rows = [asdict(change.new) for change in found.resellers]
        created = await self._send(queries.CREATE_RESELLERS, queries.UPDATE_RESELLERS, found.resellers, rows)
        self._resellers |= dict(created)

    async def _write_clients(self, found: Changes) -> None:
        rows = [
            asdict(change.new) | {"reseller_id": self._resellers[change.new.reseller]}
            for change in found.clients
        ]
        created = await self._send(queries.CREATE_CLIENTS, queries.UPDATE_CLIENTS, found.clients, rows)
        names = {id_: name for name, id_ in self._resellers.items()}
        self._clients |= {f"{names[reseller_id]}/{name}": id_ for reseller_id, name, id_ in created}

    async def _write_targets(self, found: Changes) -> None:
        rows = [
            asdict(change.new) | {"client_id": self._clients[change.new.client]} for change in found.targets
        ]
        created = await self._send(queries.CREATE_TARGETS, queries.UPDATE_TARGETS, found.targets, rows)
        paths = {id_: path for path, id_ in self._clients.items()}
        self._targets |= {(paths[client_id], kind, name): id_ for client_id, kind, name, id_ in created}

    async def _write_connectors(self, found: Changes) -> None:
        changed = found.connectors
        rows = [self._connector(change.new) for change in changed]
        created = await self._send(queries.CREATE_CONNECTORS, queries.UPDATE_CONNECTORS, changed, rows)
        ids: dict[str, int] = dict(created)
        await self._bulk(queries.DROP_TOKENS, list(_tokens_gone(found)))
        await self._bulk(queries.ADD_TOKENS, list(_tokens_come(found, ids)))

    def _connector(self, row: ConnectorRow) -> Record:
        return {
            "id": row.id,
            "client_id": self._clients[row.client],
            "number": row.number,
            "number_key": row.number_key,
            "target_id": None if row.target is None else self._targets[row.target],
            "require_token": row.require_token,
            "sender_format": row.sender_format,
            "providers": row.providers,
            "provider_secrets": row.provider_secrets,
            "unsigned": row.unsigned,
            "enabled": row.enabled,
        }

    async def _send(
        self, create: str, update: str, changed: Sequence[Change[Any]], rows: Sequence[Record]
    ) -> Rows:
        pairs = list(zip(changed, rows, strict=True))
        await self._bulk(update, [row for change, row in pairs if change.old is not None])
        return await self._bulk(create, [row for change, row in pairs if change.old is None])

    async def _bulk(self, sql: str, rows: Sequence[Record]) -> Rows:
        """Nothing is sent for no rows: a statement notifies, whatever it touches."""
        returned: Rows = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            document = json.dumps(rows[start : start + _ROWS_AT_ONCE])
            returned += await self._run(sql, {"rows": document})
        return returned

    async def _remove(self, sql: str, gone: Sequence[Any], now: datetime) -> None:
        if gone:
            await self._run(sql, {"ids": [row.id for row in gone], "now": now})


def _tokens_gone(found: Changes) -> Iterator[Record]:
    for change in found.connectors:
        if change.old is not None:
            yield from _token_records(change.old.id, change.old.tokens - change.new.tokens)
    for row in found.removed_connectors:
        yield from _token_records(row.id, row.tokens)


def _tokens_come(found: Changes, created: Mapping[str, int]) -> Iterator[Record]:
    for change in found.connectors:
        if change.old is None:
            yield from _token_records(created[change.new.number_key], change.new.tokens)
        else:
            yield from _token_records(change.old.id, change.new.tokens - change.old.tokens)


def _token_records(connector_id: int, hashes: frozenset[bytes]) -> Iterator[Record]:
    return ({"connector_id": connector_id, "hash": digest.hex()} for digest in hashes)
