"""The statements of the hot path; each is one use-case step and one transaction.

Rows go in as one JSON document (psycopg2 in asynchronous mode has neither COPY nor pipeline). How
conversations are kept in order is told in docs/architecture.md, "Order"; in short:

- Only the head of a conversation, its oldest pending delivery, has ``due_at``; only heads are leased.
- Who adds behind a head holds it FOR KEY SHARE until the commit; who ends a head takes it FOR UPDATE
  first and looks for its successor in a second statement, whose snapshot sees what was added.
- Locks are taken in the order of ids, so that two of these never wait for each other in a circle.
"""

REPEATS_ARE_KNOWN_FOR = "7 days"
"""Contract 3, Repeats."""

_PAYLOAD = """
    d.id, d.seq, d.target_id, d.lease, d.attempts, d.round_attempts, d.round_started_at, d.hops,
    m.id, m.received_at, m.connector_id, m.client_id, m.receiver, m.sender, m.sender_raw, m.text,
    m.keyword, m.provider, m.provider_message_id, m.encoding, m.parts
"""
"""What store.postgres.read_delivery() reads: a leased ``delivery`` d and its ``message`` m."""

ACCEPT = f"""
WITH input AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s) AS r(
        n integer, id uuid, received_at timestamptz, connector_id bigint, client_id bigint,
        target_id bigint, receiver text, sender text, sender_raw text, text text, keyword text,
        provider text, provider_message_id text, encoding text, parts integer,
        delivery_id uuid, repeat_key text, wants_lease boolean)
), known AS (
    -- A repeat updates the row it meets with what it holds, since only that returns it.
    INSERT INTO provider_repeat AS k (key, message_id, seen_at)
    SELECT DISTINCT ON (repeat_key) decode(repeat_key, 'hex'), id, received_at
    FROM input WHERE repeat_key IS NOT NULL ORDER BY repeat_key, n
    ON CONFLICT (key) DO UPDATE SET
        message_id = CASE WHEN k.seen_at < EXCLUDED.seen_at - interval '{REPEATS_ARE_KNOWN_FOR}'
                          THEN EXCLUDED.message_id ELSE k.message_id END,
        seen_at = CASE WHEN k.seen_at < EXCLUDED.seen_at - interval '{REPEATS_ARE_KNOWN_FOR}'
                       THEN EXCLUDED.seen_at ELSE k.seen_at END
    RETURNING encode(k.key, 'hex') AS repeat_key, k.message_id
), fresh AS MATERIALIZED (
    SELECT i.* FROM input i LEFT JOIN known k USING (repeat_key)
    WHERE i.repeat_key IS NULL OR k.message_id = i.id
), stored AS (
    INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
                         keyword, provider, provider_message_id, encoding, parts)
    SELECT id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
           keyword, provider, provider_message_id, encoding, parts
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
    INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at, lease, leased_until,
                          attempts, round_attempts, round_started_at)
    SELECT delivery_id, id, connector_id, sender, target_id,
           CASE WHEN head THEN now() + %(first_delay)s * interval '1 second' END,
           CASE WHEN head AND wants_lease THEN %(lease)s::uuid END,
           CASE WHEN head AND wants_lease THEN now() + %(lease_seconds)s * interval '1 second' END,
           CASE WHEN head AND wants_lease THEN 1 ELSE 0 END,
           CASE WHEN head AND wants_lease THEN 1 ELSE 0 END,
           CASE WHEN head AND wants_lease THEN now() END
    FROM placed ORDER BY target_id, connector_id, sender, n
    RETURNING message_id, lease, round_started_at
)
SELECT i.n, coalesce(k.message_id, i.id), q.message_id IS NULL, q.lease, q.round_started_at
FROM input i LEFT JOIN known k USING (repeat_key) LEFT JOIN queued q ON q.message_id = i.id
ORDER BY i.n
"""

SETTLE = f"""
SELECT 1 FROM delivery d WHERE d.id IN (
    SELECT unnest(%(ids)s::uuid[])
    UNION ALL
    SELECT h.id
    FROM json_to_recordset(%(onward)s) AS r(onward_target bigint, connector_id bigint, sender text)
    JOIN delivery h ON h.due_at IS NOT NULL AND h.target_id = r.onward_target
                   AND h.connector_id = r.connector_id AND h.sender = r.sender)
ORDER BY d.id FOR UPDATE OF d;

WITH outcome AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(rows)s) AS r(
        n integer, id uuid, lease uuid, state text, reason text, delay double precision,
        attempted boolean, onward_id uuid, onward_target bigint, onward_hops jsonb)
), held AS MATERIALIZED (
    SELECT d.id, o.n FROM outcome o JOIN delivery d ON d.id = o.id AND d.lease = o.lease
), ended AS (
    DELETE FROM delivery d USING held h JOIN outcome o USING (n)
    WHERE d.id = h.id AND o.state <> 'postponed'
    RETURNING o.n, d.*
), history AS (
    INSERT INTO ended_delivery (message_id, seq, id, connector_id, sender, target_id, state, reason,
                                attempts, hops, ended_at)
    SELECT e.message_id, e.seq, e.id, e.connector_id, e.sender, e.target_id, o.state, o.reason,
           e.attempts, e.hops, now()
    FROM ended e JOIN outcome o USING (n)
), postponed AS (
    UPDATE delivery d SET
        lease = NULL, leased_until = NULL, reason = o.reason,
        due_at = now() + o.delay * interval '1 second',
        attempts = d.attempts - (NOT o.attempted)::integer,
        round_attempts = d.round_attempts - (NOT o.attempted)::integer
    FROM held h JOIN outcome o USING (n)
    WHERE d.id = h.id AND o.state = 'postponed'
), successor AS MATERIALIZED (
    SELECT e.n, e.id AS predecessor_id, s.id FROM ended e CROSS JOIN LATERAL (
        SELECT s.id FROM delivery s
        WHERE s.target_id = e.target_id AND s.connector_id = e.connector_id AND s.sender = e.sender
          AND s.due_at IS NULL
        ORDER BY s.seq LIMIT 1) s
), onward AS (
    -- At the head of its new conversation, unless that has a head which stays or gets a new one here.
    INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at, hops)
    SELECT o.onward_id, e.message_id, e.connector_id, e.sender, o.onward_target,
           CASE WHEN (p.id IS NULL OR (p.id IN (SELECT id FROM ended)
                                       AND p.id NOT IN (SELECT predecessor_id FROM successor)))
                 AND row_number() OVER (PARTITION BY o.onward_target, e.connector_id, e.sender
                                        ORDER BY e.seq) = 1
                THEN now() + %(first_delay)s * interval '1 second' END,
           o.onward_hops
    FROM ended e JOIN outcome o USING (n)
    LEFT JOIN delivery p ON p.due_at IS NOT NULL AND p.target_id = o.onward_target
                        AND p.connector_id = e.connector_id AND p.sender = e.sender
    WHERE o.onward_target IS NOT NULL
    ORDER BY o.onward_target, e.connector_id, e.sender, e.seq
), promoted AS (
    UPDATE delivery d SET
        due_at = now(), lease = %(lease)s::uuid,
        leased_until = now() + %(lease_seconds)s * interval '1 second',
        attempts = d.attempts + 1, round_attempts = d.round_attempts + 1,
        round_started_at = coalesce(d.round_started_at, now())
    FROM successor s WHERE d.id = s.id
    RETURNING s.n, d.*
), payload AS (
    SELECT d.n, {_PAYLOAD} FROM promoted d JOIN message m ON m.id = d.message_id
)
SELECT o.n, h.n IS NOT NULL, p.* FROM outcome o LEFT JOIN held h USING (n) LEFT JOIN payload p ON p.n = o.n
ORDER BY o.n
"""

CLAIM = f"""
WITH RECURSIVE waiting(target_id) AS (
    -- The targets for which something is pending, by jumping from one to the next in the index.
    (SELECT target_id FROM delivery WHERE due_at IS NOT NULL ORDER BY target_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.target_id FROM delivery d
            WHERE d.due_at IS NOT NULL AND d.target_id > w.target_id ORDER BY d.target_id LIMIT 1)
    FROM waiting w WHERE w.target_id IS NOT NULL
), room AS MATERIALIZED (
    SELECT w.target_id, coalesce(r.room, %(room_elsewhere)s) AS room
    FROM waiting w
    LEFT JOIN json_to_recordset(%(room)s) AS r(target_id bigint, room integer) USING (target_id)
    WHERE w.target_id IS NOT NULL
), due AS MATERIALIZED (
    SELECT c.id FROM room CROSS JOIN LATERAL (
        SELECT d.id FROM delivery d
        WHERE d.target_id = room.target_id AND d.due_at <= now()
          AND (d.leased_until IS NULL OR d.leased_until < now())
        ORDER BY d.due_at LIMIT room.room
        FOR NO KEY UPDATE SKIP LOCKED) c
    LIMIT %(limit)s
), claimed AS (
    UPDATE delivery d SET
        lease = %(lease)s::uuid, leased_until = now() + %(lease_seconds)s * interval '1 second',
        attempts = d.attempts + 1, round_attempts = d.round_attempts + 1,
        round_started_at = coalesce(d.round_started_at, now())
    FROM due WHERE d.id = due.id
    RETURNING d.*
)
SELECT {_PAYLOAD} FROM claimed d JOIN message m ON m.id = d.message_id ORDER BY d.seq
"""

QUEUE = """
SELECT count(*) FILTER (WHERE leased_until >= now()), count(*),
       (SELECT message_id FROM delivery ORDER BY message_id LIMIT 1),
       (SELECT count(*) FROM ended_delivery WHERE state = 'dead')
FROM delivery
"""

FORGET_REPEATS = f"""
DELETE FROM provider_repeat WHERE key IN (
    SELECT key FROM provider_repeat
    WHERE seen_at < now() - interval '{REPEATS_ARE_KNOWN_FOR}' ORDER BY seen_at LIMIT 1000)
"""
