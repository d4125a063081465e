-- The first schema. Applied in one transaction by smsdaemon/store/migrate.py; never edited, later
-- changes are new files. Names follow the glossary in docs/architecture.md.

-- Who may run on this schema: `oldest_code` is the lowest code schema number that still can.
CREATE TABLE schema_version (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    number      integer NOT NULL,
    oldest_code integer NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- === The directory ==========================================================================
-- What is removed keeps its row (removed_at), so that history can always say whose an SMS was;
-- names and numbers are unique among what is not removed.

CREATE TABLE reseller (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL CHECK (name <> '' AND name !~ '/'),
    enabled    boolean NOT NULL DEFAULT true,
    removed_at timestamptz
);
CREATE UNIQUE INDEX reseller_name ON reseller (name) WHERE removed_at IS NULL;

CREATE TABLE client (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reseller_id    bigint NOT NULL REFERENCES reseller,
    name           text NOT NULL CHECK (name <> '' AND name !~ '/'),
    enabled        boolean NOT NULL DEFAULT true,
    retention_days integer NOT NULL DEFAULT 90 CHECK (retention_days >= 0),
    removed_at     timestamptz
);
CREATE UNIQUE INDEX client_name ON client (reseller_id, name) WHERE removed_at IS NULL;

CREATE TABLE target (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id  bigint NOT NULL REFERENCES client,
    kind       text NOT NULL CHECK (kind IN ('acd_group', 'application')),
    name       text NOT NULL CHECK (name <> ''),
    url        text NOT NULL,
    secret     text NOT NULL,
    subject    text NOT NULL DEFAULT '',
    enabled    boolean NOT NULL DEFAULT true,
    removed_at timestamptz
);
CREATE UNIQUE INDEX target_name ON target (client_id, kind, name) WHERE removed_at IS NULL;

CREATE TABLE connector (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id     bigint NOT NULL REFERENCES client,
    number        text NOT NULL,
    number_key    text NOT NULL CHECK (number_key <> ''),  -- as compared, domain/numbers.py
    -- May belong to another client (a connector moved without its target): that is answered 502.
    target_id     bigint REFERENCES target,
    require_token boolean NOT NULL DEFAULT false,
    sender_format text NOT NULL DEFAULT 'e164' CHECK (sender_format IN ('e164', 'as-is')),
    enabled       boolean NOT NULL DEFAULT true,
    removed_at    timestamptz
);
CREATE UNIQUE INDEX connector_number ON connector (number_key) WHERE removed_at IS NULL;
CREATE INDEX connector_target ON connector (target_id);

CREATE TABLE connector_token (
    connector_id bigint NOT NULL REFERENCES connector ON DELETE CASCADE,
    hash         bytea NOT NULL CHECK (octet_length(hash) = 32),  -- SHA-256 of the token
    PRIMARY KEY (connector_id, hash)
);

-- Every running process listens; it then reads the directory anew. Deferred to the commit and sent
-- once for a transaction, however many rows it touches.
CREATE FUNCTION notify_directory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('smsdaemon_directory', '');
    RETURN NULL;
END $$;
CREATE TRIGGER notify_directory AFTER INSERT OR UPDATE OR DELETE ON reseller
    FOR EACH STATEMENT EXECUTE FUNCTION notify_directory();
CREATE TRIGGER notify_directory AFTER INSERT OR UPDATE OR DELETE ON client
    FOR EACH STATEMENT EXECUTE FUNCTION notify_directory();
CREATE TRIGGER notify_directory AFTER INSERT OR UPDATE OR DELETE ON target
    FOR EACH STATEMENT EXECUTE FUNCTION notify_directory();
CREATE TRIGGER notify_directory AFTER INSERT OR UPDATE OR DELETE ON connector
    FOR EACH STATEMENT EXECUTE FUNCTION notify_directory();
CREATE TRIGGER notify_directory AFTER INSERT OR UPDATE OR DELETE ON connector_token
    FOR EACH STATEMENT EXECUTE FUNCTION notify_directory();

-- === History: append-mostly, partitioned by time =============================================
-- Ids are UUIDv7, which begin with the time. So the id alone is partition key and primary key, and
-- whoever holds an id finds the row in one partition (ADR 2). No foreign keys on these tables: they
-- cost locks on the same few directory rows for every SMS, and the directory never loses a row.

CREATE TABLE message (
    id                  uuid NOT NULL PRIMARY KEY,
    received_at         timestamptz NOT NULL,
    connector_id        bigint NOT NULL,
    client_id           bigint NOT NULL,   -- the connector's client when the SMS came
    receiver            text NOT NULL,
    sender              text NOT NULL,
    sender_raw          text NOT NULL,
    text                text NOT NULL,
    keyword             text,
    provider            text NOT NULL,
    provider_message_id text,
    encoding            text NOT NULL,
    parts               integer NOT NULL
) PARTITION BY RANGE (id);
CREATE TABLE message_elsewhen PARTITION OF message DEFAULT;
CREATE INDEX message_receiver ON message (receiver, id);
CREATE INDEX message_sender ON message (sender, id);

-- Deliveries that have ended; partitioned with their message. A redelivery moves the row back.
CREATE TABLE ended_delivery (
    message_id   uuid NOT NULL,
    seq          bigint NOT NULL,
    id           uuid NOT NULL,
    connector_id bigint NOT NULL,
    sender       text NOT NULL,
    target_id    bigint NOT NULL,
    state        text NOT NULL CHECK (state IN ('delivered', 'dead')),
    reason       text NOT NULL,
    attempts     integer NOT NULL,
    hops         jsonb NOT NULL,
    ended_at     timestamptz NOT NULL,
    PRIMARY KEY (message_id, seq)
) PARTITION BY RANGE (message_id);
CREATE TABLE ended_delivery_elsewhen PARTITION OF ended_delivery DEFAULT;
CREATE INDEX ended_delivery_dead ON ended_delivery (target_id, message_id) WHERE state = 'dead';

-- Makes the partitions of the given month (any time in it); calling it again does nothing.
CREATE FUNCTION make_partitions(at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first   timestamptz := date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    past    timestamptz := (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
    suffix  text := to_char(at AT TIME ZONE 'UTC', 'YYYYMM');
    low     uuid := (lpad(to_hex((extract(epoch FROM first) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
    high    uuid := (lpad(to_hex((extract(epoch FROM past) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
    parent  text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['message', 'ended_delivery'] LOOP
        IF to_regclass(parent || '_' || suffix) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               parent || '_' || suffix, parent, low, high);
            EXCEPTION WHEN check_violation THEN
                -- A clock that was ahead has left rows of that month in the default partition. They
                -- are found there as well; failing here would keep the daemon from starting.
                RAISE WARNING 'rows of % are in the default partition of %', suffix, parent;
            END;
        END IF;
    END LOOP;
END $$;

-- === What is pending: small, hot =============================================================

-- One row per delivery that has not ended. `due_at` is set on the head of its conversation only,
-- that is on the oldest delivery with the same connector, sender and target; the others wait for it
-- with NULL. So the index of what is due holds no row that may not be taken, and two attempts in one
-- conversation cannot overlap on any number of processes, because only a head can be leased.
CREATE TABLE delivery (
    id               uuid NOT NULL PRIMARY KEY,
    seq              bigint GENERATED BY DEFAULT AS IDENTITY,  -- order of acceptance
    message_id       uuid NOT NULL,
    connector_id     bigint NOT NULL,
    sender           text NOT NULL,
    target_id        bigint NOT NULL,
    due_at           timestamptz,
    lease            uuid,
    leased_until     timestamptz,
    attempts         integer NOT NULL DEFAULT 0,
    round_attempts   integer NOT NULL DEFAULT 0,
    round_started_at timestamptz,
    reason           text NOT NULL DEFAULT '',
    hops             jsonb NOT NULL DEFAULT '[]',
    CHECK ((lease IS NULL) = (leased_until IS NULL)),
    CHECK (lease IS NULL OR due_at IS NOT NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX delivery_head ON delivery (target_id, connector_id, sender) WHERE due_at IS NOT NULL;
CREATE INDEX delivery_conversation ON delivery (target_id, connector_id, sender, seq);
CREATE INDEX delivery_due ON delivery (target_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX delivery_message ON delivery (message_id);

-- Requests that may come again: what they have in common, and the SMS that the first one became.
CREATE TABLE provider_repeat (
    key        bytea NOT NULL PRIMARY KEY,  -- intake.provider_key()
    message_id uuid NOT NULL,
    seen_at    timestamptz NOT NULL
);
CREATE INDEX provider_repeat_seen ON provider_repeat (seen_at);
