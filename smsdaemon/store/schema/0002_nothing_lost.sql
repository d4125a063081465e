-- What it takes to lose nothing while PostgreSQL is away, and to say what happened to an SMS. All new
-- columns may be NULL, so that a smsdaemon of the schema before can go on while this one is installed.
-- oldest-code: 1

-- The text's bytes as they came, where decoding them again could give something else (smsdaemon
-- redecode); `encoding` is the charset that was used. NULL for plain ASCII.
ALTER TABLE message ADD COLUMN raw_text bytea;

-- Other ids of an SMS: a provider that repeated it while PostgreSQL was away heard another one.
CREATE TABLE message_alias (
    id         uuid NOT NULL PRIMARY KEY,
    message_id uuid NOT NULL
);

-- Who has the lease: host:process, for people.
ALTER TABLE delivery ADD COLUMN holder text;

-- === What happened =============================================================================
-- An attempt that ended its delivery is told with it; those before it have a row each in `attempt`,
-- which the common case, delivered at the first attempt, so never needs.

ALTER TABLE ended_delivery
    ADD COLUMN holder text,
    ADD COLUMN status integer,     -- of the target's answer; NULL: there was none
    ADD COLUMN seconds real,       -- from the beginning of the attempt to its end
    ADD COLUMN answer text;        -- its first 200 characters

CREATE TABLE attempt (
    message_id  uuid NOT NULL,
    delivery_id uuid NOT NULL,
    number      integer NOT NULL,          -- among all of the delivery, from 1
    ended_at    timestamptz NOT NULL,
    holder      text,
    outcome     text NOT NULL CHECK (outcome IN ('retry', 'lost', 'delivered', 'dead')),
    reason      text NOT NULL,             -- lost: the lease ran out and nothing was recorded
    status      integer,
    seconds     real,
    answer      text,
    next_at     timestamptz,               -- when the next attempt was due
    PRIMARY KEY (message_id, delivery_id, number)
) PARTITION BY RANGE (message_id);
CREATE TABLE attempt_elsewhen PARTITION OF attempt DEFAULT;

-- As in 0001, with `attempt`.
CREATE OR REPLACE FUNCTION make_partitions(at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first   timestamptz := date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    past    timestamptz := (date_trunc('month', at AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
    suffix  text := to_char(at AT TIME ZONE 'UTC', 'YYYYMM');
    low     uuid := (lpad(to_hex((extract(epoch FROM first) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
    high    uuid := (lpad(to_hex((extract(epoch FROM past) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
    parent  text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['message', 'ended_delivery', 'attempt'] LOOP
        IF to_regclass(parent || '_' || suffix) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                               parent || '_' || suffix, parent, low, high);
            EXCEPTION WHEN check_violation THEN
                RAISE WARNING 'rows of % are in the default partition of %', suffix, parent;
            END;
        END IF;
    END LOOP;
END $$;

-- === Targets that are left alone ===============================================================
-- A row while a target's breaker is open. Whoever claims the next probe moves `probe_at`, so that
-- there is one probe at a time on any number of processes. Changes are notified on smsdaemon_breaker.
CREATE TABLE open_breaker (
    target_id bigint NOT NULL PRIMARY KEY,
    opened_at timestamptz NOT NULL,
    probe_at  timestamptz NOT NULL,
    reason    text NOT NULL
);

-- === Refused SMS ===============================================================================
-- What was answered 502: valid, for a connector of ours, which could not pass it on. Kept for 7 days,
-- capped in number (store/refused.py), and accepted by `smsdaemon refused retry` once it can.
CREATE TABLE refused_sms (
    id                  uuid NOT NULL PRIMARY KEY,   -- UUIDv7 of the first time
    last_at             timestamptz NOT NULL,
    times               integer NOT NULL DEFAULT 1,  -- how often it came, where it can be recognised
    reason              text NOT NULL,               -- of the last time
    connector_id        bigint NOT NULL,
    receiver            text NOT NULL,
    sender              text NOT NULL,
    sender_raw          text NOT NULL,
    text                text NOT NULL,
    raw_text            bytea,
    keyword             text,
    provider            text NOT NULL,
    provider_message_id text,
    encoding            text NOT NULL,
    parts               integer NOT NULL,
    repeat_key          bytea                        -- intake.provider_key(); NULL: not recognisable
);
CREATE UNIQUE INDEX refused_sms_repeat ON refused_sms (repeat_key) WHERE repeat_key IS NOT NULL;
CREATE INDEX refused_sms_connector ON refused_sms (connector_id, id);
CREATE INDEX refused_sms_sender ON refused_sms (sender, id);
