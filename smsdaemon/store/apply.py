"""Applies a directory file to what is stored: all of it in one transaction, or nothing."""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smsdaemon.domain.directory_changes import (
    Changes,
    ClientRow,
    ConnectorRow,
    ResellerRow,
    TargetRow,
    changes,
)
from smsdaemon.domain.directory_file import DirectoryFile
from smsdaemon.domain.directory_values import SECRET_PREFIX
from smsdaemon.domain.providers import NO_PROVIDERS, Providers
from smsdaemon.errors import ApplyRefused
from smsdaemon.store import directory_queries as queries
from smsdaemon.store.directory_rows import read_directory
from smsdaemon.store.directory_writer import DirectoryWriter
from smsdaemon.store.pool import Pool, Run

_LOCK = 0x736D7361  # "smsa"; migrate.py has another


@frozen(kw_only=True)
class Applied:
    """What a directory file has changed, or, on a dry run, would change."""

    lines: tuple[str, ...] = field(repr=False)
    """One for each change; the only place where secrets that were made are ever shown."""
    created: int
    updated: int
    unchanged: int
    removed: int | None
    """None where removing was not asked for."""

    @property
    def counts(self) -> str:
        """The last line of the output."""
        text = f"create {self.created}, update {self.updated}, unchanged {self.unchanged}"
        return text if self.removed is None else f"{text}, remove {self.removed}"


class _DryRun(Exception):
    """Takes the transaction back; not an error."""

    def __init__(self, applied: Applied) -> None:
        super().__init__()
        self.applied = applied


def apply(
    pool: Pool,
    file: DirectoryFile,
    *,
    dry_run: bool,
    prune: bool,
    force: bool,
    now: datetime,
    providers: Providers = NO_PROVIDERS,
) -> Deferred[Applied]:
    """Make the store say what the file says; ``now`` (aware) is when things were removed.

    ``providers``: the profiles that connectors can have besides the generic one.

    Fails with ConfigurationError where the file names what does not exist, ApplyRefused where
    something would be removed for which deliveries are pending and not ``force``, StoreUnavailable.
    Compares in one go: a directory of 100,000 connectors keeps the reactor busy for about a second.
    """

    async def interaction(run: Run) -> Applied:
        await run(queries.NO_TIMEOUTS)
        await run(queries.LOCK, {"lock": _LOCK})
        stored = await read_directory(run)
        found = changes(
            file,
            stored,
            prune=prune,
            make_secret=_make_secret,
            show_secrets=not dry_run,
            providers=providers,
        )
        dead = await _clear_the_way(run, found, force=force, now=now)
        await DirectoryWriter(run, stored).write(found, now)
        applied = _applied(found, dead, prune=prune)
        if dry_run:
            raise _DryRun(applied)
        return applied

    return pool.transaction(interaction).addErrback(_of_dry_run)


def _of_dry_run(failure: Failure) -> Applied:
    failure.trap(_DryRun)
    return cast(_DryRun, failure.value).applied


def _make_secret() -> str:
    return SECRET_PREFIX + b64encode(secrets.token_bytes(32)).decode()


# --- removing --------------------------------------------------------------------------------


async def _clear_the_way(run: Run, found: Changes, *, force: bool, now: datetime) -> dict[str, int]:
    """Refuse, or make dead, what is pending for what goes; the counts, by label of what goes."""
    connectors = [row.id for row in found.removed_connectors]
    targets = [row.id for row in found.removed_targets]
    if not connectors and not targets:
        return {}
    if force:
        await run(queries.HOLD_DELIVERIES, {"connectors": connectors, "targets": targets})
    by_connector: dict[int, int] = dict(await run(queries.PENDING_BY_CONNECTOR, {"ids": connectors}))
    by_target: dict[int, int] = dict(await run(queries.PENDING_BY_TARGET, {"ids": targets}))
    pending = {row.label: by_connector[row.id] for row in found.removed_connectors if row.id in by_connector}
    pending |= {row.label: by_target[row.id] for row in found.removed_targets if row.id in by_target}
    if pending and not force:
        raise ApplyRefused(
            [
                f"{label} has {_deliveries(count)} pending; --force makes them dead"
                for label, count in pending.items()
            ]
        )
    if pending:
        await run(queries.BURY_DELIVERIES, {"connectors": connectors, "targets": targets, "now": now})
    return pending


def _deliveries(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count} deliveries"


def _applied(found: Changes, dead: Mapping[str, int], *, prune: bool) -> Applied:
    removed: list[ConnectorRow | TargetRow | ClientRow | ResellerRow] = [
        *found.removed_connectors,
        *found.removed_targets,
        *found.removed_clients,
        *found.removed_resellers,
    ]
    buried = {label: f" ({_deliveries(count)} made dead)" for label, count in dead.items()}
    changed = list(found.all())
    created = sum(change.old is None for change in changed)
    return Applied(
        lines=(
            *(change.line for change in changed),
            *(f"remove {row.label}{buried.get(row.label, '')}" for row in removed),
        ),
        created=created,
        updated=len(changed) - created,
        unchanged=found.unchanged,
        removed=len(removed) if prune else None,
    )
