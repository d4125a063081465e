"""What support staff ask the store: what came, what became of it, what is pending; and redelivery.

None of this is on the hot path. Lists go by id, page by page, so that a million rows need no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from attrs import field, frozen

from smsdaemon.domain.ids import first_uuid7, time_of
from smsdaemon.domain.numbers import matching_key
from smsdaemon.errors import StoreConflict
from smsdaemon.store.pool import Pool, Run

# --- the schema -------------------------------------------------------------------------------

_SCHEMA_PRESENT = "SELECT to_regclass('schema_version') IS NOT NULL"
_SCHEMA = "SELECT number, oldest_code FROM schema_version"


@frozen
class SchemaState:
    """The schema that is in the database, and the lowest one whose code can run on it."""

    number: int
    oldest_code: int


async def schema_state(pool: Pool) -> SchemaState | None:
    """What is there; None for an empty database."""
    [(present,)] = await pool.query(_SCHEMA_PRESENT)
    if not present:
        return None
    [(number, oldest_code)] = await pool.query(_SCHEMA)
    return SchemaState(number, oldest_code)


# --- messages ---------------------------------------------------------------------------------

_PAGE_ROWS = 5000
_RFC3339 = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""

_IS_PENDING = "m.id IN (SELECT message_id FROM delivery WHERE message_id > %(after)s::uuid)"
_LAST_ENDED = """NOT EXISTS (SELECT FROM delivery WHERE message_id = m.id)
      AND (SELECT state FROM ended_delivery WHERE message_id = m.id ORDER BY seq DESC LIMIT 1)"""
_OF_STATE = {
    None: "true",
    "pending": _IS_PENDING,
    "delivered": f"{_LAST_ENDED} = 'delivered'",
    # The first line is for the index of what is dead, the second for what was dead once.
    "dead": f"""m.id IN (SELECT message_id FROM ended_delivery
                         WHERE state = 'dead' AND message_id > %(after)s::uuid)
      AND {_LAST_ENDED} = 'dead'""",
}

# A sender is stored with + and digits, or as it came. Only the latter, which are few, are brought to
# their matching form row by row; domain.numbers.matching_key() is what the expression repeats.
_SENDER_KEY = r"""regexp_replace(
          regexp_replace(m.sender, '[-./()]|\s', '', 'g'), '^(\+|00(?=[0-9]{8}))', '')"""
_SENDER_MATCHES = rf"""(m.sender = ANY(%(senders)s::text[])
      OR (m.sender !~ '^\+[0-9]+$' AND {_SENDER_KEY} = %(sender_key)s))"""

_MESSAGES = {
    state: f"""
WITH page AS MATERIALIZED (
    SELECT m.id, m.receiver, m.sender, m.text, m.received_at, m.client_id, m.provider_message_id
    FROM message m
    WHERE m.id > %(after)s::uuid
      AND (%(receivers)s::text[] IS NULL OR m.receiver = ANY(%(receivers)s::text[]))
      AND (%(sender_key)s::text IS NULL OR {_SENDER_MATCHES})
      AND {of_state}
    ORDER BY m.id LIMIT %(rows)s
)
SELECT m.id::text, m.receiver, m.sender, m.text,
       CASE WHEN p.target_id IS NULL THEN coalesce(e.state, 'pending') ELSE 'pending' END,
       to_char(m.received_at AT TIME ZONE 'UTC', {_RFC3339}),
       CASE WHEN p.target_id IS NULL AND e.state = 'delivered'
            THEN to_char(e.ended_at AT TIME ZONE 'UTC', {_RFC3339}) END,
       coalesce(p.attempts, 0) + coalesce(e.attempts, 0),
       t.name, c.name, r.name, m.provider_message_id
FROM page m
LEFT JOIN LATERAL (
    SELECT d.target_id, sum(d.attempts) OVER () AS attempts
    FROM delivery d WHERE d.message_id = m.id ORDER BY d.seq DESC LIMIT 1) p ON true
LEFT JOIN LATERAL (
    SELECT e.target_id, e.state, e.ended_at, sum(e.attempts) OVER () AS attempts
    FROM ended_delivery e WHERE e.message_id = m.id ORDER BY e.seq DESC LIMIT 1) e ON true
LEFT JOIN target t ON t.id = coalesce(p.target_id, e.target_id)
LEFT JOIN client c ON c.id = m.client_id
LEFT JOIN reseller r ON r.id = c.reseller_id
ORDER BY m.id
"""
    for state, of_state in _OF_STATE.items()
}

_NUMBERS = "SELECT DISTINCT number FROM connector WHERE number_key = %(key)s"


class MessageRow(NamedTuple):
    """One SMS as `smsdaemon messages` shows it (contract 6); times are RFC 3339 in UTC."""

    id: str
    receiver: str
    sender: str
    text: str
    state: str
    received_at: str
    delivered_at: str | None
    attempts: int
    target: str | None
    client: str | None
    reseller: str | None
    provider_message_id: str | None


@frozen(kw_only=True)
class Selection:
    """Which messages are wanted; what is None does not matter."""

    state: str | None = None
    receiver: str | None = None
    sender: str | None = None
    since: datetime | None = None
    limit: int | None = None


async def messages(pool: Pool, selection: Selection) -> AsyncIterator[list[MessageRow]]:
    """The selected messages, oldest first, page by page. Each page is what is true when it is read."""
    parameters = await _parameters(pool, selection)
    left = selection.limit
    while left is None or left > 0:
        asked = _PAGE_ROWS if left is None else min(left, _PAGE_ROWS)
        rows = await pool.query(_MESSAGES[selection.state], {**parameters, "rows": asked})
        if rows:
            yield [MessageRow(*row) for row in rows]
        if len(rows) < asked:
            return
        parameters["after"] = rows[-1][0]
        left = None if left is None else left - len(rows)


async def _parameters(pool: Pool, selection: Selection) -> dict[str, Any]:
    receivers = None
    if selection.receiver is not None:
        key = matching_key(selection.receiver)
        receivers = [number for (number,) in await pool.query(_NUMBERS, {"key": key})]
        # Also what a connector was written like when the SMS came.
        receivers += [key, f"+{key}", f"00{key}", selection.receiver.strip()]
    sender_key = None if selection.sender is None else matching_key(selection.sender)
    return {
        "after": str(_before(selection.since)),
        "receivers": receivers,
        "sender_key": sender_key,
        "senders": [sender_key, f"+{sender_key}", (selection.sender or "").strip()],
    }


def _before(since: datetime | None) -> UUID:
    """An id below that of everything received since then."""
    return UUID(int=0) if since is None else UUID(int=first_uuid7(since).int - 1)


# --- redelivery -------------------------------------------------------------------------------

_REVIVE = """
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
), revived AS MATERIALIZED (
    DELETE FROM ended_delivery e USING chosen c
    WHERE e.message_id = c.message_id AND e.seq = c.seq AND e.state = 'dead'
    RETURNING e.*
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
    RETURNING 1
)
SELECT count(*) FROM queued
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
        "after": str(_before(dead.since)),
    }

    async def interaction(run: Run) -> int:
        [(count,)] = await run(_REVIVE, parameters)
        await run(_NOTIFY)
        return int(count)

    for _ in range(_TRIES - 1):
        try:
            return await pool.transaction(interaction)
        except StoreConflict:
            continue  # the daemon made another one the head of a conversation meanwhile
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


# --- the queue --------------------------------------------------------------------------------

_QUEUE = """
SELECT (SELECT count(*) FROM delivery),
       (SELECT count(*) FROM delivery WHERE leased_until >= now()),
       (SELECT count(*) FROM ended_delivery WHERE state = 'dead'),
       (SELECT message_id::text FROM delivery ORDER BY message_id LIMIT 1),
       now(),
       (SELECT count(*) FROM connector WHERE removed_at IS NULL),
       current_setting('server_version')
"""
_TARGETS = """
SELECT r.name || '/' || c.name, t.kind, t.name, t.url, t.enabled AND c.enabled AND r.enabled,
       coalesce(p.n, 0), coalesce(e.n, 0), t.removed_at IS NOT NULL
FROM target t
JOIN client c ON c.id = t.client_id
JOIN reseller r ON r.id = c.reseller_id
LEFT JOIN (SELECT target_id, count(*) AS n FROM delivery GROUP BY target_id) p ON p.target_id = t.id
LEFT JOIN (SELECT target_id, count(*) AS n FROM ended_delivery WHERE state = 'dead' GROUP BY target_id) e
       ON e.target_id = t.id
WHERE t.removed_at IS NULL OR p.n > 0 OR e.n > 0
ORDER BY 1, 2, 3, t.id
"""
_DURABILITY = """
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name
"""


@frozen(kw_only=True)
class TargetState:
    """One target and what waits for it."""

    client: str
    kind: str
    name: str
    url: str = field(repr=False)
    enabled: bool
    """False also where its client or reseller is disabled."""
    pending: int
    dead: int
    removed: bool


@frozen(kw_only=True)
class QueueState:
    """How the store stands."""

    pending: int
    leased: int
    dead: int
    oldest_pending: timedelta | None
    connectors: int
    postgres_version: str


async def queue_state(pool: Pool) -> QueueState:
    """The counts of the whole installation; counts deliveries, not SMS."""
    [(pending, leased, dead, oldest, now, connectors, version)] = await pool.query(_QUEUE)
    return QueueState(
        pending=pending,
        leased=leased,
        dead=dead,
        oldest_pending=None if oldest is None else max(now - time_of(UUID(oldest)), timedelta()),
        connectors=connectors,
        postgres_version=version.split()[0],
    )


async def target_states(pool: Pool) -> list[TargetState]:
    """All targets, and those removed ones that still have something pending or dead."""
    names = ("client", "kind", "name", "url", "enabled", "pending", "dead", "removed")
    return [TargetState(**dict(zip(names, row, strict=True))) for row in await pool.query(_TARGETS)]


async def durability_settings(pool: Pool) -> dict[str, str]:
    """PostgreSQL's settings without which a COMMIT is not a promise."""
    return dict(await pool.query(_DURABILITY))
