"""The statements that make SMS durable: those just received, and those out of the journal.

Each is one transaction. Rows go in as one JSON document; how conversations are kept in order is told
in docs/architecture.md, "Order", and at the top of queries.py.
"""

from smsdaemon.store.prepared import Prepared

REPEATS_ARE_KNOWN_FOR = "7 days"
"""Contract 3, Repeats; by the database's clock, which all processes share."""

_INPUT = f"""
input AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s) AS r(
        n integer, id uuid, received_at timestamptz, connector_id bigint, client_id bigint,
        target_id bigint, receiver text, sender text, sender_raw text, text text, keyword text,
        provider text, provider_message_id text, encoding text, raw_text text, parts integer,
        delivery_id uuid, repeat_key text, wants_lease boolean, lost_lease uuid)
), known AS (
    -- A repeat updates the row it meets with what it holds, since only that returns it.
    INSERT INTO provider_repeat AS k (key, message_id, seen_at)
    SELECT DISTINCT ON (repeat_key) decode(repeat_key, 'hex'), id, now()
    FROM input WHERE repeat_key IS NOT NULL ORDER BY repeat_key, n
    ON CONFLICT (key) DO UPDATE SET
        message_id = CASE WHEN k.seen_at < now() - interval '{REPEATS_ARE_KNOWN_FOR}'
                          THEN EXCLUDED.message_id ELSE k.message_id END,
        seen_at = CASE WHEN k.seen_at < now() - interval '{REPEATS_ARE_KNOWN_FOR}'
                       THEN EXCLUDED.seen_at ELSE k.seen_at END
    RETURNING encode(k.key, 'hex') AS repeat_key, k.message_id
)"""

_STORED = """
stored AS (
    INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
                         keyword, provider, provider_message_id, encoding, raw_text, parts)
    SELECT id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
           keyword, provider, provider_message_id, encoding, decode(raw_text, 'hex'), parts
    FROM fresh
), heads AS MATERIALIZED (
    SELECT d.target_id, d.connector_id, d.sender FROM delivery d
    WHERE d.due_at IS NOT NULL
      AND (d.target_id, d.connector_id, d.sender) IN (SELECT target_id, connector_id, sender FROM fresh)
    ORDER BY d.id FOR KEY SHARE OF d
), placed AS (
    SELECT f.*, h.target_id IS NULL AND
           row_number() OVER (PARTITION BY f.target_id, f.connector_id, f.sender ORDER BY f.n) = 1 AS head
    FROM fresh f LEFT JOIN heads h USING (target_id, connector_id, sender)
), queued AS (
    INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at, lease, holder,
                          leased_until, attempts, round_attempts, round_started_at)
    SELECT delivery_id, id, connector_id, sender, target_id,
           CASE WHEN head THEN now() + %(first_delay)s * interval '1 second' END,
           CASE WHEN head AND wants_lease THEN %(lease)s::uuid END,
           CASE WHEN head AND wants_lease THEN %(holder)s END,
           CASE WHEN head AND wants_lease THEN now() + %(lease_seconds)s * interval '1 second' END,
           CASE WHEN head AND wants_lease THEN 1 ELSE 0 END,
           CASE WHEN head AND wants_lease THEN 1 ELSE 0 END,
           CASE WHEN head AND wants_lease THEN now() END
    FROM placed ORDER BY target_id, connector_id, sender, n
    RETURNING message_id, lease
)
SELECT i.n, coalesce(k.message_id, i.id), q.message_id IS NULL, q.lease
FROM input i LEFT JOIN known k USING (repeat_key) LEFT JOIN queued q ON q.message_id = i.id
ORDER BY i.n
"""

_TYPES = {
    "rows": "json",
    "lease": "uuid",
    "holder": "text",
    "lease_seconds": "double precision",
    "first_delay": "double precision",
}

_ACCEPT = f"""
WITH {_INPUT}, fresh AS MATERIALIZED (
    SELECT i.* FROM input i LEFT JOIN known k USING (repeat_key)
    WHERE i.repeat_key IS NULL OR k.message_id = i.id
), {_STORED}
"""
ACCEPT = Prepared(_ACCEPT, name="accept", types=_TYPES)

REPLAY = f"""
WITH {_INPUT}, already AS MATERIALIZED (
    -- Its COMMIT went unanswered and was one, or it was moved and not taken out of the journal.
    SELECT m.id FROM message m WHERE m.id IN (SELECT id FROM input)
), fresh AS MATERIALIZED (
    SELECT i.* FROM input i LEFT JOIN known k USING (repeat_key)
    WHERE (i.repeat_key IS NULL OR k.message_id = i.id) AND i.id NOT IN (SELECT id FROM already)
), aliased AS (
    INSERT INTO message_alias (id, message_id)
    SELECT i.id, k.message_id FROM input i JOIN known k USING (repeat_key) WHERE k.message_id <> i.id
    ON CONFLICT DO NOTHING
), freed AS (
    -- Nobody attempts under the lease of a COMMIT that went unanswered: what has it need not wait for
    -- its end.
    UPDATE delivery d SET
        lease = NULL, leased_until = NULL, holder = NULL, round_started_at = NULL,
        attempts = d.attempts - 1, round_attempts = d.round_attempts - 1
    FROM input i WHERE d.id = i.delivery_id AND d.lease = i.lost_lease
), {_STORED}
"""
"""``wants_lease`` is false in all its rows; ``lost_lease``: under which a row was sent before."""

FORGET_REPEATS = f"""
WITH forgotten AS (
    DELETE FROM provider_repeat WHERE key IN (
        SELECT key FROM provider_repeat
        WHERE seen_at < now() - interval '{REPEATS_ARE_KNOWN_FOR}' ORDER BY seen_at LIMIT %(at_once)s)
    -- Again: where it had to wait for whoever renewed the row, PostgreSQL looks at this only.
    AND seen_at < now() - interval '{REPEATS_ARE_KNOWN_FOR}'
    RETURNING 1)
SELECT count(*) FROM forgotten
"""
