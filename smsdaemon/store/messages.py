"""Accepted SMS on PostgreSQL, by group commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from attrs import define, frozen
from twisted.internet.defer import Deferred

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Delivery, InboundSMS, Receipt
from smsdaemon.errors import StoreConflict, StoreRefused, StoreUnavailable
from smsdaemon.ports import Offer, Timer, UtcClock
from smsdaemon.store import message_queries as queries
from smsdaemon.store import parts
from smsdaemon.store.batch import MAX_REPEATS, Batcher
from smsdaemon.store.driver import Rows
from smsdaemon.store.pool import Pool, Run, interaction_of

MAX_WAITING = 10_000
"""Requests; what they wait for takes seconds at most, so more would only wait to hear 500."""


@define(eq=False)
class Acceptance:
    """An SMS on its way into the store."""

    sms: InboundSMS
    provider_key: bytes | None
    wants_lease: bool
    delivery_id: UUID
    sent_under: UUID | None = None
    """The lease in the last statement that had it; whether that was committed may be unknown."""


@frozen(kw_only=True)
class LeaseTerms:
    """How deliveries are leased."""

    seconds: float
    first_delay_seconds: float
    """From acceptance to the first attempt, usually 0."""
    holder: str
    """Who has the leases, for people: host:process."""


class PostgresMessages:
    """Implements ports.MessageStore."""

    def __init__(self, *, pool: Pool, timer: Timer, utc_now: UtcClock, terms: LeaseTerms) -> None:
        self._pool, self._timer, self._utc_now, self._terms = pool, timer, utc_now, terms
        self._batcher: Batcher[Acceptance, Receipt] = Batcher(
            lend=pool.lend,
            send=self._accept_all,
            timer=timer,
            max_waiting=MAX_WAITING,
        )

    def close(self) -> None:
        """Withdraw what was not sent yet."""
        self._batcher.close()

    def accept(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        return self.send(self.acceptance(sms, provider_key, lease))

    def accept_all(self, batch: Sequence[Offer]) -> Deferred[list[Receipt]]:
        return self.send_all([self.acceptance(*offer) for offer in batch])

    def acceptance(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Acceptance:
        """What send() takes."""
        now = lease and not self._terms.first_delay_seconds
        return Acceptance(sms, provider_key, now, uuid7(sms.received_at))

    def send(self, acceptance: Acceptance) -> Deferred[Receipt]:
        """As accept()."""
        return self._batcher.add(acceptance)

    def send_all(self, acceptances: list[Acceptance]) -> Deferred[list[Receipt]]:
        """As accept_all()."""
        return self._batcher.add_all(acceptances)

    async def replay(self, rows: Sequence[dict[str, Any]]) -> list[str | None]:
        """Store what row() made of acceptances, in their order, once each whatever was stored before.

        For each row None, or why PostgreSQL will never take it. Raises StoreUnavailable, and then
        some may be stored: replaying them all again is right.
        """
        try:
            await self._replay_together(rows)
        except StoreRefused as error:
            if len(rows) == 1:
                return [str(error)]
            return [outcome for row in rows for outcome in await self.replay([row])]
        return [None] * len(rows)

    async def _replay_together(self, rows: Sequence[dict[str, Any]]) -> None:
        numbered = [{"n": n, **row} for n, row in enumerate(rows)]
        has_parts = any("part" in row for row in rows)
        for _ in range(MAX_REPEATS):
            try:
                if has_parts:
                    await self._pool.transaction(partial(self._replay_with_parts, rows=numbered))
                else:
                    await self._pool.query(queries.REPLAY, self._parameters(numbered, None))
                return
            except StoreConflict:
                continue  # another process was at the same conversation, or the lost COMMIT came through
        raise StoreUnavailable("other processes are at the same conversations again and again")

    async def _replay_with_parts(self, run: Run, rows: Sequence[dict[str, Any]]) -> None:
        came = [row for row in rows if "part" in row]
        arrivals = [
            parts.Arrival(n=row["n"], sms=parts.read_journaled(row), delivery_id=UUID(row["delivery_id"]))
            for row in came
        ]
        placed = await parts.place(run, arrivals)
        together = [row for row in rows if "part" not in row] + [
            {"n": whole.n, **row(Acceptance(whole.sms, None, False, whole.delivery_id))}
            for whole in placed.wholes
        ]
        if together:
            together.sort(key=lambda row: row["n"])
            await run(queries.REPLAY, self._parameters(together, None))
        await parts.note_missing(run, placed.wholes)
        await parts.note_replayed(run, came, placed.heard)

    def _accept_all(self, connection: Any, batch: list[Acceptance]) -> Deferred[list[Receipt]]:
        lease, leased_at = uuid7(self._utc_now()), self._timer.seconds()
        has_parts = False
        for entry in batch:
            entry.sent_under = lease
            if entry.sms.part is not None:
                has_parts = True
        if has_parts:
            return self._accept_with_parts(connection, batch, lease, leased_at)
        rows = [{"n": n, **row(entry)} for n, entry in enumerate(batch)]
        d: Deferred[Rows] = connection.rows(queries.ACCEPT, self._parameters(rows, lease))
        return d.addCallback(
            lambda found: [_receipt(entry, row, leased_at) for entry, row in zip(batch, found, strict=True)]
        )

    def _accept_with_parts(
        self, connection: Any, batch: list[Acceptance], lease: UUID, leased_at: float
    ) -> Deferred[list[Receipt]]:
        steps = partial(accept_with_parts, batch=batch, parameters=lambda rows: self._parameters(rows, lease))
        d: Deferred[list[tuple[Acceptance, tuple[Any, ...]]]] = connection.steps(interaction_of(steps))
        return d.addCallback(lambda found: [_receipt(entry, row, leased_at) for entry, row in found])

    def _parameters(self, rows: list[dict[str, Any]], lease: UUID | None) -> dict[str, Any]:
        return {
            "rows": json.dumps(rows, ensure_ascii=False),
            "lease": None if lease is None else str(lease),
            "lease_seconds": self._terms.seconds,
            "first_delay": self._terms.first_delay_seconds,
            "holder": self._terms.holder,
        }


async def accept_with_parts(
    run: Run, batch: Sequence[Acceptance], parameters: Callable[[list[dict[str, Any]]], dict[str, Any]]
) -> list[tuple[Acceptance, tuple[Any, ...]]]:
    """ACCEPT for a batch in which there are parts, as steps of a transaction.

    ``parameters`` makes ACCEPT's of its rows. For each of the batch what ACCEPT returns, with the SMS that
    a delivery is of: where a part has completed one, that.
    """
    came = {n: entry for n, entry in enumerate(batch) if entry.sms.part is not None}
    placed = await parts.place(
        run, [parts.Arrival(n=n, sms=entry.sms, delivery_id=entry.delivery_id) for n, entry in came.items()]
    )
    going = {n: entry for n, entry in enumerate(batch) if n not in came}
    for whole in placed.wholes:
        wants_lease = whole.completed and came[whole.n].wants_lease
        going[whole.n] = Acceptance(whole.sms, None, wants_lease, whole.delivery_id)
    rows = [{"n": n, **row(going[n])} for n in sorted(going)]
    found = {row[0]: row for row in (await run(queries.ACCEPT, parameters(rows)) if rows else [])}
    await parts.note_missing(run, placed.wholes)
    for n, heard in placed.heard.items():
        lease = found[n][3] if n in found else None
        found[n] = (n, str(heard.id), heard.repeat, lease)
    return [(going.get(n, entry), found[n]) for n, entry in enumerate(batch)]


async def forget_repeats(pool: Pool, at_once: int = 5000) -> int:
    """Forget the requests that came too long ago to be repeated, by and by; returns how many."""
    total = 0
    while True:
        [(count,)] = await pool.query(queries.FORGET_REPEATS, {"at_once": at_once})
        total += int(count)
        if count < at_once:
            return total


def row(entry: Acceptance) -> dict[str, Any]:
    """As the statements' JSON has it; the journal keeps it as JSON too."""
    sms = entry.sms
    return {
        "id": str(sms.id),
        "received_at": sms.received_at.isoformat(),
        "connector_id": sms.connector_id,
        "client_id": sms.client_id,
        "target_id": sms.target_id,
        "receiver": sms.receiver,
        "sender": sms.sender,
        "sender_raw": sms.sender_raw,
        "text": sms.text,
        "keyword": sms.keyword,
        "provider": sms.provider,
        "provider_message_id": sms.provider_message_id,
        "encoding": sms.encoding,
        "raw_text": None if sms.raw_text is None else sms.raw_text.hex(),
        "parts": sms.parts,
        "delivery_id": str(entry.delivery_id),
        "repeat_key": None if entry.provider_key is None else entry.provider_key.hex(),
        "wants_lease": entry.wants_lease,
    }


def _receipt(entry: Acceptance, found: tuple[Any, ...], leased_at: float) -> Receipt:
    _, message_id, duplicate, lease = found
    delivery = None
    if lease is not None:
        delivery = Delivery(
            id=entry.delivery_id,
            sms=entry.sms,
            target_id=entry.sms.target_id,
            lease=UUID(lease),
            leased_at=leased_at,
            attempt=1,
            round_attempt=1,
            round_seconds=0.0,
        )
    return Receipt(id=UUID(message_id), duplicate=duplicate, delivery=delivery)
