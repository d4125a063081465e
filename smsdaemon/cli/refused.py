"""`smsdaemon refused`: what was answered 502, and `smsdaemon refused retry`: accepts it after all."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from smsdaemon.cli.given import Utf8
from smsdaemon.cli.session import (
    Failed,
    Reactor,
    config_option,
    given_outside,
    json_option,
    read_settings,
    run,
    usable_database,
)
from smsdaemon.cli.since import Since
from smsdaemon.domain.masking import masked_number, masked_text
from smsdaemon.log import printable
from smsdaemon.store.refused_retry import Chosen, RefusedRow, Retried
from smsdaemon.store.refused_retry import refused as kept
from smsdaemon.store.refused_retry import retry as retry_kept

COLUMNS = ("received", "id", "times", "last", "receiver", "sender", "message id", "text", "reason")
FULL_WIDTH = 160


@click.group(invoke_without_command=True)
@config_option
@click.option("--receiver", type=Utf8(), help="In any spelling: +49123123, 0049 123123, 49123123.")
@click.option("--since", type=Since(), help="First received since: RFC 3339, or like 2h, 30m, 7d.")
@click.option("--limit", type=click.IntRange(min=0), help="The first N only, that is the oldest.")
@click.option("--show-text", is_flag=True, help="Show texts and whole numbers (JSON always has them).")
@json_option
@click.pass_context
def refused(
    context: click.Context,
    config: Path | None,
    receiver: str | None,
    since: datetime | None,
    limit: int | None,
    show_text: bool,
    as_json: bool,
) -> None:
    """List what was answered 502 in the last 7 days and could be retried, oldest first."""
    if context.invoked_subcommand is not None:
        if receiver is not None or since is not None or limit is not None or show_text:
            raise click.UsageError("These options list; those of retry stand behind it.")
        return

    async def work(reactor: Reactor) -> None:
        async with usable_database(reactor, read_settings(config)) as pool:
            pages = kept(pool, receiver=receiver, since=since, limit=limit)
            await _print_pages(pages, show_text, as_json)

    run(work)


@refused.command()
@config_option
@click.option("--id", "id_", type=click.UUID, help="This one.")
@click.option("--receiver", type=Utf8(), help="Those to this number, in any spelling.")
@click.option("--all", "all_", is_flag=True, help="All that are kept.")
@click.option("--dry-run", is_flag=True, help="Say what would become of them, and change nothing.")
@json_option
@click.pass_context
def retry(
    context: click.Context,
    config: Path | None,
    id_: UUID | None,
    receiver: str | None,
    all_: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Accept refused SMS, once the directory is mended, in the order in which they first came.

    They keep their ids, and go behind what their conversations have accepted in the meantime. One
    that the provider has repeated, and that was accepted by that, is only taken off the list. The
    exit status is 1 where one is still refused, or nothing matches.
    """
    if [id_ is not None, receiver is not None, all_].count(True) != 1:
        raise click.UsageError("Give one of --id, --receiver and --all.")
    config, as_json = given_outside(context, config, as_json)

    async def work(reactor: Reactor) -> None:
        settings = read_settings(config)
        counts: Counter[str] = Counter()
        async with usable_database(reactor, settings) as pool:
            pages = retry_kept(
                pool,
                Chosen(id=id_, receiver=receiver),
                first_delay_seconds=settings.routing.retry_schedule[0],
                dry_run=dry_run,
            )
            async for page in pages:
                counts.update(result.result for result in page)
                sys.stdout.write("".join(_line(result, as_json) + "\n" for result in page))
        _conclude(counts, dry_run, as_json)

    run(work)


def _line(result: Retried, as_json: bool) -> str:
    if as_json:
        return json.dumps(result._asdict())
    if result.result == "already accepted":
        return f"already accepted\t{result.id}\tas {result.message_id}"
    return "\t".join([result.result, result.id, *([printable(result.reason)] if result.reason else [])])


def _conclude(counts: Counter[str], dry_run: bool, as_json: bool) -> None:
    """Print the sums (JSON has none: it is one object a result) and raise Failed where it is due."""
    if not counts:
        raise Failed("nothing is refused that matches")
    if not as_json:
        names = ("accepted", "already accepted", "still refused")
        sums = ", ".join(f"{name} {counts[name]}" for name in names)
        print(f"dry run, nothing changed: {sums}" if dry_run else sums)
    if counts["still refused"]:
        raise Failed(f"{counts['still refused']} still refused")


# --- the list -----------------------------------------------------------------------------------


async def _print_pages(pages: AsyncIterator[list[RefusedRow]], show_text: bool, as_json: bool) -> None:
    # On a narrow terminal lines wrap: an id that is cut off is of no use to anybody.
    console = Console(width=max(Console().width, FULL_WIDTH), soft_wrap=True)
    # ASCII only: a text may hold characters that some readers take for the end of a line.
    encode = json.JSONEncoder(ensure_ascii=True).encode
    async for page in pages:
        if as_json:
            sys.stdout.write("".join([encode(row._asdict()) + "\n" for row in page]))
        elif sys.stdout.isatty():
            console.print(_table(page, show_text))
        else:
            sys.stdout.write("".join(["\t".join(_cells(row, show_text)) + "\n" for row in page]))


def _table(page: list[RefusedRow], show_text: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, no_wrap=name not in ("text", "reason"), overflow="fold")
    for row in page:
        table.add_row(*(Text(cell) for cell in _cells(row, show_text)))
    return table


def _cells(row: RefusedRow, show_text: bool) -> list[str]:
    number = str if show_text else masked_number
    text = row.text if show_text else masked_text(row.text)
    cells = [row.received_at, row.id, str(row.times), row.last_at, number(row.receiver), number(row.sender)]
    cells += [row.provider_message_id or "", text, row.reason]
    # What somebody sent must not steer the terminal.
    return [printable(cell) for cell in cells]
