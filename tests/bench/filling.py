"""Fills a database with stored SMS as the daemon would have written them, by the million, in SQL.

They are of the last 180 days, evenly, for all connectors and from a million senders, in no order that an
index could profit from. Nearly all were delivered at once; one in 200 at the second attempt; one in 1,000
is dead. Every second one has a provider's id, and those of the last week can be recognised if they are
repeated.
"""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import UUID

from smsdaemon.domain.ids import first_uuid7
from smsdaemon.domain.model import InboundSMS
from smsdaemon.intake import provider_key
from smsdaemon.store.pool import Pool

DAYS = 180
CHUNK = 100_000
SENDERS = 1_000_000
HOLDER = "filled:1"

_MONTHS = """
SELECT make_partitions(now() - months * interval '1 month')
FROM generate_series(0, %(days)s / 28 + 1) AS months
"""
_PLACES = """
CREATE TEMP TABLE place AS
SELECT row_number() OVER (ORDER BY id) - 1 AS n, id, client_id, number, target_id
FROM connector WHERE removed_at IS NULL AND target_id IS NOT NULL;
ANALYZE place;
SELECT count(*), now() FROM place
"""
_NOT_EMPTY = """
SELECT oid::regclass::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0
ORDER BY oid
"""
_NEXT_SEQ = "SELECT nextval('delivery_seq_seq')"
_TAKE_SEQS = "SELECT setval('delivery_seq_seq', %(last)s)"

# An id is the time in milliseconds, the version 7, and what gen_random_uuid() has behind its own version:
# 12 random bits, the variant and 62 more. domain/ids.py makes the same.
_FILL = """
WITH numbered AS MATERIALIZED (
    SELECT i, at, lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') AS milliseconds,
           abs(hashint8extended(i, 1) %% %(places)s) AS place,
           '+49160' || lpad(abs(hashint8extended(i, 2) %% %(senders)s)::text, 7, '0') AS sender,
           CASE WHEN i %% 1000 = 0 THEN 'dead' ELSE 'delivered' END AS state, i %% 200 = 1 AS retried
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i
    CROSS JOIN LATERAL (SELECT date_trunc('microseconds', %(now)s::timestamptz
        - interval '1 day' * %(days)s * (1 - i / (%(total)s + 1.0))) AS at) t
), sms AS MATERIALIZED (
    SELECT i, at, sender, state, retried, p.id AS connector_id, p.client_id, p.number, p.target_id,
           (milliseconds || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS id,
           (milliseconds || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS delivery_id
    FROM numbered JOIN place p ON p.n = place ORDER BY i
), stored AS (
    INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
                         provider, provider_message_id, encoding, parts)
    SELECT id, at, connector_id, client_id, number, sender, sender, 'This is an old test message, ' || i,
           'generic', CASE WHEN i %% 2 = 0 THEN 'filled-' || i END, 'utf-8', 1
    FROM sms ORDER BY i
), tried AS (
    INSERT INTO attempt (message_id, delivery_id, number, ended_at, holder, outcome, reason, status,
                         seconds, next_at)
    SELECT id, delivery_id, 1, at + interval '30 ms', %(holder)s, 'retry', 'answered 503', 503,
           0.004, at + interval '1.03 s'
    FROM sms WHERE retried
)
INSERT INTO ended_delivery (message_id, seq, id, connector_id, sender, target_id, state, reason, attempts,
                            hops, ended_at, holder, status, seconds)
SELECT id, %(seq)s + i - %(first)s, delivery_id, connector_id, sender, target_id, state,
       CASE state WHEN 'dead' THEN 'answered 410' ELSE 'answered 200' END,
       CASE WHEN retried THEN 2 ELSE 1 END, '[]',
       at + CASE WHEN retried THEN interval '1.05 s' ELSE interval '30 ms' END,
       %(holder)s, CASE state WHEN 'dead' THEN 410 ELSE 200 END, 0.004
FROM sms ORDER BY i
"""

# What the daemon has forgotten by now is not remembered either; "7 days" as in message_queries.
_RECENT = """
SELECT id::text, received_at, connector_id, client_id, 0, receiver, sender, text, provider_message_id
FROM message WHERE id > %(after)s::uuid AND provider_message_id LIKE 'filled-%%'
  AND received_at > now() - interval '7 days'
ORDER BY id LIMIT 10000
"""
_REMEMBER = """
INSERT INTO provider_repeat (key, message_id, seen_at)
SELECT decode(key, 'hex'), id, seen_at
FROM json_to_recordset(%(rows)s) AS r(key text, id uuid, seen_at timestamptz)
ON CONFLICT DO NOTHING
"""


async def fill(pool: Pool, total: int, *, seconds: float = 3600.0, days: int = DAYS) -> int:
    """Bring the number of stored SMS to ``total``, and tidy up; how many there are afterwards.

    The pool must be of one connection. Stops after ``seconds``, with fewer then.
    """
    [(stored,)] = await pool.query("SELECT count(*) FROM message")
    if stored >= total:
        return int(stored)
    await pool.query(_MONTHS, {"days": days})
    await pool.query("DROP TABLE IF EXISTS place")
    [(places, now)] = await pool.query(_PLACES)
    until = time.monotonic() + seconds
    steady = {"total": total, "now": now, "places": places, "days": days, "senders": SENDERS}
    for first in range(stored + 1, total + 1, CHUNK):
        last = min(first + CHUNK - 1, total)
        # The range is over all of the time, whatever is there already: both are mixed.
        await _fill_chunk(pool, {**steady, "first": first, "last": last, "holder": HOLDER})
        if time.monotonic() > until:
            break
    await _remember_repeats(pool)
    await _tidy_up(pool)
    [(stored,)] = await pool.query("SELECT count(*) FROM message")
    return int(stored)


async def _tidy_up(pool: Pool) -> None:
    """As autovacuum would have left it; otherwise that works during the measurement.

    It leaves alone what nothing was put into, and so must we: an empty table that was vacuumed is planned
    for as one that stays empty, and one that never was is not.
    """
    for (table,) in await pool.query(_NOT_EMPTY):
        await pool.query(f"VACUUM (ANALYZE) {table}")
    await pool.query("CHECKPOINT")


async def _fill_chunk(pool: Pool, parameters: dict[str, Any]) -> None:
    [(seq,)] = await pool.query(_NEXT_SEQ)
    last = seq + parameters["last"] - parameters["first"]
    await pool.query(_TAKE_SEQS, {"last": last})
    await pool.query(_FILL, {**parameters, "seq": seq})


async def _remember_repeats(pool: Pool) -> None:
    after = str(first_uuid7((await pool.query("SELECT now() - interval '7 days 1 minute'"))[0][0]))
    while rows := await pool.query(_RECENT, {"after": after}):
        after = rows[-1][0]
        await pool.query(_REMEMBER, {"rows": json.dumps([_repeat(row) for row in rows])})


def _repeat(row: tuple[Any, ...]) -> dict[str, str]:
    """What provider_repeat has of a row of _RECENT."""
    id, received_at, connector_id, client_id, target_id, receiver, sender, text, message_id = row
    sms = InboundSMS(
        id=UUID(id),
        received_at=received_at,
        connector_id=connector_id,
        client_id=client_id,
        target_id=target_id,
        receiver=receiver,
        sender=sender,
        sender_raw=sender,
        text=text,
        provider_message_id=message_id,
    )
    key = provider_key(sms)
    assert key is not None
    return {"key": key.hex(), "id": id, "seen_at": received_at.isoformat()}
