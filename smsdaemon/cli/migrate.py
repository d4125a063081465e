"""`smsdaemon migrate`: brings the database's schema up to date."""

from __future__ import annotations

from pathlib import Path

import click

from smsdaemon.cli.session import Reactor, config_option, database, read_settings, run
from smsdaemon.store.migrate import migrate as apply_migrations
from smsdaemon.store.migrate import migrations


@click.command()
@config_option
def migrate(config: Path | None) -> None:
    """Bring the database's schema up to date, as the daemon does when it starts."""

    async def work(reactor: Reactor) -> None:
        async with database(reactor, read_settings(config)) as pool:
            applied = await apply_migrations(pool)
        for name in applied:
            print(f"applied {name}")
        if not applied:
            print(f"nothing to do: the schema is {migrations()[-1].number}")

    run(work)
