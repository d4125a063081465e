"""Finds everything that happened to an SMS, and how things stand for a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from smsdaemon.domain.ids import of_the_same_time
from smsdaemon.domain.model import Client, Connector, Directory, Target
from smsdaemon.domain.numbers import matching_key
from smsdaemon.errors import NotRoutable
from smsdaemon.intake import routable_target
from smsdaemon.store import why_queries as queries
from smsdaemon.store.pool import Pool, Run
from smsdaemon.store.selection import spelled, spelled_as_receiver
from smsdaemon.store.support import MessageRow
from smsdaemon.store.why_values import (
    AttemptOutcome,
    AttemptTold,
    ConnectorStanding,
    DeliveryTold,
    IncompleteTold,
    NumberTold,
    PendingCounts,
    RefusedTold,
    SmsTold,
    TargetStanding,
    Told,
    Waiting,
)

_NO_ATTEMPT = ("connector removed", "target removed")
"""Reasons of deliveries that `apply --force` has ended."""


# --- what is asked for ------------------------------------------------------------------------


async def why(pool: Pool, asked: str, limit: int) -> Told | None:
    """Everything about what was asked for: an id of any kind, or a number; None for an unknown one.

    ``limit``: SMS that are told of a number, or of a provider's id. All is as of one moment.
    """

    async def interaction(run: Run) -> Told | None:
        await run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        id = _uuid(asked)
        told = await _by_id(run, id) if id is not None else await _by_number(run, asked, limit)
        return told or await _by_provider_id(run, asked, limit)

    return await pool.transaction(interaction)


def _uuid(asked: str) -> str | None:
    try:
        return str(UUID(asked.strip()))
    except ValueError:
        return None


async def _by_id(run: Run, id: str) -> Told | None:
    [(message, alias, delivery, refused)] = await run(queries.NAMED, {"id": id})
    known = message or alias or delivery
    if known is None and refused is None:
        first, last = map(str, of_the_same_time(UUID(id)))
        at_once = {"id": id, "first": first, "last": last}
        ended = await run(queries.OF_ENDED_AT_ONCE, at_once) or await run(queries.OF_ENDED, {"id": id})
        known = ended[0][0] if ended else None
    kept = [RefusedTold(**_named(_REFUSED, row)) for row in await run(queries.REFUSED, {"id": id})]
    waits = [_incomplete(row) for row in await run(queries.INCOMPLETE, {"id": known or id})]
    if known is None and not kept and not waits:
        return None
    return Told(
        sms=None if known is None else await _sms(run, known),
        refused=kept[0] if kept else None,
        incomplete=waits[0] if waits else None,
    )


async def _by_provider_id(run: Run, asked: str, limit: int) -> Told | None:
    rows = await run(queries.OF_PROVIDER, {"asked": asked.strip(), "rows": max(limit, 1)})
    if not rows:
        waits = await run(queries.INCOMPLETE_OF_PROVIDER, {"asked": asked.strip()})
        return Told(incomplete=_incomplete(waits[0])) if waits else None
    if len(rows) == 1:
        return Told(sms=await _sms(run, rows[0][0]))
    return Told(messages=[MessageRow(*row) for row in rows])


# --- an SMS -----------------------------------------------------------------------------------

_SMS = (
    "id", "received_at", "receiver", "sender", "sender_raw", "text", "keyword", "provider",
    "provider_message_id", "encoding", "kept_bytes", "parts", "parts_missing", "connector",
    "connector_removed", "client", "aliases",
)  # fmt: skip
_REFUSED = (
    "id", "last_at", "times", "reason", "receiver", "sender", "text", "provider", "provider_message_id",
    "encoding", "kept_bytes", "client",
)  # fmt: skip
_INCOMPLETE = (
    "id", "began_at", "receiver", "sender", "provider", "reference", "parts", "came", "missing", "client",
)  # fmt: skip
_TARGET = (
    "kind", "name", "client", "enabled", "removed", "breaker_opened_at", "probe_at", "breaker_reason",
)  # fmt: skip
_ATTEMPT = (
    "number", "outcome", "reason", "ended_at", "holder", "status", "seconds", "answer", "next_at",
)  # fmt: skip


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _incomplete(row: tuple[Any, ...]) -> IncompleteTold:
    return IncompleteTold(**_named(_INCOMPLETE, row))


async def _sms(run: Run, id: str) -> SmsTold | None:
    rows = await run(queries.SMS, {"id": id})
    if not rows:  # an alias or a delivery whose SMS is no longer kept
        return None
    recorded: dict[str, list[AttemptTold]] = {}
    for delivery_id, *values in await run(queries.ATTEMPTS, {"id": id}):
        row = _named(_ATTEMPT, values)
        recorded.setdefault(delivery_id, []).append(AttemptTold(**{**row, "answer": row["answer"] or ""}))
    deliveries = [
        _delivery(row, recorded.get(row[0], [])) for row in await run(queries.DELIVERIES, {"id": id})
    ]
    return SmsTold(**_named(_SMS, rows[0]), deliveries=deliveries)


def _delivery(row: tuple[Any, ...], recorded: list[AttemptTold]) -> DeliveryTold:
    id, state, reason, count, hops, ended_at, holder, status, seconds, answer = row[:10]
    now, due_at, leased, leased_until, behind, ahead = row[10:16]
    last: AttemptTold | None = None
    if leased:
        held = leased_until >= now
        outcome: AttemptOutcome = "under way" if held else "lost"
        last = AttemptTold(number=count, outcome=outcome, holder=holder)
    elif state != "pending" and reason not in _NO_ATTEMPT:
        last = AttemptTold(
            number=count,
            outcome=state,
            reason=reason,
            ended_at=ended_at,
            holder=holder,
            status=status,
            seconds=seconds,
            answer=answer or "",
        )
    return DeliveryTold(
        id=id,
        state=state,
        reason=reason,
        count=count,
        hops=hops,
        target=TargetStanding(**_named(_TARGET, row[16:])),
        attempts=complete(count, recorded, last),
        ended_at=ended_at,
        waiting=None
        if state != "pending"
        else Waiting(now=now, due_at=due_at, leased_until=leased_until, behind=behind, ahead=ahead),
    )


def complete(count: int, recorded: list[AttemptTold], last: AttemptTold | None) -> list[AttemptTold]:
    """All attempts in order: those that have a record, the last one, and those nothing is known of.

    ``last`` may also be how a delivery ended without another attempt, which then has that number.
    """
    by_number = {attempt.number: attempt for attempt in recorded}
    if last is not None and last.number > 0:
        by_number.setdefault(last.number, last)
    # The record of an end names who made the attempt, since records are made at all.
    older = last is not None and last.ended_at is not None and last.holder is None
    missing: AttemptOutcome = "not recorded" if older else "lost"
    return [by_number.get(n, AttemptTold(number=n, outcome=missing)) for n in range(1, count + 1)]


# --- a number ---------------------------------------------------------------------------------


async def _by_number(run: Run, asked: str, limit: int) -> Told | None:
    key = matching_key(asked)
    if not key:
        return None
    spellings = {
        "sender_key": key,
        "senders": spelled(asked),
        "receivers": await spelled_as_receiver(run, asked),
        "rows": limit,
    }
    connectors = await run(queries.CONNECTOR, {"key": key})
    rows = await run(queries.NEWEST, spellings)
    if len(rows) < limit:
        rows = await run(queries.NEWEST_IN_ANY_SPELLING, spellings)
    refused = await run(queries.REFUSED_OF_NUMBER, spellings)
    incomplete = await run(queries.INCOMPLETE_OF_NUMBER, spellings)
    if not (connectors or rows or refused or incomplete):
        return None
    [(as_receiver, as_sender, leased, waiting_for_retry, oldest)] = await run(queries.PENDING, spellings)
    number = NumberTold(
        number=asked.strip(),
        connector=_connector(connectors[0]) if connectors else None,
        pending=PendingCounts(
            as_receiver=as_receiver,
            as_sender=as_sender,
            leased=leased,
            waiting_for_retry=waiting_for_retry,
            oldest=oldest,
        ),
        messages=[MessageRow(*row) for row in rows],
        refused=[RefusedTold(**_named(_REFUSED, row)) for row in refused],
        incomplete=[_incomplete(row) for row in incomplete],
    )
    return Told(number=number)


def _connector(row: tuple[Any, ...]) -> ConnectorStanding:
    id, client_id, number, key, target_id, require_token, sender_format, enabled, removed_at = row[:9]
    client, reseller, client_enabled, target_client_id, target_enabled = row[9:14]
    standing = None if target_id is None else TargetStanding(**_named(_TARGET, row[14:]))
    connector = Connector(
        id=id,
        client_id=client_id,
        number=number,
        number_key=key,
        target_id=target_id,
        require_token=require_token,
        sender_format=sender_format,
        enabled=enabled,
    )
    targets = {}
    if standing is not None and not standing.removed:
        targets[target_id] = Target(
            id=target_id,
            client_id=target_client_id,
            kind="acd_group" if standing.kind == "acd_group" else "application",
            name=standing.name,
            url="",
            secret="",
            enabled=target_enabled,
        )
    clients = {client_id: Client(id=client_id, reseller=reseller, name=client, enabled=client_enabled)}
    try:
        routable_target(Directory(connectors={key: connector}, targets=targets, clients=clients), connector)
        refusal = None
    except NotRoutable as error:
        refusal = str(error)
    return ConnectorStanding(
        number=number,
        client=f"{reseller}/{client}",
        require_token=require_token,
        target=standing,
        removed_at=removed_at,
        refusal="no connector has this number" if removed_at is not None else refusal,
    )
