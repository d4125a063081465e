"""`smsdaemon messages`: what was received, and what became of it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smsdaemon.cli.given import Utf8
from smsdaemon.cli.session import Reactor, config_option, json_option, read_settings, run, usable_database
from smsdaemon.cli.since import Since
from smsdaemon.log import printable
from smsdaemon.store.selection import Selection
from smsdaemon.store.support import MessageRow
from smsdaemon.store.support import messages as stored_messages

COLUMNS = ("received", "id", "receiver", "sender", "state", "attempts", "target", "client")
FULL_WIDTH = 160


@click.command()
@config_option
@click.option("--state", type=click.Choice(["pending", "delivered", "dead"]))
@click.option("--receiver", type=Utf8(), help="In any spelling: +49123123, 0049 123123, 49123123.")
@click.option("--sender", type=Utf8(), help="In any spelling.")
@click.option("--since", type=Since(), help="RFC 3339, or like 2h, 30m, 7d.")
@click.option("--limit", type=click.IntRange(min=0), help="The first N only, that is the oldest.")
@click.option("--show-text", is_flag=True, help="Show the text of each SMS (JSON always has it).")
@json_option
def messages(
    config: Path | None,
    state: str | None,
    receiver: str | None,
    sender: str | None,
    since: datetime | None,
    limit: int | None,
    show_text: bool,
    as_json: bool,
) -> None:
    """List SMS, oldest first."""
    selection = Selection(state=state, receiver=receiver, sender=sender, since=since, limit=limit)

    async def work(reactor: Reactor) -> None:
        async with usable_database(reactor, read_settings(config)) as pool:
            pages = stored_messages(pool, selection)
            if as_json:
                await _print_json(pages)
            elif sys.stdout.isatty():
                await _print_tables(pages, show_text)
            else:
                await _print_lines(pages, show_text)

    run(work)


async def _print_json(pages: AsyncIterator[list[MessageRow]]) -> None:
    # ASCII only: a text may hold characters that some readers take for the end of a line.
    encode = json.JSONEncoder(ensure_ascii=True).encode
    async for page in pages:
        sys.stdout.write("".join([encode(row._asdict()) + "\n" for row in page]))


async def _print_lines(pages: AsyncIterator[list[MessageRow]], show_text: bool) -> None:
    async for page in pages:
        for row in page:
            print("\t".join(_cells(row, show_text)))


async def _print_tables(pages: AsyncIterator[list[MessageRow]], show_text: bool) -> None:
    # On a narrow terminal lines wrap: an id that is cut off is of no use to anybody.
    console = Console(width=max(Console().width, FULL_WIDTH), soft_wrap=True)
    async for page in pages:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in COLUMNS + (("text",) if show_text else ()):
            table.add_column(name, no_wrap=name != "text", overflow="fold")
        for row in page:
            received, *cells = _cells(row, show_text)
            table.add_row(received[:19] + "Z", *(Text(cell) for cell in cells))
        console.print(table)


def _cells(row: MessageRow, show_text: bool) -> list[str]:
    client = f"{row.reseller}/{row.client}"
    cells = [row.received_at, row.id, row.receiver, row.sender, row.state, str(row.attempts)]
    cells += [row.target or "", client, *([row.text] if show_text else [])]
    # What somebody sent must neither forge a row nor steer the terminal.
    return [printable(cell) for cell in cells]
