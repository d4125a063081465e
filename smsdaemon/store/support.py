"""What support staff ask the store: what came, what became of it, what is pending.

None of this is on the hot path. Lists go by id, page by page, so that a million rows need no memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from attrs import field, frozen

from smsdaemon.domain.ids import time_of
from smsdaemon.store.pool import Pool
from smsdaemon.store.selection import SELECTED, Selection, selected

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

MESSAGE_OF_PAGE = "m.id, m.receiver, m.sender, m.text, m.received_at, m.client_id, m.provider_message_id"
ROWS_OF_PAGE = f"""
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
"""
"""The columns of MessageRow; ``page`` m has MESSAGE_OF_PAGE."""

_MESSAGES = {
    state: f"""
WITH page AS MATERIALIZED (
    SELECT {MESSAGE_OF_PAGE} FROM message m
    WHERE {SELECTED}
      AND {of_state}
    ORDER BY m.id LIMIT %(rows)s
)
{ROWS_OF_PAGE}
ORDER BY m.id
"""
    for state, of_state in _OF_STATE.items()
}


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


async def messages(pool: Pool, selection: Selection) -> AsyncIterator[list[MessageRow]]:
    """The selected messages, oldest first, page by page. Each page is what is true when it is read."""
    parameters = await selected(pool, selection)
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


# --- the queue --------------------------------------------------------------------------------

_QUEUE = """
SELECT (SELECT count(*) FROM delivery),
       (SELECT count(*) FROM delivery WHERE leased_until >= now()),
       (SELECT count(*) FROM ended_delivery WHERE state = 'dead'),
       (SELECT message_id::text FROM delivery ORDER BY message_id LIMIT 1),
       now(),
       (SELECT count(*) FROM connector WHERE removed_at IS NULL),
       current_setting('server_version'),
       (SELECT count(*) FROM concatenation WHERE ended_at IS NULL),
       (SELECT count(*) FROM sms_part p JOIN concatenation c ON c.id = p.concatenation_id
        WHERE c.ended_at IS NULL)
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
    incomplete: int
    """SMS that wait for parts; not SMS yet."""
    waiting_parts: int
    """Of those, the parts that are there."""


async def queue_state(pool: Pool) -> QueueState:
    """The counts of the whole installation; counts deliveries, not SMS."""
    [(pending, leased, dead, oldest, now, connectors, version, *parts)] = await pool.query(_QUEUE)
    return QueueState(
        pending=pending,
        leased=leased,
        dead=dead,
        oldest_pending=None if oldest is None else max(now - time_of(UUID(oldest)), timedelta()),
        connectors=connectors,
        postgres_version=version.split()[0],
        incomplete=parts[0],
        waiting_parts=parts[1],
    )


async def target_states(pool: Pool) -> list[TargetState]:
    """All targets, and those removed ones that still have something pending or dead."""
    names = ("client", "kind", "name", "url", "enabled", "pending", "dead", "removed")
    return [TargetState(**dict(zip(names, row, strict=True))) for row in await pool.query(_TARGETS)]


async def durability_settings(pool: Pool) -> dict[str, str]:
    """PostgreSQL's settings without which a COMMIT is not a promise."""
    return dict(await pool.query(_DURABILITY))
