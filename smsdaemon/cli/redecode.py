"""`smsdaemon redecode`: reads the bytes of texts again, by the charset they should have been read by."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click
from attrs import Factory, frozen
from twisted.internet.task import deferLater

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
from smsdaemon.domain.masking import masked_text
from smsdaemon.domain.text import charset_label, charset_labels
from smsdaemon.log import printable
from smsdaemon.store.pool import Pool
from smsdaemon.store.redecode import Lease, Page, Reread, Rereading, redeliver_again, under_way
from smsdaemon.store.redecode import redecode as redecode_stored
from smsdaemon.store.selection import Selection, own_id

LOOK_SECONDS = 0.2
_RESULTS = {
    "changed": "changed",
    "unchanged": "unchanged",
    "ascii": "unchanged (ASCII)",
    "no bytes": "unchanged (no bytes were kept)",
    "damaged": "left alone (it would have U+FFFD in it)",
}
_REDELIVERIES = {
    "redelivered": "redelivered",
    "pending": "pending",
    "under way": "under way with the former text",
    "no target": "not redelivered: its target was removed",
}


class Charset(click.ParamType[str]):
    """The click type of --charset: a charset by any of its names, given back by ours."""

    name = "charset"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        label = charset_label(value)
        if label is None:
            self.fail(
                f"{value!r} is no charset that is known here: {', '.join(charset_labels())}", param, ctx
            )
        return label


@click.command()
@config_option
@click.option("--charset", type=Charset(), required=True, help="The one the provider has really used.")
@click.option("--id", "ids", type=click.UUID, multiple=True, help="An SMS-Message-Id; may be repeated.")
@click.option("--receiver", type=Utf8(), help="In any spelling: +49123123, 0049 123123, 49123123.")
@click.option("--sender", type=Utf8(), help="In any spelling.")
@click.option("--since", type=Since(), help="Received since: RFC 3339, or like 2h, 30m, 7d.")
@click.option("--until", type=Since(), help="Received before.")
@click.option("--limit", type=click.IntRange(min=0), help="The first N only, that is the oldest.")
@click.option("--redeliver", is_flag=True, help="Deliver what changed once more, under the same webhook-id.")
@click.option("--damaged", is_flag=True, help="Change also what would have U+FFFD in it then.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--show-text", is_flag=True, help="Show the texts.")
@json_option
def redecode(
    config: Path | None,
    charset: str,
    ids: tuple[UUID, ...],
    receiver: str | None,
    sender: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    redeliver: bool,
    damaged: bool,
    dry_run: bool,
    show_text: bool,
    as_json: bool,
) -> None:
    """Read the texts of stored SMS again, from the bytes that came, by another charset.

    Choose SMS by --id, or by --receiver or --since. What is still pending goes out with its new text;
    with --redeliver also what was delivered or is dead goes out again, to its last target. Only what
    changes is redelivered, so that doing it twice delivers nothing twice: look with --dry-run first.
    """
    by_numbers = [value for value in (receiver, sender, since, until, limit) if value is not None]
    if bool(ids) == (receiver is not None or since is not None):
        raise click.UsageError("Choose by --id, or by --receiver or --since.")
    if ids and by_numbers:
        raise click.UsageError("--sender, --until and --limit go with --receiver or --since.")
    selection = Selection(receiver=receiver, sender=sender, since=since, until=until, limit=limit)
    rereading = Rereading(charset=charset, damaged=damaged, redeliver=redeliver, dry_run=dry_run)

    async def work(reactor: Reactor) -> None:
        async with usable_database(reactor, read_settings(config)) as pool:
            chosen = [await own_id(pool, id) for id in ids]
            output = _Output(rereading, show_text, as_json)
            await _reread_all(reactor, pool, chosen or selection, rereading, output)
        output.conclude(chosen)

    run(work)


async def _reread_all(
    reactor: Reactor, pool: Pool, chosen: Selection | list[UUID], rereading: Rereading, output: _Output
) -> None:
    leases: list[Lease] = []
    async for page in redecode_stored(pool, chosen, rereading):
        output.page(page)
        leases += page.leases
    if not leases:
        return
    output.waiting(len(leases))
    # What is redelivered may not overlap with the attempt that has begun before.
    while await under_way(pool, leases):
        await deferLater(reactor, LOOK_SECONDS)
    output.redelivered(await redeliver_again(pool, leases))


@frozen
class _Output:
    """What the command prints, and what it has counted."""

    rereading: Rereading
    show_text: bool
    as_json: bool
    seen: set[str] = Factory(set)
    counts: Counter[str] = Factory(Counter)

    def page(self, page: Page) -> None:
        for reread in page.reread:
            self.seen.add(reread.id)
            self.counts.update([reread.result, reread.redelivery or ""])
            print(self._json(reread) if self.as_json else self._line(reread), flush=True)

    def waiting(self, count: int) -> None:
        if not self.as_json:
            print(f"waiting for attempts with the former text: {count}", flush=True)

    def redelivered(self, ids: set[str]) -> None:
        """What was under way."""
        self.counts["redelivered"] += len(ids)
        for id in sorted(ids):
            found = {"id": id, "redelivery": "redelivered"}
            print(json.dumps(found) if self.as_json else f"{id}\tredelivered")

    def conclude(self, wanted: list[UUID]) -> None:
        """The counts; raises Failed where something was not found."""
        missing = [str(id) for id in wanted if str(id) not in self.seen]
        if missing or not self.seen:
            raise Failed("\n".join(f"there is no SMS {id}" for id in missing) or "no SMS matches")
        if not self.as_json:
            print(self._counts())

    def _json(self, reread: Reread) -> str:
        shown = str if self.show_text else masked_text
        row = {
            "id": reread.id,
            "from": reread.encoding,
            "to": self.rereading.charset,
            "result": reread.result,
            "redelivery": reread.redelivery,
            "text": shown(reread.text),
            "new_text": shown(reread.new_text),
        }
        return json.dumps(row)

    def _line(self, reread: Reread) -> str:
        shown = str if self.show_text else masked_text
        cells = [reread.id, f"{reread.encoding} > {self.rereading.charset}", _RESULTS[reread.result]]
        cells += [_REDELIVERIES[reread.redelivery]] if reread.redelivery else []
        cells.append(shown(reread.text))
        if reread.new_text != reread.text:
            cells[-1] += f" > {shown(reread.new_text)}"
        return "\t".join(map(printable, cells))

    def _counts(self) -> str:
        counts = self.counts
        said = f"changed {counts['changed']}, "
        said += f"unchanged {counts['unchanged'] + counts['ascii'] + counts['no bytes']}"
        if counts["damaged"]:
            said += f", left alone {counts['damaged']} (--damaged changes them too)"
        if self.rereading.dry_run:
            return f"{said}; nothing was changed (--dry-run)"
        return f"{said}, redelivered {counts['redelivered']}" if self.rereading.redeliver else said
