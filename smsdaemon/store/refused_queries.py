"""The statements about refused SMS; each is one transaction, except where it says otherwise."""

from __future__ import annotations

KEPT_FOR = "7 days"

KEEP = """
WITH input AS (
    SELECT coalesce(repeat_key, id::text) AS same, * FROM json_to_recordset(%(rows)s) AS r(
        n integer, id uuid, at timestamptz, reason text, connector_id bigint, receiver text, sender text,
        sender_raw text, text text, raw_text text, keyword text, provider text,
        provider_message_id text, encoding text, parts integer, repeat_key text,
        part_reference text, part_number integer, part_total integer)
), merged AS (
    SELECT DISTINCT ON (same) *,
           count(*) OVER (PARTITION BY same) AS came,
           max(at) OVER (PARTITION BY same) AS came_last,
           first_value(reason) OVER (PARTITION BY same ORDER BY n DESC) AS reason_last
    FROM input ORDER BY same, n
)
INSERT INTO refused_sms AS kept (id, last_at, times, reason, connector_id, receiver, sender, sender_raw,
                                 text, raw_text, keyword, provider, provider_message_id, encoding, parts,
                                 repeat_key, part_reference, part_number, part_total)
SELECT id, came_last, came, reason_last, connector_id, receiver, sender, sender_raw,
       text, decode(raw_text, 'hex'), keyword, provider, provider_message_id, encoding, parts,
       decode(repeat_key, 'hex'), part_reference, part_number, part_total
FROM merged m
-- Sent before, by a statement whose COMMIT went unanswered.
WHERE NOT EXISTS (SELECT FROM refused_sms r WHERE r.id = m.id)
ORDER BY same
ON CONFLICT (repeat_key) WHERE repeat_key IS NOT NULL DO UPDATE SET
    times = kept.times + EXCLUDED.times,
    last_at = greatest(kept.last_at, EXCLUDED.last_at),
    reason = EXCLUDED.reason
"""

# octet_length() of a long text reads its length, which is in the row, and not the text.
TRIM = """
WITH newest_first AS (
    SELECT id, row_number() OVER newest AS rows,
           sum(octet_length(text) + coalesce(octet_length(raw_text), 0)) OVER newest AS bytes
    FROM refused_sms WINDOW newest AS (ORDER BY id DESC ROWS UNBOUNDED PRECEDING)
), gone AS (
    DELETE FROM refused_sms WHERE id IN (
        SELECT id FROM newest_first WHERE rows > %(rows)s OR bytes > %(bytes)s
        ORDER BY id LIMIT %(at_once)s)
    RETURNING 1
)
SELECT count(*) FROM gone
"""

FORGET = f"""
WITH gone AS (
    DELETE FROM refused_sms WHERE id IN (
        SELECT id FROM refused_sms WHERE last_at < now() - interval '{KEPT_FOR}'
        ORDER BY id LIMIT %(at_once)s)
    AND last_at < now() - interval '{KEPT_FOR}'  -- again: as in message_queries.FORGET_REPEATS
    RETURNING 1
)
SELECT count(*) FROM gone
"""

# --- for people -------------------------------------------------------------------------------

# By the connector's own key: it also finds what came before the number was spelled otherwise. A
# connector that was removed keeps its row.
_CHOSEN = """
FROM refused_sms r LEFT JOIN connector c ON c.id = r.connector_id
WHERE r.id > %(after)s::uuid
  AND (%(receiver_key)s::text IS NULL OR c.number_key = %(receiver_key)s)
"""

LIST = f"""
SELECT r.id::text, to_char(r.last_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), r.times,
       r.receiver, r.sender, r.reason, r.provider_message_id, r.text
{_CHOSEN}
ORDER BY r.id LIMIT %(rows)s
"""

# These four are steps of one transaction with message_queries.ACCEPT between them, and what parts need.
TAKE = f"""
SELECT r.id::text, c.client_id, r.receiver, r.sender_raw, r.text, r.raw_text, r.keyword, r.provider,
       r.provider_message_id, r.encoding, r.parts, r.part_reference, r.part_number, r.part_total
{_CHOSEN}
  AND (%(id)s::uuid IS NULL OR r.id = %(id)s)
ORDER BY r.id LIMIT %(rows)s FOR UPDATE OF r
"""
REMOVE = "DELETE FROM refused_sms WHERE id = ANY(%(ids)s::uuid[])"
STILL_REFUSED = """
UPDATE refused_sms r SET reason = i.reason
FROM unnest(%(ids)s::uuid[], %(reasons)s::text[]) AS i(id, reason)
WHERE r.id = i.id AND r.reason <> i.reason
"""
NOTIFY = "NOTIFY smsdaemon_delivery"
