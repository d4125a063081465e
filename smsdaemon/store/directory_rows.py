"""Reads the stored directory, in slices small enough for the reactor to breathe in between."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred

from smsdaemon.domain.directory_changes import (
    ClientRow,
    ConnectorRow,
    ResellerRow,
    StoredDirectory,
    TargetKey,
    TargetRow,
)
from smsdaemon.domain.reading import GENERIC
from smsdaemon.store import directory_queries as queries
from smsdaemon.store.driver import Rows
from smsdaemon.store.pool import Pool, Run

HASH_BYTES = 32
_GENERIC = (GENERIC,)
_NONE: tuple[str, ...] = ()


async def slices(run: Run, declare: str) -> AsyncIterator[Rows]:
    """What the cursor holds that ``declare`` makes, some rows at a time; one such at once."""
    await run(declare)
    while rows := await run(queries.FETCH):
        yield rows
    await run(queries.CLOSE)


def token_hashes(joined: memoryview | None) -> frozenset[bytes]:
    """Take apart what CONNECTORS has put together."""
    if joined is None:
        return frozenset()
    return frozenset(bytes(joined[start : start + HASH_BYTES]) for start in range(0, len(joined), HASH_BYTES))


def stored_directory(pool: Pool) -> Deferred[StoredDirectory]:
    """The directory as `smsdaemon export` writes it; fails with StoreUnavailable."""

    async def interaction(run: Run) -> StoredDirectory:
        await run(queries.CONSISTENT_READ)
        return await read_directory(run)

    return pool.transaction(interaction)


async def read_directory(run: Run) -> StoredDirectory:
    """Everything that is not removed, within the caller's transaction."""
    resellers: dict[str, ResellerRow] = {}
    async for rows in slices(run, queries.RESELLERS):
        for id_, name, enabled in rows:
            resellers[name] = ResellerRow(id=id_, name=name, enabled=enabled)
    clients: dict[int, ClientRow] = {}
    async for rows in slices(run, queries.CLIENTS):
        for id_, reseller, name, enabled, _ in rows:
            clients[id_] = ClientRow(id=id_, reseller=reseller, name=name, enabled=enabled)
    paths = {id_: client.path for id_, client in clients.items()}
    targets = await _targets(run, paths)
    return StoredDirectory(
        resellers=resellers,
        clients={client.path: client for client in clients.values()},
        targets=targets,
        connectors=await _connectors(run, paths, {target.id: key for key, target in targets.items()}),
    )


async def _targets(run: Run, paths: dict[int, str]) -> dict[TargetKey, TargetRow]:
    targets: dict[TargetKey, TargetRow] = {}
    async for rows in slices(run, queries.TARGETS):
        for id_, client_id, kind, name, url, secret, subject, enabled in rows:
            target = TargetRow(
                id=id_,
                client=paths[client_id],
                kind=kind,
                name=name,
                url=url,
                secret=secret,
                subject=subject,
                enabled=enabled,
            )
            targets[target.key] = target
    return targets


async def _connectors(
    run: Run, paths: dict[int, str], targets: dict[int, TargetKey]
) -> dict[str, ConnectorRow]:
    connectors: dict[str, ConnectorRow] = {}
    async for rows in slices(run, queries.CONNECTORS):
        for id_, client_id, number, key, target_id, require_token, sender_format, enabled, *more in rows:
            hashes, providers, secrets, unsigned = more
            connectors[key] = ConnectorRow(
                id=id_,
                client=paths[client_id],
                number=number,
                number_key=key,
                target=targets.get(target_id),
                require_token=require_token,
                tokens=token_hashes(hashes),
                sender_format=sender_format,
                providers=_GENERIC if providers is None else tuple(providers),
                provider_secrets=_NONE if secrets is None else tuple(secrets),
                unsigned=unsigned,
                enabled=enabled,
            )
    return connectors
