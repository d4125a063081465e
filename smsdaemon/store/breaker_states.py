"""Which targets are left alone, for people."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen

from smsdaemon.store.pool import Pool

_OPEN = """
SELECT r.name || '/' || c.name, t.kind, t.name, b.opened_at, b.reason
FROM open_breaker b
JOIN target t ON t.id = b.target_id
JOIN client c ON c.id = t.client_id
JOIN reseller r ON r.id = c.reseller_id
ORDER BY 1, 2, 3, t.id
"""


@frozen(kw_only=True)
class BreakerState:
    """A target that gets nothing but probes now."""

    client: str
    kind: str
    name: str
    since: datetime
    reason: str
    """Of the failure that was one too many."""


async def breaker_states(pool: Pool) -> list[BreakerState]:
    """All that are open, on any number of daemons."""
    names = ("client", "kind", "name", "since", "reason")
    return [BreakerState(**dict(zip(names, row, strict=True))) for row in await pool.query(_OPEN)]
