"""`smsdaemon redeliver`: gives dead deliveries another round of attempts."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click

from smsdaemon.cli.given import Utf8
from smsdaemon.cli.session import (
    Failed,
    Reactor,
    config_option,
    json_option,
    read_settings,
    run,
    usable_database,
)
from smsdaemon.cli.since import Since
from smsdaemon.store.pool import Pool
from smsdaemon.store.redelivery import Dead, why_not_dead
from smsdaemon.store.redelivery import redeliver as redeliver_stored
from smsdaemon.store.selection import own_id


@click.command()
@config_option
@click.option("--id", "id_", type=click.UUID, help="An SMS-Message-Id, or a delivery's webhook-id.")
@click.option("--state", type=click.Choice(["dead"]), help="All that are dead.")
@click.option("--target", type=Utf8(), help="Only to this target: NAME, or reseller/client/NAME.")
@click.option("--since", type=Since(), help="Only of SMS received since: RFC 3339, or like 2h, 30m, 7d.")
@json_option
def redeliver(
    config: Path | None,
    id_: UUID | None,
    state: str | None,
    target: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """Redeliver what is dead: one delivery by --id, or with --state dead all of them."""
    if (id_ is None) == (state is None):
        raise click.UsageError("Give either --id or --state dead.")
    if id_ is not None and (target is not None or since is not None):
        raise click.UsageError("--target and --since go with --state dead.")

    async def work(reactor: Reactor) -> None:
        async with usable_database(reactor, read_settings(config)) as pool:
            if id_ is not None:
                count = await _by_id(pool, id_)
            else:
                count = await redeliver_stored(pool, Dead(target=target, since=since))
                if not count:
                    raise Failed("nothing is dead that matches")
        print(json.dumps({"redelivered": count}) if as_json else f"redelivered {count}")

    run(work)


async def _by_id(pool: Pool, id_: UUID) -> int:
    id_ = await own_id(pool, id_)
    why = await why_not_dead(pool, id_)
    if why is not None:
        raise Failed(why)
    count = await redeliver_stored(pool, Dead(message_id=str(id_)))
    count = count or await redeliver_stored(pool, Dead(delivery_id=str(id_)))
    if not count:
        raise Failed(f"{id_} is dead, but its target was removed from the directory")
    return count
