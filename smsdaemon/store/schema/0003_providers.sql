-- Providers' profiles: whose requests a connector takes, and what their signatures are checked with. All new
-- columns have defaults, so that a smsdaemon of the schema before can go on while this one is installed.
-- oldest-code: 2

ALTER TABLE connector
    ADD COLUMN providers        text[] NOT NULL DEFAULT '{generic}' CHECK (cardinality(providers) > 0),
    ADD COLUMN provider_secrets text[] NOT NULL DEFAULT '{}',
    ADD COLUMN unsigned         boolean NOT NULL DEFAULT false;

-- What a signature scheme says may come once only, and the digest of what it came with: with other content it
-- is refused. Forgotten after a day; schemes refuse what is older by its timestamp.
CREATE TABLE provider_nonce (
    connector_id bigint NOT NULL,
    nonce        bytea NOT NULL,            -- a digest: providers' own may be long
    content      bytea NOT NULL,
    seen_at      timestamptz NOT NULL,
    PRIMARY KEY (connector_id, nonce)
);
CREATE INDEX provider_nonce_seen ON provider_nonce (seen_at);
