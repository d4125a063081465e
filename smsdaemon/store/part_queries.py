"""The statements about parts of concatenated SMS: steps of transactions, by store.parts and store.give_up.

Whoever reads or changes anything of a key takes an advisory lock on it first, in the order of their
numbers, and reads in a later statement, whose snapshot sees what the last holder has committed. A row lock
would not do: there is no row yet when two parts of an SMS come at once.
"""

KNOWN_FOR = "7 days"
"""As long as any repeat (message_queries.REPEATS_ARE_KNOWN_FOR)."""
KNOWN_WITHOUT_ID_FOR = "1 hour"
"""A part that comes again without an id of its provider's."""

# A process that is stopped in between must not hold up a conversation, and all that is settled with it,
# until it goes on: that is less than the time a batch behind it is waited for.
BOUND = "SET LOCAL idle_in_transaction_session_timeout = 1000"

LOCK = """
SELECT pg_advisory_xact_lock(%(class)s, lock)
FROM (SELECT DISTINCT lock FROM unnest(%(locks)s::integer[]) AS l(lock) ORDER BY lock) AS in_order
"""
TRY_LOCK = """
SELECT lock FROM (SELECT DISTINCT lock FROM unnest(%(locks)s::integer[]) AS l(lock)) AS any_order
WHERE pg_try_advisory_xact_lock(%(class)s, lock)
"""

_WAITING = """
SELECT c.key, c.id, c.connector_id, c.receiver, c.sender, c.reference, c.total,
       p.id, p.number, p.received_at, p.client_id, p.target_id, p.sender_raw, p.text, p.raw_text, p.keyword,
       p.provider, p.provider_message_id, p.encoding
FROM concatenation c JOIN sms_part p ON p.concatenation_id = c.id
WHERE c.ended_at IS NULL AND c.key = ANY(%(keys)s::bytea[])
"""
WAITING = f"{_WAITING} ORDER BY c.id, p.number"
OVERDUE_NOW = f"""
{_WAITING} AND c.began_at <= now() - %(timeout)s * interval '1 second'
ORDER BY c.began_at, c.id, p.number
"""
OVERDUE = """
SELECT key FROM concatenation
WHERE ended_at IS NULL AND began_at <= now() - %(timeout)s * interval '1 second'
ORDER BY began_at LIMIT %(at_once)s
"""

PAST = f"""
SELECT p.digest, p.id, p.concatenation_id, p.provider_message_id,
       c.ended_at > now() - interval '{KNOWN_WITHOUT_ID_FOR}'
FROM sms_part p JOIN concatenation c ON c.id = p.concatenation_id
WHERE c.ended_at IS NOT NULL AND p.digest = ANY(%(digests)s::bytea[])
ORDER BY c.ended_at DESC, c.id
"""

# In this order: of a key one waits at a time.
STORE = """
UPDATE concatenation SET ended_at = now() WHERE id = ANY(%(ended)s::uuid[]);

INSERT INTO concatenation (id, key, connector_id, receiver, sender, reference, total, began_at, ended_at)
SELECT id, decode(key, 'hex'), connector_id, receiver, sender, reference, total, now(),
       CASE WHEN id = ANY(%(ended)s::uuid[]) THEN now() END
FROM json_to_recordset(%(begun)s) AS r(
    id uuid, key text, connector_id bigint, receiver text, sender text, reference text, total integer);

UPDATE sms_part SET text = NULL, raw_text = NULL, keyword = NULL
WHERE concatenation_id = ANY(%(ended)s::uuid[]);

INSERT INTO sms_part (id, concatenation_id, number, digest, received_at, client_id, target_id, sender_raw,
                      text, raw_text, keyword, provider, provider_message_id, encoding)
SELECT id, concatenation_id, number, decode(digest, 'hex'), received_at, client_id, target_id, sender_raw,
       CASE WHEN ended IS NULL THEN text END, CASE WHEN ended IS NULL THEN decode(raw_text, 'hex') END,
       CASE WHEN ended IS NULL THEN keyword END, provider, provider_message_id, encoding
FROM json_to_recordset(%(parts)s) AS r(
    id uuid, concatenation_id uuid, number integer, digest text, received_at timestamptz, client_id bigint,
    target_id bigint, sender_raw text, text text, raw_text text, keyword text, provider text,
    provider_message_id text, encoding text)
LEFT JOIN unnest(%(ended)s::uuid[]) AS e(ended) ON ended = concatenation_id
"""

MISSING = """
UPDATE message m SET parts_missing = ARRAY(SELECT json_array_elements_text(r.missing)::integer)
FROM json_to_recordset(%(rows)s) AS r(id uuid, missing json) WHERE m.id = r.id
"""

# Of parts that come out of the journal: as message_queries.REPLAY does it for whole SMS.
REPLAYED = """
INSERT INTO message_alias (id, message_id)
SELECT id, concatenation_id FROM json_to_recordset(%(rows)s) AS r(id uuid, concatenation_id uuid)
WHERE id <> concatenation_id
ON CONFLICT DO NOTHING;

UPDATE delivery d SET
    lease = NULL, leased_until = NULL, holder = NULL, round_started_at = NULL,
    attempts = d.attempts - 1, round_attempts = d.round_attempts - 1
FROM json_to_recordset(%(rows)s) AS r(delivery_id uuid, lost_lease uuid)
WHERE d.id = r.delivery_id AND d.lease = r.lost_lease
"""

FORGET = f"""
WITH forgotten AS (
    DELETE FROM concatenation WHERE id IN (
        SELECT id FROM concatenation
        WHERE ended_at < now() - interval '{KNOWN_FOR}' ORDER BY ended_at LIMIT %(at_once)s)
    RETURNING 1)
SELECT count(*) FROM forgotten
"""
NOTIFY = "NOTIFY smsdaemon_delivery"
