"""Deliveries on PostgreSQL: outcomes by group commit, claims with a lease."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import (
    Attempt,
    Dead,
    Delivered,
    Delivery,
    Hop,
    InboundSMS,
    Outcome,
    Postponed,
    Target,
)
from smsdaemon.errors import LeaseLost, StoreConflict, StoreUnavailable
from smsdaemon.ports import Timer, UtcClock
from smsdaemon.store import breakers, queries
from smsdaemon.store.batch import Batcher
from smsdaemon.store.driver import Connection, Rows
from smsdaemon.store.messages import LeaseTerms
from smsdaemon.store.pool import Pool

MAX_WAITING = 20_000


@frozen
class _Settlement:
    delivery: Delivery
    outcome: Outcome
    attempt: Attempt | None


@frozen
class _Settled:
    held: bool
    """Else nothing was changed."""
    next_one: Delivery | None


class PostgresDeliveries:
    """Implements ports.DeliveryStore."""

    def __init__(
        self,
        *,
        pool: Pool,
        timer: Timer,
        utc_now: UtcClock,
        terms: LeaseTerms,
        probe_seconds: float = 5.0,
    ) -> None:
        """``probe_seconds``: between probes of a target whose breaker is open."""
        self._pool, self._timer, self._utc_now, self._terms = pool, timer, utc_now, terms
        self._probe_seconds = probe_seconds
        self._unanswered: dict[str, float] = {}
        """Leases whose statement was sent and not answered, with the time when they are over."""
        self._settlements: Batcher[_Settlement, _Settled] = Batcher(
            lend=pool.lend,
            send=self._settle_all,
            timer=timer,
            max_waiting=MAX_WAITING,
        )

    def close(self) -> None:
        """Withdraw what was not sent yet."""
        self._settlements.close()

    # --- ports.DeliveryStore -------------------------------------------------------------------

    def settle(
        self, delivery: Delivery, outcome: Outcome, attempt: Attempt | None
    ) -> Deferred[Delivery | None]:
        return self._settlements.add(_Settlement(delivery, outcome, attempt)).addCallback(_next_one)

    def claim(self, limit: int, room: Mapping[int, int], room_elsewhere: int) -> Deferred[Sequence[Delivery]]:
        params = {
            "room": json.dumps([{"target_id": target, "room": n} for target, n in room.items()]),
            "room_elsewhere": room_elsewhere,
            "limit": limit,
            "probe_seconds": self._probe_seconds,
        }

        def send(connection: Connection) -> Deferred[Sequence[Delivery]]:
            lease, leased_at = self._new_lease(), self._timer.seconds()
            unanswered = {"unanswered": f"{{{','.join(self._still_unanswered())}}}"}
            d: Deferred[Rows] = connection.rows(queries.CLAIM, {**params, **lease, **unanswered})
            d.addErrback(self._remember_unanswered, lease["lease"])
            return d.addCallback(lambda rows: [read_delivery(row, leased_at) for row in rows])

        return self._pool.lend(send)

    def keep(self, deliveries: Sequence[Delivery]) -> Deferred[set[UUID]]:
        rows = [{"id": str(delivery.id), "lease": str(delivery.lease)} for delivery in deliveries]
        params = {"rows": json.dumps(rows), "lease_seconds": self._terms.seconds}
        d = self._pool.query(queries.KEEP, params)
        return d.addCallback(lambda kept: {UUID(id_) for (id_,) in kept})

    def open_breaker(self, target_id: int, reason: str) -> Deferred[None]:
        return breakers.open_one(self._pool, target_id, reason, self._probe_seconds)

    def close_breaker(self, target_id: int) -> Deferred[None]:
        return breakers.close_one(self._pool, target_id)

    def open_breakers(self) -> Deferred[frozenset[int]]:
        return breakers.open_ones(self._pool)

    # --- batches ------------------------------------------------------------------------------

    def _new_lease(self) -> dict[str, Any]:
        return {
            "lease": str(uuid7(self._utc_now())),
            "lease_seconds": self._terms.seconds,
            "first_delay": self._terms.first_delay_seconds,
            "holder": self._terms.holder,
        }

    def _settle_all(self, connection: Any, batch: list[_Settlement]) -> Deferred[list[_Settled]]:
        now = self._utc_now()
        rows = [_settle_row(n, entry, now) for n, entry in enumerate(batch)]
        lease, leased_at = self._new_lease(), self._timer.seconds()
        params = {
            "rows": json.dumps(rows, ensure_ascii=False),
            "ids": f"{{{','.join([row['id'] for row in rows])}}}",
            "onward": json.dumps(list(_conversations_onward(batch)), ensure_ascii=False),
            **lease,
        }
        repeated = any(_is_repeated(entry) for entry in batch)
        statement = queries.SETTLE_AND_RECORD if repeated else queries.SETTLE
        d: Deferred[Rows] = connection.rows(statement, params)
        d.addErrback(self._remember_unanswered, lease["lease"])
        return d.addCallback(lambda found: [_read_settled(row, leased_at) for row in found])

    def _remember_unanswered(self, failure: Failure, lease: str) -> Failure:
        """What the statement leased, if it was committed, is free: nobody heard of it."""
        if failure.check(StoreUnavailable) and not failure.check(StoreConflict):
            self._unanswered[lease] = self._timer.seconds() + self._terms.seconds
        return failure

    def _still_unanswered(self) -> list[str]:
        """Those that may still stand in the table, or come to stand there: a commit may be late."""
        if self._unanswered:
            now = self._timer.seconds()
            self._unanswered = {lease: until for lease, until in self._unanswered.items() if until > now}
        return list(self._unanswered)


def _read_settled(row: tuple[Any, ...], leased_at: float) -> _Settled:
    return _Settled(row[1], None if row[2] is None else read_delivery(row[3:], leased_at))


def _next_one(settled: _Settled) -> Delivery | None:
    if not settled.held:
        raise LeaseLost("another process has the delivery, or it has ended")
    return settled.next_one


def _is_repeated(entry: _Settlement) -> bool:
    return isinstance(entry.outcome, Postponed) and entry.outcome.attempted


def _settle_row(n: int, entry: _Settlement, now: datetime) -> dict[str, Any]:
    delivery, outcome = entry.delivery, entry.outcome
    row: dict[str, Any] = {
        "n": n,
        "id": str(delivery.id),
        "lease": str(delivery.lease),
        "reason": outcome.reason,
    }
    if entry.attempt is not None:
        row["status"] = entry.attempt.status
        row["seconds"] = entry.attempt.seconds
        row["answer"] = entry.attempt.answer or None
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


def read_delivery(row: tuple[Any, ...], leased_at: float) -> Delivery:
    """A leased delivery with its SMS, from the columns queries._PAYLOAD; ``leased_at`` as in Delivery."""
    id_, _seq, target_id, lease, attempts, round_attempts, round_seconds, hops = row[:8]
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
        parts_missing=() if row[21] is None else tuple(row[21]),
    )
    return Delivery(
        id=UUID(id_),
        sms=sms,
        target_id=target_id,
        lease=UUID(lease),
        attempt=attempts,
        round_attempt=round_attempts,
        round_seconds=round_seconds,
        hops=tuple(Hop(kind=hop["kind"], name=hop["name"]) for hop in hops),
        leased_at=leased_at,
    )
