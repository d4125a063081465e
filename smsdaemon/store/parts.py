"""Parts of concatenated SMS, as they come: each finds its place, and whatever is whole is joined.

These are steps of a transaction. What they join is stored by whoever calls them, in the same transaction
and by the statement that stores any other SMS, so that a part is never durable without what it completes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from attrs import Factory, define, frozen

from smsdaemon.domain.concatenation import (
    Concatenation,
    PastPart,
    begun,
    digest_of,
    joined,
    key_of,
    part_of,
    repeated,
)
from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import InboundSMS, Part
from smsdaemon.store import part_queries as queries
from smsdaemon.store.pool import Run

LOCK_CLASS = 0x70617274  # "part": keeps the locks' numbers apart from others'


@frozen(kw_only=True)
class Arrival:
    """A part that came."""

    n: int
    """Its number in the batch."""
    sms: InboundSMS
    delivery_id: UUID
    """That the SMS' delivery has, if it completes it."""


@frozen(kw_only=True)
class Whole:
    """An SMS that is not waited for any longer, and is now to be stored and delivered."""

    n: int
    """Its place in the batch: that of the part which has completed it, or taken its place."""
    sms: InboundSMS
    delivery_id: UUID
    completed: bool


@frozen(kw_only=True)
class Heard:
    """What the provider of a part hears."""

    id: UUID
    """Of the SMS that it is a part of."""
    repeat: bool


@frozen(kw_only=True)
class Placed:
    """What became of a batch's parts; both in the order of the batch."""

    heard: Mapping[int, Heard]
    wholes: Sequence[Whole]


async def place(run: Run, arrivals: Sequence[Arrival]) -> Placed:
    """Store the parts that are new. Of a key nobody else does so before this transaction has ended."""
    keys = {key_of(arrival.sms) for arrival in arrivals}
    await run(
        f"{queries.BOUND};{queries.LOCK}", {"class": LOCK_CLASS, "locks": sorted(map(lock_number, keys))}
    )
    batch = _Batch(
        waiting=read_waiting(await run(queries.WAITING, {"keys": list(keys)})),
        past=_read_past(
            await run(queries.PAST, {"digests": [digest_of(arrival.sms) for arrival in arrivals]})
        ),
    )
    for arrival in arrivals:
        batch.take(arrival)
    if batch.parts:
        await run(queries.STORE, batch.rows())
    return Placed(heard=batch.heard, wholes=batch.wholes)


async def note_missing(run: Run, wholes: Iterable[Whole]) -> None:
    """After they were stored: say of those that were given up what is missing."""
    rows = [
        {"id": str(whole.sms.id), "missing": whole.sms.parts_missing}
        for whole in wholes
        if whole.sms.parts_missing
    ]
    if rows:
        await run(queries.MISSING, {"rows": json.dumps(rows)})


def lock_number(key: bytes) -> int:
    """Of the advisory lock; two keys may share one, and then wait for each other."""
    return int.from_bytes(key[:4], "big", signed=True)


@define
class _Batch:
    """Parts of one batch, as they change what was there before."""

    waiting: dict[bytes, Concatenation]
    past: dict[bytes, list[PastPart]]
    begun: list[Concatenation] = Factory(list)
    ended: list[UUID] = Factory(list)
    parts: list[dict[str, Any]] = Factory(list)
    heard: dict[int, Heard] = Factory(dict)
    wholes: list[Whole] = Factory(list)

    def take(self, arrival: Arrival) -> None:
        sms, key = arrival.sms, key_of(arrival.sms)
        waiting = self.waiting.get(key)
        known = repeated(sms, waiting, self.past.get(digest_of(sms), []))
        if known is not None:
            self.heard[arrival.n] = Heard(id=known, repeat=True)
            return
        if waiting is not None and waiting.has(sms):
            # The reference came again with something else: nothing more can be known to belong to the old.
            whole = joined(waiting)
            delivery_id = uuid7(whole.received_at)
            self._end(key, waiting, Whole(n=arrival.n, sms=whole, delivery_id=delivery_id, completed=False))
            waiting = None
        now = begun(sms) if waiting is None else waiting.with_part(sms)
        if waiting is None:
            self.begun.append(now)
        self.waiting[key] = now
        self.parts.append(_part_row(sms, now.id))
        self.heard[arrival.n] = Heard(id=now.id, repeat=False)
        if not now.missing:
            whole = joined(now, last=sms)
            self._end(
                key, now, Whole(n=arrival.n, sms=whole, delivery_id=arrival.delivery_id, completed=True)
            )

    def _end(self, key: bytes, ended: Concatenation, whole: Whole) -> None:
        del self.waiting[key]
        self.ended.append(ended.id)
        self.wholes.append(whole)
        for part in ended.parts.values():
            past = PastPart(
                id=part.id,
                concatenation_id=ended.id,
                provider_message_id=part.provider_message_id,
                recent=True,
            )
            self.past.setdefault(digest_of(part), []).insert(0, past)

    def rows(self) -> dict[str, Any]:
        return {
            "begun": json.dumps([_concatenation_row(one) for one in self.begun], ensure_ascii=False),
            "ended": [str(id) for id in self.ended],
            "parts": json.dumps(self.parts, ensure_ascii=False),
        }


# --- rows -------------------------------------------------------------------------------------


def _concatenation_row(one: Concatenation) -> dict[str, Any]:
    sms = one.first
    return {
        "id": str(one.id),
        "key": key_of(sms).hex(),
        "connector_id": sms.connector_id,
        "receiver": sms.receiver,
        "sender": sms.sender,
        "reference": part_of(sms).reference,
        "total": one.total,
    }


def _part_row(sms: InboundSMS, concatenation_id: UUID) -> dict[str, Any]:
    return {
        "id": str(sms.id),
        "concatenation_id": str(concatenation_id),
        "number": part_of(sms).number,
        "digest": digest_of(sms).hex(),
        "received_at": sms.received_at.isoformat(),
        "client_id": sms.client_id,
        "target_id": sms.target_id,
        "sender_raw": sms.sender_raw,
        "text": sms.text,
        "raw_text": None if sms.raw_text is None else sms.raw_text.hex(),
        "keyword": sms.keyword,
        "provider": sms.provider,
        "provider_message_id": sms.provider_message_id,
        "encoding": sms.encoding,
    }


def read_waiting(rows: Iterable[tuple[Any, ...]]) -> dict[bytes, Concatenation]:
    """By key, from the rows of queries.WAITING, and in their order."""
    found: dict[bytes, Concatenation] = {}
    for key, id, *values in rows:
        sms = _read_part(values)
        one = found.get(bytes(key), Concatenation(id=UUID(id), parts={}))
        found[bytes(key)] = one.with_part(sms)
    return found


def _read_part(values: Sequence[Any]) -> InboundSMS:
    connector_id, receiver, sender, reference, total, id, number, received_at, client_id = values[:9]
    target_id, sender_raw, text, raw_text, keyword, provider, provider_message_id, encoding = values[9:]
    return InboundSMS(
        id=UUID(id),
        received_at=received_at.astimezone(UTC),
        connector_id=connector_id,
        client_id=client_id,
        target_id=target_id,
        receiver=receiver,
        sender=sender,
        sender_raw=sender_raw,
        text=text,
        keyword=keyword,
        provider=provider,
        provider_message_id=provider_message_id,
        encoding=encoding,
        raw_text=None if raw_text is None else bytes(raw_text),
        part=Part(reference=reference, number=number, total=total),
    )


def _read_past(rows: Iterable[tuple[Any, ...]]) -> dict[bytes, list[PastPart]]:
    found: dict[bytes, list[PastPart]] = {}
    for digest, id, concatenation_id, provider_message_id, recent in rows:
        past = PastPart(
            id=UUID(id),
            concatenation_id=UUID(concatenation_id),
            provider_message_id=provider_message_id,
            recent=recent,
        )
        found.setdefault(bytes(digest), []).append(past)
    return found


# --- in the journal ---------------------------------------------------------------------------


def journal_fields(sms: InboundSMS) -> dict[str, Any]:
    """What a part has in the journal beside the row of any SMS."""
    if sms.part is None:
        return {}
    return {"part": [sms.part.reference, sms.part.number, sms.part.total]}


def read_journaled(row: Mapping[str, Any]) -> InboundSMS:
    """The part in a row of the journal (store.messages.row() with journal_fields())."""
    reference, number, total = row["part"]
    same = (
        "connector_id", "client_id", "target_id", "receiver", "sender", "sender_raw", "text", "keyword",
        "provider", "provider_message_id", "encoding",
    )  # fmt: skip
    return InboundSMS(
        id=UUID(row["id"]),
        received_at=datetime.fromisoformat(row["received_at"]),
        raw_text=None if row["raw_text"] is None else bytes.fromhex(row["raw_text"]),
        part=Part(reference=reference, number=number, total=total),
        **{name: row[name] for name in same},
    )


async def note_replayed(run: Run, rows: Iterable[Mapping[str, Any]], heard: Mapping[int, Heard]) -> None:
    """What providers heard while PostgreSQL was away becomes another id of the SMS; lost leases are free."""
    told = [
        {
            "id": row["id"],
            "concatenation_id": str(heard[row["n"]].id),
            "delivery_id": row["delivery_id"],
            "lost_lease": row.get("lost_lease"),
        }
        for row in rows
    ]
    await run(queries.REPLAYED, {"rows": json.dumps(told)})
