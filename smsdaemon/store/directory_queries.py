"""The statements that read and change the directory.

Many rows go in as one JSON document (psycopg2 in asynchronous mode has neither COPY nor pipeline) and
come out through a cursor in slices, so that 100,000 of them never hold up the reactor.
"""

# --- reading ---------------------------------------------------------------------------------

CONSISTENT_READ = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

FETCH = "FETCH 1000 FROM directory_rows"

CLOSE = "CLOSE directory_rows"

RESELLERS = """
    DECLARE directory_rows NO SCROLL CURSOR FOR
    SELECT id, name, enabled FROM reseller WHERE removed_at IS NULL ORDER BY id
"""

CLIENTS = """
    DECLARE directory_rows NO SCROLL CURSOR FOR
    SELECT c.id, r.name, c.name, c.enabled, r.enabled
    FROM client c JOIN reseller r ON r.id = c.reseller_id
    WHERE c.removed_at IS NULL ORDER BY c.id
"""

TARGETS = """
    DECLARE directory_rows NO SCROLL CURSOR FOR
    SELECT id, client_id, kind, name, url, secret, subject, enabled
    FROM target WHERE removed_at IS NULL ORDER BY id
"""

# The hashes of a connector come as one bytea, 32 bytes each: an array would have to be parsed here. So
# would those of providers, which are NULL where they are as nearly all are.
CONNECTORS = """
    DECLARE directory_rows NO SCROLL CURSOR FOR
    SELECT c.id, c.client_id, c.number, c.number_key, c.target_id, c.require_token, c.sender_format,
           c.enabled, t.hashes, NULLIF(c.providers, '{generic}'), NULLIF(c.provider_secrets, '{}'), c.unsigned
    FROM connector c
    LEFT JOIN (SELECT connector_id, string_agg(hash, ''::bytea ORDER BY hash) AS hashes
               FROM connector_token GROUP BY connector_id) t ON t.connector_id = c.id
    WHERE c.removed_at IS NULL ORDER BY c.id
"""

# --- changing --------------------------------------------------------------------------------

# A large directory may take longer than any statement of the daemon should.
NO_TIMEOUTS = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"

LOCK = "SELECT pg_advisory_xact_lock(%(lock)s)"

CREATE_RESELLERS = """
    INSERT INTO reseller (name, enabled)
    SELECT name, enabled FROM json_to_recordset(%(rows)s) AS n(name text, enabled boolean)
    RETURNING name, id
"""

UPDATE_RESELLERS = """
    UPDATE reseller r SET enabled = n.enabled
    FROM json_to_recordset(%(rows)s) AS n(id bigint, enabled boolean) WHERE r.id = n.id
"""

CREATE_CLIENTS = """
    INSERT INTO client (reseller_id, name, enabled)
    SELECT reseller_id, name, enabled
    FROM json_to_recordset(%(rows)s) AS n(reseller_id bigint, name text, enabled boolean)
    RETURNING reseller_id, name, id
"""

UPDATE_CLIENTS = """
    UPDATE client c SET enabled = n.enabled
    FROM json_to_recordset(%(rows)s) AS n(id bigint, enabled boolean) WHERE c.id = n.id
"""

CREATE_TARGETS = """
    INSERT INTO target (client_id, kind, name, url, secret, subject, enabled)
    SELECT client_id, kind, name, url, secret, subject, enabled
    FROM json_to_recordset(%(rows)s) AS n(client_id bigint, kind text, name text, url text, secret text,
                                          subject text, enabled boolean)
    RETURNING client_id, kind, name, id
"""

UPDATE_TARGETS = """
    UPDATE target t SET url = n.url, secret = n.secret, subject = n.subject, enabled = n.enabled
    FROM json_to_recordset(%(rows)s) AS n(id bigint, url text, secret text, subject text, enabled boolean)
    WHERE t.id = n.id
"""

CREATE_CONNECTORS = """
    INSERT INTO connector (client_id, number, number_key, target_id, require_token, sender_format,
                           providers, provider_secrets, unsigned, enabled)
    SELECT client_id, number, number_key, target_id, require_token, sender_format,
           providers, provider_secrets, unsigned, enabled
    FROM json_to_recordset(%(rows)s) AS n(
        client_id bigint, number text, number_key text, target_id bigint, require_token boolean,
        sender_format text, providers text[], provider_secrets text[], unsigned boolean, enabled boolean)
    RETURNING number_key, id
"""

UPDATE_CONNECTORS = """
    UPDATE connector c SET client_id = n.client_id, number = n.number, target_id = n.target_id,
        require_token = n.require_token, sender_format = n.sender_format, providers = n.providers,
        provider_secrets = n.provider_secrets, unsigned = n.unsigned, enabled = n.enabled
    FROM json_to_recordset(%(rows)s) AS n(
        id bigint, client_id bigint, number text, target_id bigint, require_token boolean,
        sender_format text, providers text[], provider_secrets text[], unsigned boolean, enabled boolean)
    WHERE c.id = n.id
"""

DROP_TOKENS = """
    DELETE FROM connector_token t
    USING json_to_recordset(%(rows)s) AS n(connector_id bigint, hash text)
    WHERE t.connector_id = n.connector_id AND t.hash = decode(n.hash, 'hex')
"""

ADD_TOKENS = """
    INSERT INTO connector_token (connector_id, hash)
    SELECT connector_id, decode(hash, 'hex')
    FROM json_to_recordset(%(rows)s) AS n(connector_id bigint, hash text)
"""

REMOVE_RESELLERS = "UPDATE reseller SET removed_at = %(now)s WHERE id = ANY(%(ids)s)"
REMOVE_CLIENTS = "UPDATE client SET removed_at = %(now)s WHERE id = ANY(%(ids)s)"
REMOVE_TARGETS = "UPDATE target SET removed_at = %(now)s WHERE id = ANY(%(ids)s)"
REMOVE_CONNECTORS = "UPDATE connector SET removed_at = %(now)s WHERE id = ANY(%(ids)s)"

# --- what is pending for something that is to be removed -------------------------------------

PENDING_BY_CONNECTOR = """
    SELECT connector_id, count(*) FROM delivery WHERE connector_id = ANY(%(ids)s) GROUP BY connector_id
"""

PENDING_BY_TARGET = """
    SELECT target_id, count(*) FROM delivery WHERE target_id = ANY(%(ids)s) GROUP BY target_id
"""

# Two statements: who adds to a conversation holds its head until the commit (queries.py), and only a
# statement that begins after that sees what was added. Locked in the order of ids, like everywhere.
HOLD_DELIVERIES = """
    SELECT id FROM delivery
    WHERE connector_id = ANY(%(connectors)s) OR target_id = ANY(%(targets)s) ORDER BY id FOR UPDATE
"""

BURY_DELIVERIES = """
    WITH gone AS (
        DELETE FROM delivery WHERE connector_id = ANY(%(connectors)s) OR target_id = ANY(%(targets)s)
        RETURNING id, seq, message_id, connector_id, sender, target_id, attempts, hops
    )
    INSERT INTO ended_delivery (message_id, seq, id, connector_id, sender, target_id, state, reason,
                                attempts, hops, ended_at)
    SELECT message_id, seq, id, connector_id, sender, target_id, 'dead',
           CASE WHEN connector_id = ANY(%(connectors)s) THEN 'connector removed' ELSE 'target removed' END,
           attempts, hops, %(now)s
    FROM gone
"""
