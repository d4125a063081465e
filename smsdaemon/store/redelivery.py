"""Gives ended deliveries another round of attempts, each in its place among what is pending.

A row that moves back keeps the record of the attempt that ended it: that goes to the earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from attrs import frozen

from smsdaemon.errors import StoreConflict
from smsdaemon.store.pool import Pool, Run
from smsdaemon.store.selection import before

T = TypeVar("T")

_REVIVED = """
revived AS MATERIALIZED (
    DELETE FROM ended_delivery e USING chosen c
    WHERE e.message_id = c.message_id AND e.seq = c.seq
    RETURNING e.*
), told AS (
    -- There is one with this number where the delivery ended without another attempt.
    INSERT INTO attempt (message_id, delivery_id, number, ended_at, holder, outcome, reason, status,
                         seconds, answer, next_at)
    SELECT message_id, id, attempts, ended_at, holder, state, reason, status, seconds, answer, now()
    FROM revived WHERE attempts > 0
    ON CONFLICT DO NOTHING
), heads AS MATERIALIZED (
    SELECT d.target_id, d.connector_id, d.sender FROM delivery d
    WHERE d.due_at IS NOT NULL
      AND (d.target_id, d.connector_id, d.sender) IN (SELECT target_id, connector_id, sender FROM revived)
    ORDER BY d.id FOR KEY SHARE OF d
), placed AS (
    SELECT r.*, h.target_id IS NULL AND
           row_number() OVER (PARTITION BY r.target_id, r.connector_id, r.sender ORDER BY r.seq) = 1 AS head
    FROM revived r LEFT JOIN heads h USING (target_id, connector_id, sender)
), queued AS (
    INSERT INTO delivery (id, seq, message_id, connector_id, sender, target_id, due_at,
                          attempts, reason, hops)
    SELECT id, seq, message_id, connector_id, sender, target_id, CASE WHEN head THEN now() END,
           attempts, reason, hops
    FROM placed ORDER BY target_id, connector_id, sender, seq
    RETURNING message_id
)"""

_REVIVE_DEAD = f"""
WITH chosen AS MATERIALIZED (
    SELECT e.message_id, e.seq FROM ended_delivery e
    JOIN target t ON t.id = e.target_id AND t.removed_at IS NULL
    JOIN client c ON c.id = t.client_id
    JOIN reseller r ON r.id = c.reseller_id
    WHERE e.state = 'dead'
      AND (%(message_id)s::uuid IS NULL OR e.message_id = %(message_id)s)
      AND (%(delivery_id)s::uuid IS NULL OR e.id = %(delivery_id)s)
      AND (%(target)s::text IS NULL OR %(target)s IN (t.name, r.name || '/' || c.name || '/' || t.name))
      AND e.message_id > %(after)s::uuid
), {_REVIVED}
SELECT count(*) FROM queued
"""
_REVIVE_LAST = f"""
WITH chosen AS MATERIALIZED (
    SELECT e.message_id, e.seq FROM unnest(%(messages)s::uuid[]) AS wanted(id)
    CROSS JOIN LATERAL (
        SELECT l.message_id, l.seq, l.target_id FROM ended_delivery l
        WHERE l.message_id = wanted.id ORDER BY l.seq DESC LIMIT 1) e
    JOIN target t ON t.id = e.target_id AND t.removed_at IS NULL
    WHERE NOT EXISTS (SELECT FROM delivery d WHERE d.message_id = wanted.id)
), {_REVIVED}
SELECT message_id::text FROM queued
"""
_NOTIFY = "NOTIFY smsdaemon_delivery"
_STANDING = """
SELECT EXISTS (SELECT FROM delivery WHERE message_id = %(id)s::uuid OR id = %(id)s::uuid),
       EXISTS (SELECT FROM message WHERE id = %(id)s::uuid),
       EXISTS (SELECT FROM ended_delivery WHERE message_id = %(id)s::uuid AND state = 'dead')
"""
# By a webhook-id, for which there is no index: it is asked for by hand, once in a while.
_ENDED = "SELECT message_id::text, state FROM ended_delivery WHERE id = %(id)s::uuid"
_TRIES = 10


@frozen(kw_only=True)
class Dead:
    """Which dead deliveries are meant; what is None does not matter."""

    message_id: str | None = None
    delivery_id: str | None = None
    target: str | None = None
    """Its name, or reseller/client/name."""
    since: datetime | None = None
    """Of when the SMS was received."""


async def redeliver(pool: Pool, dead: Dead) -> int:
    """Make dead deliveries pending again, in their places; returns how many.

    Those to a target that was removed stay dead. A running daemon is told.
    """
    parameters = {
        "message_id": dead.message_id,
        "delivery_id": dead.delivery_id,
        "target": dead.target,
        "after": str(before(dead.since)),
    }

    async def interaction(run: Run) -> int:
        [(count,)] = await run(_REVIVE_DEAD, parameters)
        await run(_NOTIFY)
        return int(count)

    return await repeated(pool, interaction)


async def revive_last(run: Run, messages: list[str]) -> set[str]:
    """Make the last delivery of each of these SMS pending again, however it ended.

    Those SMS for which something is pending, and those to a target that was removed, are left alone;
    returns the ids of the others. To be run within repeated().
    """
    rows = await run(_REVIVE_LAST, {"messages": messages})
    await run(_NOTIFY)
    return {id_ for (id_,) in rows}


async def repeated(pool: Pool, interaction: Callable[[Run], Coroutine[Any, Any, T]]) -> T:
    """Run a transaction until no daemon makes another one the head of a conversation meanwhile."""
    for _ in range(_TRIES - 1):
        try:
            return await pool.transaction(interaction)
        except StoreConflict:
            continue
    return await pool.transaction(interaction)


async def why_not_dead(pool: Pool, id: UUID) -> str | None:
    """Why nothing can be redelivered under an SMS id or webhook-id; None if something can."""
    [(pending, known, dead)] = await pool.query(_STANDING, {"id": str(id)})
    if dead:
        return None
    if pending:
        return f"{id} is still pending"
    if known:
        return f"{id} was delivered"
    states = {state for _, state in await pool.query(_ENDED, {"id": str(id)})}
    if "dead" in states:
        return None
    return f"{id} was delivered" if states else f"there is no SMS or delivery {id}"
