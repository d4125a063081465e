-- Concatenated SMS: parts that wait for each other, and what is remembered of those that were joined. All
-- that is new in old tables may be NULL, so that a smsdaemon of the schema before can go on meanwhile.
-- oldest-code: 1

-- Of an SMS that was given up: the numbers of the parts that did not come.
ALTER TABLE message ADD COLUMN parts_missing integer[];

-- One row per concatenated SMS that waits, or that was joined or given up a while ago. Whoever changes
-- anything of a key holds an advisory lock on it (store/part_queries.py).
CREATE TABLE concatenation (
    id           uuid NOT NULL PRIMARY KEY,   -- that of the first part; the joined SMS has it
    key          bytea NOT NULL,              -- domain.concatenation.key_of()
    connector_id bigint NOT NULL,
    receiver     text NOT NULL,
    sender       text NOT NULL,
    reference    text NOT NULL,
    total        integer NOT NULL CHECK (total BETWEEN 2 AND 255),
    began_at     timestamptz NOT NULL,
    ended_at     timestamptz                  -- NULL: it waits
);
CREATE UNIQUE INDEX concatenation_waiting ON concatenation (key) WHERE ended_at IS NULL;
CREATE INDEX concatenation_began ON concatenation (began_at) WHERE ended_at IS NULL;
CREATE INDEX concatenation_ended ON concatenation (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE sms_part (
    id                  uuid NOT NULL PRIMARY KEY,   -- of the request that brought it
    concatenation_id    uuid NOT NULL REFERENCES concatenation ON DELETE CASCADE,
    number              integer NOT NULL CHECK (number >= 1),
    digest              bytea NOT NULL,              -- domain.concatenation.digest_of()
    received_at         timestamptz NOT NULL,
    client_id           bigint NOT NULL,
    target_id           bigint NOT NULL,
    sender_raw          text NOT NULL,
    text                text,                        -- NULL once the SMS has it
    raw_text            bytea,
    keyword             text,
    provider            text NOT NULL,
    provider_message_id text,
    encoding            text NOT NULL,
    UNIQUE (concatenation_id, number)
);
CREATE INDEX sms_part_digest ON sms_part (digest);

-- What was answered 502 can be a part; all three or none.
ALTER TABLE refused_sms
    ADD COLUMN part_reference text,
    ADD COLUMN part_number integer,
    ADD COLUMN part_total integer;
