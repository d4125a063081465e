"""The statements of the hot path; each is one use-case step and one transaction.

Rows go in as one JSON document (psycopg2 in asynchronous mode has neither COPY nor pipeline). How
conversations are kept in order is told in docs/architecture.md, "Order"; in short:

- Only the head of a conversation, its oldest pending delivery, has ``due_at``; only heads are leased.
- Who adds behind a head holds it FOR KEY SHARE until the commit; who ends a head takes it FOR UPDATE
  first and looks for its successor in a second statement, whose snapshot sees what was added.
- Locks are taken in the order of ids, so that two of these never wait for each other in a circle.
"""

from smsdaemon.store.prepared import Prepared

_TYPES = {
    "rows": "json",
    "ids": "uuid[]",
    "onward": "json",
    "room": "json",
    "room_elsewhere": "integer",
    "limit": "bigint",
    "unanswered": "uuid[]",
    "probe_seconds": "double precision",
    "lease": "uuid",
    "holder": "text",
    "lease_seconds": "double precision",
    "first_delay": "double precision",
}

_PAYLOAD = """
    d.id, d.seq, d.target_id, d.lease, d.attempts, d.round_attempts,
    extract(epoch FROM now() - d.round_started_at)::float8, d.hops,
    m.id, m.received_at, m.connector_id, m.client_id, m.receiver, m.sender, m.sender_raw, m.text,
    m.keyword, m.provider, m.provider_message_id, m.encoding, m.parts, m.parts_missing
"""
"""What store.deliveries.read_delivery() reads: a leased ``delivery`` d and its ``message`` m."""

_SETTLE = f"""
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
        n integer, id uuid, lease uuid, state text, reason text, status integer, seconds real,
        answer text, delay double precision, attempted boolean,
        onward_id uuid, onward_target bigint, onward_hops jsonb)
), held AS MATERIALIZED (
    SELECT d.id, o.n FROM outcome o JOIN delivery d ON d.id = o.id AND d.lease = o.lease
), ended AS (
    DELETE FROM delivery d USING held h JOIN outcome o USING (n)
    WHERE d.id = h.id AND o.state <> 'postponed'
    RETURNING o.n, d.*
), history AS (
    INSERT INTO ended_delivery (message_id, seq, id, connector_id, sender, target_id, state, reason,
                                attempts, hops, ended_at, holder, status, seconds, answer)
    SELECT e.message_id, e.seq, e.id, e.connector_id, e.sender, e.target_id, o.state, o.reason,
           e.attempts, e.hops, now(), e.holder, o.status, o.seconds, o.answer
    FROM ended e JOIN outcome o USING (n)
), postponed AS (
    UPDATE delivery d SET
        lease = NULL, leased_until = NULL, holder = NULL, reason = o.reason,
        -- What is given back at once keeps its place among what is due.
        due_at = CASE WHEN o.attempted OR o.delay > 0
                      THEN now() + o.delay * interval '1 second' ELSE d.due_at END,
        attempts = d.attempts - (NOT o.attempted)::integer,
        round_attempts = d.round_attempts - (NOT o.attempted)::integer,
        -- A round begins with its first attempt: what only waited, for days perhaps, is not given up.
        round_started_at = CASE WHEN o.attempted OR d.round_attempts > 1 THEN d.round_started_at END
    FROM held h JOIN outcome o USING (n)
    WHERE d.id = h.id AND o.state = 'postponed'
    RETURNING o.n, d.message_id, d.id, d.attempts, d.due_at, d.target_id, d.connector_id, d.sender
{{recorded}}), successor AS MATERIALIZED (
    SELECT e.n, s.id FROM ended e CROSS JOIN LATERAL (
        SELECT s.id FROM delivery s
        WHERE s.target_id = e.target_id AND s.connector_id = e.connector_id AND s.sender = e.sender
          AND s.due_at IS NULL
        ORDER BY s.seq LIMIT 1) s
), heads AS MATERIALIZED (
    -- Of the conversations gone on to, where no other row of this batch is their head. It may have come
    -- to be one since the first statement, so it is held: whoever ends it finds what is added here.
    SELECT p.target_id, p.connector_id, p.sender FROM delivery p
    WHERE p.due_at IS NOT NULL AND p.id NOT IN (SELECT id FROM held)
      AND (p.target_id, p.connector_id, p.sender) IN (
          SELECT o.onward_target, e.connector_id, e.sender FROM ended e JOIN outcome o USING (n)
          WHERE o.onward_target IS NOT NULL)
    ORDER BY p.id FOR KEY SHARE OF p
), headed AS (
    TABLE heads
    UNION ALL
    SELECT target_id, connector_id, sender FROM postponed
    UNION ALL
    SELECT e.target_id, e.connector_id, e.sender FROM ended e JOIN successor s USING (n)
), onward AS (
    -- At the head of its new conversation, unless that has a head which stays or gets a new one here.
    INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at, hops)
    SELECT o.onward_id, e.message_id, e.connector_id, e.sender, o.onward_target,
           CASE WHEN h.target_id IS NULL
                 AND row_number() OVER (PARTITION BY o.onward_target, e.connector_id, e.sender
                                        ORDER BY e.seq) = 1
                THEN now() + %(first_delay)s * interval '1 second' END,
           o.onward_hops
    FROM ended e JOIN outcome o USING (n)
    LEFT JOIN headed h ON h.target_id = o.onward_target
                      AND h.connector_id = e.connector_id AND h.sender = e.sender
    WHERE o.onward_target IS NOT NULL
    ORDER BY o.onward_target, e.connector_id, e.sender, e.seq
), promoted AS (
    UPDATE delivery d SET
        due_at = now(), lease = %(lease)s::uuid, holder = %(holder)s,
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

SETTLE = Prepared(_SETTLE.format(recorded=""), name="settle", types=_TYPES)
"""For a batch in which every attempt ended its delivery, as nearly all do."""

_RECORDED = """), recorded AS (
    -- Whatever stands in the history already, it does not keep a delivery from its next attempt.
    INSERT INTO attempt (message_id, delivery_id, number, ended_at, holder, outcome, reason, status,
                         seconds, answer, next_at)
    SELECT p.message_id, p.id, p.attempts, now(), %(holder)s, 'retry', o.reason, o.status,
           o.seconds, o.answer, p.due_at
    FROM postponed p JOIN outcome o USING (n) WHERE o.attempted
    ON CONFLICT DO NOTHING
"""
SETTLE_AND_RECORD = Prepared(_SETTLE.format(recorded=_RECORDED), name="settle_and_record", types=_TYPES)
"""The same where an attempt is to be repeated: it gets a row of its own in the history."""

_HEAD = "d.id, d.target_id, d.message_id, d.lease, d.leased_until, d.holder, d.attempts"
_FREE_AND_DUE = """
        d.target_id = r.target_id AND d.due_at <= now()
          AND (d.leased_until IS NULL OR d.leased_until < now() OR d.lease = ANY(%(unanswered)s::uuid[]))"""

_CLAIM = f"""
WITH RECURSIVE waiting(target_id) AS (
    -- The targets for which something is pending, by jumping from one to the next in the index.
    (SELECT target_id FROM delivery WHERE due_at IS NOT NULL ORDER BY target_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.target_id FROM delivery d
            WHERE d.due_at IS NOT NULL AND d.target_id > w.target_id ORDER BY d.target_id LIMIT 1)
    FROM waiting w WHERE w.target_id IS NOT NULL
), room AS MATERIALIZED (
    -- In no order, so that where the answer is bounded in all, it is not always the same who wait.
    SELECT w.target_id, coalesce(r.room, %(room_elsewhere)s) AS room, b.target_id IS NULL AS closed
    FROM waiting w
    LEFT JOIN json_to_recordset(%(room)s) AS r(target_id bigint, room integer) USING (target_id)
    LEFT JOIN open_breaker b USING (target_id)
    WHERE w.target_id IS NOT NULL AND coalesce(r.room, %(room_elsewhere)s) > 0
    ORDER BY random()
), oldest AS MATERIALIZED (
    -- Half of the room for what has waited longest and half for what came last: when a target comes
    -- back, what is sent to it now does not queue up behind all that failed in the meantime, and that
    -- is not left for ever behind what is sent now.
    SELECT c.* FROM room r CROSS JOIN LATERAL (
        SELECT {_HEAD} FROM delivery d WHERE {_FREE_AND_DUE}
        ORDER BY d.due_at LIMIT (r.room + 1) / 2
        FOR NO KEY UPDATE SKIP LOCKED) c
    WHERE r.closed
    LIMIT %(limit)s
), newest AS MATERIALIZED (
    SELECT c.* FROM room r
    JOIN (SELECT target_id, count(*) AS n FROM oldest GROUP BY target_id) o USING (target_id)
    CROSS JOIN LATERAL (
        SELECT {_HEAD} FROM delivery d WHERE {_FREE_AND_DUE} AND d.id NOT IN (SELECT id FROM oldest)
        ORDER BY d.due_at DESC LIMIT r.room / 2
        FOR NO KEY UPDATE SKIP LOCKED) c
    WHERE o.n = (r.room + 1) / 2
    LIMIT %(limit)s
), probed AS (
    -- Who moves probe_at has the probe; another that waited for the row finds that it is not due.
    UPDATE open_breaker b SET probe_at = now() + %(probe_seconds)s * interval '1 second'
    FROM (SELECT b.target_id FROM open_breaker b JOIN room r USING (target_id)
          WHERE b.probe_at <= now() AND EXISTS (SELECT FROM delivery d WHERE {_FREE_AND_DUE})
          FOR UPDATE OF b SKIP LOCKED) p
    WHERE b.target_id = p.target_id
    RETURNING b.target_id
), probe AS MATERIALIZED (
    -- The newest: if the oldest is what the target cannot take, the others need not wait for its end.
    SELECT c.* FROM probed r CROSS JOIN LATERAL (
        SELECT {_HEAD} FROM delivery d WHERE {_FREE_AND_DUE}
        ORDER BY d.due_at DESC LIMIT 1
        FOR NO KEY UPDATE SKIP LOCKED) c
), due AS MATERIALIZED (
    SELECT *, coalesce(lease = ANY(%(unanswered)s::uuid[]), false) AS unanswered FROM (
        TABLE probe
        UNION ALL
        (SELECT * FROM (TABLE oldest UNION ALL TABLE newest) both_ends ORDER BY random() LIMIT %(limit)s)
    ) chosen
), lost AS (
    INSERT INTO attempt (message_id, delivery_id, number, ended_at, holder, outcome, reason, next_at)
    SELECT message_id, id, attempts, leased_until, holder, 'lost', 'its lease ran out', now()
    FROM due WHERE lease IS NOT NULL AND NOT unanswered
    ON CONFLICT DO NOTHING
), claimed AS (
    UPDATE delivery d SET
        lease = %(lease)s::uuid, holder = %(holder)s,
        leased_until = now() + %(lease_seconds)s * interval '1 second',
        attempts = d.attempts + (NOT due.unanswered)::integer,
        round_attempts = d.round_attempts + (NOT due.unanswered)::integer,
        round_started_at = coalesce(d.round_started_at, now())
    FROM due WHERE d.id = due.id
    RETURNING d.*
)
SELECT {_PAYLOAD} FROM claimed d JOIN message m ON m.id = d.message_id ORDER BY d.seq
"""
CLAIM = Prepared(_CLAIM, name="claim", types=_TYPES)
"""``unanswered``: leases of statements that were sent and never answered; nobody attempts under them."""

KEEP = """
WITH held AS MATERIALIZED (
    SELECT d.id FROM json_to_recordset(%(rows)s) AS r(id uuid, lease uuid)
    JOIN delivery d ON d.id = r.id AND d.lease = r.lease
    ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE delivery d SET leased_until = now() + %(lease_seconds)s * interval '1 second'
FROM held h WHERE d.id = h.id
RETURNING d.id
"""
