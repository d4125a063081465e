"""The statements of why: by hand, once in a while, so that some of them may read a whole table."""

from smsdaemon.store.selection import SENDER_AS_IT_CAME
from smsdaemon.store.support import MESSAGE_OF_PAGE, ROWS_OF_PAGE

# --- which SMS is meant -----------------------------------------------------------------------

NAMED = """
SELECT (SELECT id FROM message WHERE id = %(id)s::uuid)::text,
       (SELECT message_id FROM message_alias WHERE id = %(id)s::uuid)::text,
       (SELECT message_id FROM delivery WHERE id = %(id)s::uuid)::text,
       (SELECT id FROM refused_sms WHERE id = %(id)s::uuid)::text
"""
# No index has a delivery's id. But the first one of an SMS is made with it, at the same time, so it is
# looked for there first. What a routing application has sent on came later: that needs the whole table,
# 0.14 s for each million.
OF_ENDED = "SELECT message_id::text FROM ended_delivery WHERE id = %(id)s::uuid"
OF_ENDED_AT_ONCE = f"{OF_ENDED} AND message_id BETWEEN %(first)s::uuid AND %(last)s::uuid"
# Nor has one this.
OF_PROVIDER = f"""
WITH page AS MATERIALIZED (
    SELECT {MESSAGE_OF_PAGE} FROM message m
    WHERE m.provider_message_id = %(asked)s ORDER BY m.id DESC LIMIT %(rows)s
)
{ROWS_OF_PAGE}
ORDER BY m.id DESC
"""

# --- one SMS ----------------------------------------------------------------------------------

SMS = """
SELECT m.id::text, m.received_at, m.receiver, m.sender, m.sender_raw, m.text, m.keyword, m.provider,
       m.provider_message_id, m.encoding, octet_length(m.raw_text), m.parts,
       coalesce(m.parts_missing, '{}'), c.number, c.removed_at IS NOT NULL, r.name || '/' || cl.name,
       ARRAY(SELECT a.id::text FROM message_alias a WHERE a.message_id = m.id ORDER BY a.id)
FROM message m
LEFT JOIN connector c ON c.id = m.connector_id
LEFT JOIN client cl ON cl.id = m.client_id
LEFT JOIN reseller r ON r.id = cl.reseller_id
WHERE m.id = %(id)s::uuid
"""

_TARGET = """
       t.kind, t.name, r.name || '/' || cl.name, t.enabled AND cl.enabled AND r.enabled,
       t.removed_at IS NOT NULL, b.opened_at, b.probe_at, b.reason"""
_OF_TARGET = """
LEFT JOIN target t ON t.id = d.target_id
LEFT JOIN client cl ON cl.id = t.client_id
LEFT JOIN reseller r ON r.id = cl.reseller_id
LEFT JOIN open_breaker b ON b.target_id = d.target_id"""

DELIVERIES = f"""
WITH own AS (
    SELECT id, seq, target_id, connector_id, sender, attempts, reason, hops, 'pending' AS state,
           NULL::timestamptz AS ended_at, holder, NULL::integer AS status, NULL::real AS seconds,
           NULL::text AS answer, due_at, lease IS NOT NULL AS leased, leased_until
    FROM delivery WHERE message_id = %(id)s::uuid
    UNION ALL
    SELECT id, seq, target_id, connector_id, sender, attempts, reason, hops, state,
           ended_at, holder, status, seconds, answer, NULL, false, NULL
    FROM ended_delivery WHERE message_id = %(id)s::uuid
)
SELECT d.id::text, d.state, d.reason, d.attempts, d.hops, d.ended_at, d.holder, d.status,
       d.seconds::float8, d.answer, now(), d.due_at, d.leased, d.leased_until, h.message_id::text,
       CASE WHEN d.state = 'pending' AND d.due_at IS NULL
            THEN (SELECT count(*) FROM delivery o
                  WHERE (o.target_id, o.connector_id, o.sender) = (d.target_id, d.connector_id, d.sender)
                    AND (o.seq < d.seq OR o.id = h.id)) END,
{_TARGET}
FROM own d
LEFT JOIN delivery h ON d.state = 'pending' AND d.due_at IS NULL AND h.due_at IS NOT NULL
      AND (h.target_id, h.connector_id, h.sender) = (d.target_id, d.connector_id, d.sender)
{_OF_TARGET}
ORDER BY d.seq
"""

ATTEMPTS = """
SELECT delivery_id::text, number, outcome, reason, ended_at, holder, status, seconds::float8, answer, next_at
FROM attempt WHERE message_id = %(id)s::uuid ORDER BY delivery_id, number
"""

_REFUSED = """
SELECT f.id::text, f.last_at, f.times, f.reason, f.receiver, f.sender, f.text, f.provider,
       f.provider_message_id, f.encoding, octet_length(f.raw_text), r.name || '/' || cl.name
FROM refused_sms f
LEFT JOIN connector c ON c.id = f.connector_id
LEFT JOIN client cl ON cl.id = c.client_id
LEFT JOIN reseller r ON r.id = cl.reseller_id
"""
REFUSED = f"{_REFUSED} WHERE f.id = %(id)s::uuid"

# By its own id, which every part heard, or by that of a part which came while PostgreSQL was away.
_INCOMPLETE = """
SELECT w.id::text, w.began_at, w.receiver, w.sender,
       (SELECT p.provider FROM sms_part p WHERE p.concatenation_id = w.id ORDER BY p.number LIMIT 1),
       w.reference, w.total,
       ARRAY(SELECT p.number FROM sms_part p WHERE p.concatenation_id = w.id ORDER BY p.number),
       ARRAY(SELECT n FROM generate_series(1, w.total) AS n
             WHERE n NOT IN (SELECT p.number FROM sms_part p WHERE p.concatenation_id = w.id) ORDER BY n),
       r.name || '/' || cl.name
FROM concatenation w
LEFT JOIN connector c ON c.id = w.connector_id
LEFT JOIN client cl ON cl.id = c.client_id
LEFT JOIN reseller r ON r.id = cl.reseller_id
WHERE w.ended_at IS NULL
"""
INCOMPLETE = f"""
{_INCOMPLETE} AND (w.id = %(id)s::uuid
                   OR w.id IN (SELECT p.concatenation_id FROM sms_part p WHERE p.id = %(id)s::uuid))
"""
INCOMPLETE_OF_PROVIDER = f"""
{_INCOMPLETE} AND w.id IN (SELECT p.concatenation_id FROM sms_part p WHERE p.provider_message_id = %(asked)s)
ORDER BY w.began_at, w.id LIMIT 1
"""
INCOMPLETE_OF_NUMBER = f"""
{_INCOMPLETE} AND (c.number_key = %(sender_key)s OR w.sender = ANY(%(senders)s::text[]))
ORDER BY w.began_at, w.id LIMIT %(rows)s
"""

# --- a number ---------------------------------------------------------------------------------

# The one in force, or else the one that was removed last.
CONNECTOR = f"""
SELECT d.id, d.client_id, d.number, d.number_key, d.target_id, d.require_token, d.sender_format,
       d.enabled, d.removed_at, oc.name, orr.name, oc.enabled AND orr.enabled, t.client_id, t.enabled,
{_TARGET}
FROM connector d
JOIN client oc ON oc.id = d.client_id
JOIN reseller orr ON orr.id = oc.reseller_id
{_OF_TARGET}
WHERE d.number_key = %(key)s
ORDER BY d.removed_at DESC NULLS FIRST LIMIT 1
"""

# Spelling by spelling, since only so each is read off the end of its index.
_NEWEST = """
    SELECT c.id FROM unnest(%(receivers)s::text[]) AS s(number)
    CROSS JOIN LATERAL (SELECT m.id FROM message m WHERE m.receiver = s.number
                        ORDER BY m.id DESC LIMIT %(rows)s) c
    UNION
    SELECT c.id FROM unnest(%(senders)s::text[]) AS s(number)
    CROSS JOIN LATERAL (SELECT m.id FROM message m WHERE m.sender = s.number
                        ORDER BY m.id DESC LIMIT %(rows)s) c"""
_AS_IT_CAME = f"SELECT m.id FROM message m WHERE {SENDER_AS_IT_CAME}"
NEWEST, NEWEST_IN_ANY_SPELLING = (
    f"""
WITH page AS MATERIALIZED (
    SELECT {MESSAGE_OF_PAGE} FROM message m WHERE m.id IN ({ids})
    ORDER BY m.id DESC LIMIT %(rows)s
)
{ROWS_OF_PAGE}
ORDER BY m.id DESC
"""
    for ids in (_NEWEST, f"{_NEWEST} UNION {_AS_IT_CAME}")
)

REFUSED_OF_NUMBER = f"""
{_REFUSED}
WHERE c.number_key = %(sender_key)s OR f.sender = ANY(%(senders)s::text[])
ORDER BY f.id DESC LIMIT %(rows)s
"""

PENDING = """
SELECT count(*) FILTER (WHERE {as_receiver}), count(*) FILTER (WHERE {as_sender}),
       count(*) FILTER (WHERE d.leased_until >= now()),
       count(*) FILTER (WHERE d.due_at > now() AND d.lease IS NULL), min(d.message_id::text)
FROM delivery d LEFT JOIN connector c ON c.id = d.connector_id
WHERE {as_receiver} OR {as_sender}
""".format(as_receiver="c.number_key = %(sender_key)s", as_sender="d.sender = ANY(%(senders)s::text[])")
