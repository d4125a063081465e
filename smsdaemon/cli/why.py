"""`smsdaemon why`: everything that happened to an SMS, or how things stand for a number."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from attrs import asdict, frozen

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
from smsdaemon.cli.why_lines import lines, rfc3339
from smsdaemon.domain.masking import masked_number, masked_text
from smsdaemon.log import printable
from smsdaemon.store.support import MessageRow
from smsdaemon.store.why import why as told_by_store
from smsdaemon.store.why_values import Told

NUMBERS = frozenset({"receiver", "sender", "sender_raw", "connector", "number"})
TEXTS = frozenset({"text", "keyword", "answer"})
"""Names of what is masked, wherever it is a string."""


@click.command()
@config_option
@click.argument("asked", type=Utf8(), metavar="ID-OR-NUMBER")
@click.option("--show-text", is_flag=True, help="Show texts, answers and whole numbers.")
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="SMS of a number.")
@json_option
def why(config: Path | None, asked: str, show_text: bool, limit: int, as_json: bool) -> None:
    """Tell everything that happened to an SMS, or how things stand for a number.

    Takes an SMS-Message-Id, a delivery's webhook-id, the provider's id of an SMS, or a number in any
    spelling. What a text or a number could be read from is masked; an answer may echo a text.
    """

    async def work(reactor: Reactor) -> None:
        async with usable_database(reactor, read_settings(config)) as pool:
            told = await told_by_store(pool, asked, limit)
        if told is None:
            raise Failed(f"nothing is known of {_repeated(asked, show_text)}")
        if as_json:
            print(json.dumps(document(told, show_text)))
        else:
            print(*lines(told, show_text), sep="\n")

    run(work)


def _repeated(asked: str, show_text: bool) -> str:
    """What was asked for, in an error, which may end up in somebody's log."""
    try:
        return str(UUID(asked.strip()))
    except ValueError:
        return printable(asked if show_text else masked_number(asked.strip()))


# --- JSON -------------------------------------------------------------------------------------


@frozen
class _Serializer:
    """As attrs.asdict() wants it: times as text, and what is not to be seen masked."""

    show_text: bool

    def __call__(self, _instance: object, attribute: Any, value: Any) -> Any:
        if isinstance(value, datetime):
            return rfc3339(value)
        if attribute is not None and attribute.name == "messages":
            return [self._row(row) for row in value]
        return value if attribute is None else self._masked(attribute.name, value)

    def _row(self, row: MessageRow) -> dict[str, Any]:
        return {name: self._masked(name, value) for name, value in row._asdict().items()}

    def _masked(self, name: str, value: Any) -> Any:
        if self.show_text or not isinstance(value, str):
            return value
        if name in NUMBERS:
            return masked_number(value)
        return masked_text(value) if name in TEXTS else value


def document(told: Told, show_text: bool) -> dict[str, Any]:
    """Only what there is of ``sms``, ``refused``, ``number`` and ``messages``."""
    found = asdict(told, value_serializer=_Serializer(show_text))
    if told.sms is not None:
        found["sms"]["state"] = told.sms.state
    if told.number is not None and told.number.connector is not None:
        found["number"]["connector"]["status"] = told.number.connector.status
    return {name: value for name, value in found.items() if value}
