-- Data keys: what secrets are sealed with, each wrapped by the master key, which is not in the database.
CREATE TABLE data_key (
    tenant_id uuid NOT NULL,
    key_id text NOT NULL COLLATE "C",
    wrapped bytea NOT NULL,
    master_key_id text NOT NULL COLLATE "C",
    state text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    retire_time timestamptz,
    PRIMARY KEY (tenant_id, key_id),
    -- What sealed secrets before there were data keys has names of other letters.
    CONSTRAINT key_id_is_ours CHECK (key_id ~ '^k[0-9a-f]{16}$'),
    CONSTRAINT state_is_known CHECK (state IN ('active', 'retired', 'lost')),
    CONSTRAINT active_is_not_retired CHECK ((state = 'active') = (retire_time IS NULL))
);

-- For the rule that a tenant seals with one key at a time.
CREATE UNIQUE INDEX data_key_active ON data_key (tenant_id) WHERE state = 'active';

-- For what is left to do after the master key was changed.
CREATE INDEX data_key_master ON data_key (master_key_id, tenant_id, key_id);
