"""`smsdaemon status`: the daemon and its workers, the journal, the queue, and the targets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from attrs import asdict, frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text
from twisted.internet.defer import TimeoutError, ensureDeferred

from smsdaemon import drift_keeper
from smsdaemon.cli.session import (
    Failed,
    Reactor,
    config_option,
    json_option,
    read_settings,
    run,
    usable_database,
)
from smsdaemon.errors import StoreUnavailable
from smsdaemon.log import printable
from smsdaemon.settings import Settings
from smsdaemon.status_file import StatusFile
from smsdaemon.store.breaker_states import BreakerState, breaker_states
from smsdaemon.store.support import (
    QueueState,
    TargetState,
    queue_state,
    schema_state,
    target_states,
)

AWAY_SECONDS = 2.0

Told = dict[str, Any] | None
"""What the running daemon says of itself; None: there is none."""


@frozen
class _Stored:
    """What the database says."""

    schema: int | None
    queue: QueueState
    targets: list[TargetState]
    breakers: list[BreakerState]


@click.command()
@config_option
@click.option("--acknowledge", is_flag=True, help="Take the requests that have changed (drift) for normal.")
@json_option
def status(config: Path | None, acknowledge: bool, as_json: bool) -> None:
    """Show how things stand: the daemon, its workers and journal, the queue, its oldest delivery, targets.

    What the daemon says of itself is shown also while PostgreSQL is away. With --acknowledge what is shown
    as drift is normal a second later.
    """

    async def work(reactor: Reactor) -> None:
        settings = read_settings(config)
        if acknowledge:
            _acknowledge(settings)
        told = _told(settings)
        try:
            stored = await _stored_in_time(reactor, settings, told)
        except StoreUnavailable:
            if told is not None:
                _print(settings, told, None, as_json)
            raise
        _print(settings, told, stored, as_json)

    run(work)


# --- asking -----------------------------------------------------------------------------------


def _acknowledge(settings: Settings) -> None:
    try:
        drift_keeper.acknowledge(settings.state_dir)
    except OSError as error:
        raise Failed(f"{settings.state_dir}: {error.strerror}") from None


def _told(settings: Settings) -> Told:
    try:
        return StatusFile(settings.state_dir).read()
    except OSError as error:
        raise Failed(f"{settings.state_dir}: {error.strerror}") from None


async def _stored_in_time(reactor: Reactor, settings: Settings, told: Told) -> _Stored:
    """Where a daemon knows that PostgreSQL is away, it is not waited for as long as one that starts."""
    asked = ensureDeferred(_stored(reactor, settings))
    if told is not None and told["fresh"] and not told["database"]:
        asked.addTimeout(AWAY_SECONDS, reactor)
    try:
        return await asked
    except TimeoutError:
        raise StoreUnavailable("PostgreSQL is away") from None


async def _stored(reactor: Reactor, settings: Settings) -> _Stored:
    async with usable_database(reactor, settings) as pool:
        schema = await schema_state(pool)
        return _Stored(
            schema.number if schema is not None else None,
            await queue_state(pool),
            await target_states(pool),
            await breaker_states(pool),
        )


def _daemon(told: Told) -> str:
    if told is None:
        return "not running"
    if not told["fresh"]:
        return "not answering"
    return "ready" if told["accepts"] else "stopping" if told["stopping"] else "not ready"


# --- printing ---------------------------------------------------------------------------------


def _daemon_document(settings: Settings, told: Told) -> dict[str, object]:
    told = told or {}
    return {
        "daemon": _daemon(told or None),
        "workers": settings.workers,
        "pid": told.get("pid"),
        "worker_processes": told.get("workers", []),
        "database_connected": told.get("database"),
        "journal": told.get("journal"),
        "guarantee": told.get("guarantee"),
        "drift": told.get("drift", []),
    }


def _stored_document(stored: _Stored) -> dict[str, object]:
    queue, oldest = stored.queue, stored.queue.oldest_pending
    return {
        "schema": stored.schema,
        "postgresql": queue.postgres_version,
        "pending": queue.pending,
        "leased": queue.leased,
        "dead": queue.dead,
        "oldest_pending_seconds": None if oldest is None else round(oldest.total_seconds(), 3),
        "incomplete": queue.incomplete,
        "waiting_parts": queue.waiting_parts,
        "connectors": queue.connectors,
        "targets": [asdict(target, filter=lambda key, _: key.name != "url") for target in stored.targets],
        "breakers": [{**asdict(breaker), "since": breaker.since.isoformat()} for breaker in stored.breakers],
    }


def _daemon_lines(settings: Settings, told: Told) -> Iterator[str]:
    if told is None:
        yield f"daemon       {_daemon(told)}, workers {settings.workers}"
        return
    yield f"daemon       {_daemon(told)}, process {told['pid']}, workers {settings.workers}"
    for worker in told["workers"]:
        yield f"worker {worker['number']:<5} {_worker(worker)}"
    yield f"journal      {_journal(told['journal'])}"
    if not told["database"]:
        yield "database     PostgreSQL is away"
    yield f"guarantee    {told['guarantee']}"
    for drift in told.get("drift", []):
        yield f"drift        {_drift(drift)}"


def _worker(worker: dict[str, Any]) -> str:
    if worker["pid"] is None:
        return f"ended, about to be started again, {worker['restarts']} restarts"
    how = "stalled" if worker["stalled"] else "ready" if worker["ready"] else "not ready"
    since = datetime.fromisoformat(worker["since"])
    return f"{how}, process {worker['pid']}, since {since:%Y-%m-%dT%H:%M:%SZ}, {worker['restarts']} restarts"


def _drift(drift: dict[str, Any]) -> str:
    where = f"{drift['provider']} for {drift['connector'] or 'any connector'}"
    return f"{where} since {drift['since']}: {drift['kind']}: {', '.join(drift['names'])}"


def _journal(journal: dict[str, Any] | None) -> str:
    if journal is None:
        return "off"
    parts = [f"{journal['pending']} SMS wait in it" if journal["pending"] else "empty"]
    if journal["aside"]:
        parts.append(f"{journal['aside']} set aside")
    if journal["trouble"]:
        parts.append(f"CANNOT BE USED: {journal['trouble']}")
    return ", ".join(parts)


def _print(settings: Settings, told: Told, stored: _Stored | None, as_json: bool) -> None:
    if as_json:
        database = {} if stored is None else _stored_document(stored)
        print(json.dumps(_daemon_document(settings, told) | database))
        return
    print(*map(printable, _daemon_lines(settings, told)), sep="\n")
    if stored is not None:
        _print_stored(stored)


def _print_stored(stored: _Stored) -> None:
    queue = stored.queue
    print(f"database     PostgreSQL {queue.postgres_version}, schema {stored.schema}")
    print(f"deliveries   {queue.pending} pending ({queue.leased} leased), {queue.dead} dead")
    print(f"oldest       {'none' if queue.oldest_pending is None else _span(queue.oldest_pending)}")
    if queue.incomplete:
        print(f"incomplete   {queue.incomplete} SMS wait for parts, {queue.waiting_parts} parts are there")
    print(f"connectors   {queue.connectors}")
    for breaker in stored.breakers:
        since = f"{breaker.since:%Y-%m-%dT%H:%M:%SZ}"
        print(printable(f"left alone   {breaker.client}/{breaker.name} since {since}: {breaker.reason}"))
    rows = [_cells(target) for target in stored.targets]
    if not sys.stdout.isatty():
        for row in rows:
            print("target       " + "\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "kind", "pending", "dead", "state"):
        table.add_column(name, justify="right" if name in ("pending", "dead") else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def _cells(target: TargetState) -> tuple[str, ...]:
    state = "removed" if target.removed else "enabled" if target.enabled else "disabled"
    name = printable(f"{target.client}/{target.name}")
    return (name, target.kind, str(target.pending), str(target.dead), state)


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    days, seconds = divmod(seconds, 86400)
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days} d {clock}" if days else clock
