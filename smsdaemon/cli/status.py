"""`smsdaemon status`: the queue, its oldest delivery, the targets, and whether a daemon runs."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import click
from attrs import asdict
from rich.console import Console
from rich.table import Table
from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError
from twisted.web.client import Agent, ResponseFailed, readBody

from smsdaemon.cli.own_listeners import authorities
from smsdaemon.cli.session import Reactor, config_option, json_option, read_settings, run, usable_database
from smsdaemon.settings import Settings
from smsdaemon.store.support import (
    QueueState,
    TargetState,
    queue_state,
    schema_state,
    target_states,
)

HEALTH_SECONDS = 2.0


@click.command()
@config_option
@json_option
def status(config: Path | None, as_json: bool) -> None:
    """Show how things stand: the queue, its oldest delivery, targets, the daemon."""

    async def work(reactor: Reactor) -> None:
        settings = read_settings(config)
        async with usable_database(reactor, settings) as pool:
            schema = await schema_state(pool)
            queue, targets = await queue_state(pool), await target_states(pool)
        daemon = await _daemon(reactor, settings)
        number = schema.number if schema is not None else None
        if as_json:
            print(json.dumps(_document(settings, number, daemon, queue, targets)))
        else:
            _print(settings, number, daemon, queue, targets)

    run(work)


# --- the daemon -------------------------------------------------------------------------------


async def _daemon(reactor: Reactor, settings: Settings) -> str:
    """``ready``, ``not ready``, ``not running``, or ``unknown`` where it has no listener to ask."""
    for authority in (*authorities(settings.admin), *authorities(settings.http)):
        asked = Agent(reactor, connectTimeout=HEALTH_SECONDS).request(
            b"GET", f"http://{authority}/health/ready".encode("ascii")
        )
        asked.addTimeout(HEALTH_SECONDS, reactor)
        try:
            response = await asked
            await readBody(response).addTimeout(HEALTH_SECONDS, reactor)
        except (TimeoutError, ConnectError, ResponseFailed):
            return "not running"
        return "ready" if response.code == 200 else "not ready"
    return "unknown"


# --- printing ---------------------------------------------------------------------------------


def _document(
    settings: Settings, schema: int | None, daemon: str, queue: QueueState, targets: list[TargetState]
) -> dict[str, object]:
    oldest = queue.oldest_pending
    return {
        "daemon": daemon,
        "workers": settings.workers,
        "schema": schema,
        "postgresql": queue.postgres_version,
        "pending": queue.pending,
        "leased": queue.leased,
        "dead": queue.dead,
        "oldest_pending_seconds": None if oldest is None else round(oldest.total_seconds(), 3),
        "connectors": queue.connectors,
        "targets": [asdict(target, filter=lambda key, _: key.name != "url") for target in targets],
    }


def _print(
    settings: Settings, schema: int | None, daemon: str, queue: QueueState, targets: list[TargetState]
) -> None:
    oldest = "none" if queue.oldest_pending is None else _span(queue.oldest_pending)
    print(f"daemon       {daemon}, workers {settings.workers}")
    print(f"database     PostgreSQL {queue.postgres_version}, schema {schema}")
    print(f"deliveries   {queue.pending} pending ({queue.leased} leased), {queue.dead} dead")
    print(f"oldest       {oldest}")
    print(f"connectors   {queue.connectors}")
    rows = [_cells(target) for target in targets]
    if not sys.stdout.isatty():
        for row in rows:
            print("target       " + "\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "kind", "pending", "dead", "state"):
        table.add_column(name, justify="right" if name in ("pending", "dead") else "left")
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)


def _cells(target: TargetState) -> tuple[str, ...]:
    state = "removed" if target.removed else "enabled" if target.enabled else "disabled"
    name = f"{target.client}/{target.name}"
    return (name, target.kind, str(target.pending), str(target.dead), state)


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    days, seconds = divmod(seconds, 86400)
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days} d {clock}" if days else clock
