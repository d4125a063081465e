"""The message store on PostgreSQL: acceptances and outcomes by group commit, claims with a lease."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred

from smsdaemon.domain.ids import time_of, uuid7
from smsdaemon.domain.model import (
    Dead,
    Delivered,
    Delivery,
    Hop,
    InboundSMS,
    Outcome,
    Postponed,
    Receipt,
    Target,
)
from smsdaemon.ports import Timer, UtcClock
from smsdaemon.store import queries
from smsdaemon.store.batch import Batcher
from smsdaemon.store.driver import Rows
from smsdaemon.store.pool import Pool

STATEMENT_SECONDS = 2.5
"""Server-side limit of one statement of the hot path."""
PATIENCE_SECONDS = 2.0
"""How long a row waits for a connection. With the above: under the 5 s in which a peer hears 500."""
MAX_ROWS = 200
MAX_WAITING = 20_000


@frozen
class _Acceptance:
    sms: InboundSMS
    provider_key: bytes | None
    wants_lease: bool
    delivery_id: UUID


@frozen
class _Settlement:
    delivery: Delivery
    outcome: Outcome


@frozen(kw_only=True)
class Queue:
    """How much is under way."""

    leased: int
    pending: int
    """All that have not ended, with the leased ones."""
    dead: int
    oldest: datetime | None
    """When the oldest SMS with something pending was received."""


class PostgresStore:
    """Implements ports.MessageStore."""

    def __init__(
        self,
        *,
        pool: Pool,
        timer: Timer,
        utc_now: UtcClock,
        lease_seconds: float,
        first_delay_seconds: float,
    ) -> None:
        """``first_delay_seconds``: from acceptance to the first attempt, usually 0."""
        self._pool, self._utc_now, self._lease_seconds = pool, utc_now, lease_seconds
        self._first_delay = first_delay_seconds
        self._acceptances: Batcher[_Acceptance, Receipt] = self._batcher(self._accept_all, timer)
        self._settlements: Batcher[_Settlement, Delivery | None] = self._batcher(self._settle_all, timer)

    def _batcher(self, send: Callable[..., Any], timer: Timer) -> Batcher[Any, Any]:
        return Batcher(
            lend=self._pool.lend,
            send=send,
            timer=timer,
            # One at a time: with two, what came first could be committed second. It costs nothing
            # (docs/performance.md): the batches grow instead.
            under_way=1,
            max_rows=MAX_ROWS,
            max_waiting=MAX_WAITING,
            patience=PATIENCE_SECONDS,
        )

    def close(self) -> None:
        """Withdraw what was not sent yet."""
        self._acceptances.close()
        self._settlements.close()

    # --- ports.MessageStore -------------------------------------------------------------------

    def accept(self, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        now = lease and not self._first_delay
        return self._acceptances.add(_Acceptance(sms, provider_key, now, uuid7(sms.received_at)))

    def settle(self, delivery: Delivery, outcome: Outcome) -> Deferred[Delivery | None]:
        return self._settlements.add(_Settlement(delivery, outcome))

    def claim(self, limit: int, room: Mapping[int, int], room_elsewhere: int) -> Deferred[Sequence[Delivery]]:
        params = {
            "room": json.dumps([{"target_id": target, "room": n} for target, n in room.items()]),
            "room_elsewhere": room_elsewhere,
            "limit": limit,
            **self._new_lease(),
        }
        d = self._pool.query(queries.CLAIM, params)
        return d.addCallback(lambda rows: [read_delivery(row) for row in rows])

    # --- for metrics and upkeep ---------------------------------------------------------------

    def queue(self) -> Deferred[Queue]:
        """Count what is under way."""
        return self._pool.query(queries.QUEUE).addCallback(_read_queue)

    def forget_repeats(self) -> Deferred[Rows]:
        """Drop up to 1,000 of the requests that came too long ago to be repeated."""
        return self._pool.query(queries.FORGET_REPEATS)

    # --- batches ------------------------------------------------------------------------------

    def _new_lease(self) -> dict[str, Any]:
        return {
            "lease": str(uuid7(self._utc_now())),
            "lease_seconds": self._lease_seconds,
            "first_delay": self._first_delay,
        }

    def _accept_all(self, connection: Any, batch: list[_Acceptance]) -> Deferred[list[Receipt]]:
        rows = json.dumps([_accept_row(n, entry) for n, entry in enumerate(batch)], ensure_ascii=False)
        d: Deferred[Rows] = connection.rows(queries.ACCEPT, {"rows": rows, **self._new_lease()})
        return d.addCallback(
            lambda found: [_receipt(entry, row) for entry, row in zip(batch, found, strict=True)]
        )

    def _settle_all(self, connection: Any, batch: list[_Settlement]) -> Deferred[list[Delivery | None]]:
        now = self._utc_now()
        rows = [_settle_row(n, entry, now) for n, entry in enumerate(batch)]
        params = {
            "rows": json.dumps(rows, ensure_ascii=False),
            "ids": f"{{{','.join([row['id'] for row in rows])}}}",
            "onward": json.dumps(list(_conversations_onward(batch)), ensure_ascii=False),
            **self._new_lease(),
        }
        d: Deferred[Rows] = connection.rows(queries.SETTLE, params)
        return d.addCallback(
            lambda found: [None if row[2] is None else read_delivery(row[3:]) for row in found]
        )


def _accept_row(n: int, entry: _Acceptance) -> dict[str, Any]:
    sms = entry.sms
    return {
        "n": n,
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
        "parts": sms.parts,
        "delivery_id": str(entry.delivery_id),
        "repeat_key": None if entry.provider_key is None else entry.provider_key.hex(),
        "wants_lease": entry.wants_lease,
    }


def _receipt(entry: _Acceptance, row: tuple[Any, ...]) -> Receipt:
    _, message_id, duplicate, lease, round_started_at = row
    delivery = None
    if lease is not None:
        delivery = Delivery(
            id=entry.delivery_id,
            sms=entry.sms,
            target_id=entry.sms.target_id,
            lease=UUID(lease),
            attempt=1,
            round_attempt=1,
            round_started_at=round_started_at,
        )
    return Receipt(id=UUID(message_id), duplicate=duplicate, delivery=delivery)


def _settle_row(n: int, entry: _Settlement, now: datetime) -> dict[str, Any]:
    delivery, outcome = entry.delivery, entry.outcome
    row: dict[str, Any] = {
        "n": n,
        "id": str(delivery.id),
        "lease": str(delivery.lease),
        "reason": outcome.reason,
    }
    match outcome:
        case Delivered(onward=None):
            row["state"] = "delivered"
        case Delivered(onward=Target() as onward):
            row |= {
                "state": "delivered",
                "onward_id": str(uuid7(now)),
                "onward_target": onward.id,
                "onward_hops": [{"kind": hop.kind, "name": hop.name} for hop in outcome.onward_hops],
            }
        case Postponed():
            row |= {"state": "postponed", "delay": outcome.delay_seconds, "attempted": outcome.attempted}
        case Dead():
            row["state"] = "dead"
    return row


def _conversations_onward(batch: list[_Settlement]) -> Iterator[dict[str, Any]]:
    """The conversations at other targets of which SMS of the batch become part."""
    for entry in batch:
        if isinstance(entry.outcome, Delivered) and entry.outcome.onward is not None:
            sms, target = entry.delivery.sms, entry.outcome.onward
            yield {"onward_target": target.id, "connector_id": sms.connector_id, "sender": sms.sender}


def read_delivery(row: tuple[Any, ...]) -> Delivery:
    """A leased delivery with its SMS, from the columns queries._PAYLOAD."""
    id_, _seq, target_id, lease, attempts, round_attempts, round_started_at, hops = row[:8]
    sms = InboundSMS(
        id=UUID(row[8]),
        received_at=row[9].astimezone(UTC),
        connector_id=row[10],
        client_id=row[11],
        target_id=target_id,
        receiver=row[12],
        sender=row[13],
        sender_raw=row[14],
        text=row[15],
        keyword=row[16],
        provider=row[17],
        provider_message_id=row[18],
        encoding=row[19],
        parts=row[20],
    )
    return Delivery(
        id=UUID(id_),
        sms=sms,
        target_id=target_id,
        lease=UUID(lease),
        attempt=attempts,
        round_attempt=round_attempts,
        round_started_at=round_started_at,
        hops=tuple(Hop(kind=hop["kind"], name=hop["name"]) for hop in hops),
    )


def _read_queue(rows: Rows) -> Queue:
    [(leased, pending, oldest, dead)] = rows
    return Queue(
        leased=leased,
        pending=pending,
        dead=dead,
        oldest=None if oldest is None else time_of(UUID(oldest)),
    )
