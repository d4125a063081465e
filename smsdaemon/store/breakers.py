"""The breakers that are open, as all processes see them; probes are part of queries.CLAIM."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from smsdaemon.store.pool import Pool

CHANNEL = "smsdaemon_breaker"
"""Notified whenever one was opened or closed."""

_OPEN = f"""
WITH opened AS (
    INSERT INTO open_breaker (target_id, opened_at, probe_at, reason)
    SELECT t.id, now(), now() + %(probe_seconds)s * interval '1 second', %(reason)s
    FROM target t WHERE t.id = %(target_id)s AND t.removed_at IS NULL
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT pg_notify('{CHANNEL}', '') FROM opened
"""

_CLOSE = f"""
WITH closed AS (DELETE FROM open_breaker WHERE target_id = %(target_id)s RETURNING 1)
SELECT pg_notify('{CHANNEL}', '') FROM closed
"""

_READ = """
WITH gone AS (
    DELETE FROM open_breaker b
    WHERE NOT EXISTS (SELECT FROM target t WHERE t.id = b.target_id AND t.removed_at IS NULL)
    RETURNING b.target_id
)
SELECT target_id FROM open_breaker WHERE target_id NOT IN (SELECT target_id FROM gone)
"""
"""Those of targets that were removed disappear with it."""


def open_one(pool: Pool, target_id: int, reason: str, probe_seconds: float) -> Deferred[None]:
    """Open a target's breaker, unless it is open or the target was removed."""
    parameters: dict[str, Any] = {"target_id": target_id, "reason": reason, "probe_seconds": probe_seconds}
    return pool.query(_OPEN, parameters).addCallback(lambda _: None)


def close_one(pool: Pool, target_id: int) -> Deferred[None]:
    """Close it, if it is open."""
    return pool.query(_CLOSE, {"target_id": target_id}).addCallback(lambda _: None)


def open_ones(pool: Pool) -> Deferred[frozenset[int]]:
    """The ids of the targets whose breakers are open."""
    return pool.query(_READ).addCallback(lambda rows: frozenset(id_ for (id_,) in rows))
