-- Records are sealed: each in the chain of its tenant, with what may be about a person in a body that can be erased.

-- What is here already waits to be sealed (services/audit/resealing.py), which happens before anything is appended.
ALTER TABLE record RENAME TO unsealed_record;
ALTER INDEX record_pkey RENAME TO unsealed_record_pkey;
ALTER INDEX record_id RENAME TO unsealed_record_id;
ALTER INDEX record_action RENAME TO unsealed_record_action;
ALTER INDEX record_user RENAME TO unsealed_record_user;
ALTER INDEX record_time RENAME TO unsealed_record_time;

-- The hash of the last record. NULL while the tenant's records wait to be sealed.
ALTER TABLE head ADD COLUMN hash bytea;
ALTER TABLE head ALTER COLUMN hash SET DEFAULT decode(repeat('00', 32), 'hex');
ALTER TABLE head ADD CONSTRAINT hash_is_sha256 CHECK (octet_length(hash) = 32);

-- What stays for ever. Nobody changes it, nobody removes it.
CREATE TABLE record (
    tenant_id uuid NOT NULL,
    sequence bigint NOT NULL,
    record_id uuid NOT NULL,
    user_id uuid,
    actor text NOT NULL,
    action text NOT NULL COLLATE "C",
    -- An id of ours, never a person's words.
    target text NOT NULL,
    session_id text NOT NULL,
    channel text NOT NULL,
    duration_us bigint,
    create_time timestamptz NOT NULL,
    append_time timestamptz NOT NULL,
    commitment bytea NOT NULL,
    hash bytea NOT NULL,
    -- For a page of the whole log, newest first, and for the chain.
    PRIMARY KEY (tenant_id, sequence),
    CONSTRAINT sequence_begins_at_one CHECK (sequence >= 1),
    CONSTRAINT actor_is_known CHECK (
        actor IN ('system', 'anonymous') OR actor LIKE 'user:_%' OR actor LIKE 'agent:_%' OR actor LIKE 'service:_%'
    ),
    CONSTRAINT action_is_dotted CHECK (action ~ '^[a-z0-9_]+(\.[a-z0-9_]+)+$'),
    CONSTRAINT commitment_is_sha256 CHECK (octet_length(commitment) = 32),
    CONSTRAINT hash_is_sha256 CHECK (octet_length(hash) = 32)
);

-- For a record that is sent again: it is known already.
CREATE UNIQUE INDEX record_id ON record (tenant_id, record_id);

-- For one action or all that begin alike, newest first within an action.
CREATE INDEX record_action ON record (tenant_id, action, sequence DESC);

-- For what was done on behalf of one user, newest first.
CREATE INDEX record_user ON record (tenant_id, user_id, sequence DESC) WHERE user_id IS NOT NULL;

-- For a span of time.
CREATE INDEX record_time ON record (tenant_id, create_time);

-- What can be erased. The record holds its commitment.
CREATE TABLE body (
    tenant_id uuid NOT NULL,
    sequence bigint NOT NULL,
    salt bytea NOT NULL,
    ip_address text NOT NULL,
    user_agent text NOT NULL,
    -- As text, since it is hashed as text.
    payload json NOT NULL,
    PRIMARY KEY (tenant_id, sequence),
    CONSTRAINT salt_is_long CHECK (octet_length(salt) BETWEEN 16 AND 32),
    CONSTRAINT payload_is_an_object CHECK (json_typeof(payload) = 'object')
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE record ENABLE ALWAYS TRIGGER append_only;

CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON body FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE body ENABLE ALWAYS TRIGGER append_only;

CREATE TRIGGER never_empty BEFORE TRUNCATE ON head FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE head ENABLE ALWAYS TRIGGER never_empty;

REVOKE UPDATE, DELETE, TRUNCATE ON record FROM PUBLIC, CURRENT_USER;
REVOKE UPDATE, TRUNCATE ON body FROM PUBLIC, CURRENT_USER;

-- A body goes only when a later record of its chain says so: that its user was erased, or that its category expired.
CREATE FUNCTION refuse_unsaid_erasure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM record AS erased, record AS erasure
        WHERE
            erased.tenant_id = OLD.tenant_id AND erased.sequence = OLD.sequence
            AND erasure.tenant_id = OLD.tenant_id AND erasure.sequence > OLD.sequence
            AND (
                (erasure.action = 'data.audit_erase' AND erasure.target = 'user:' || erased.user_id)
                OR (
                    erasure.action = 'data.audit_expire'
                    AND split_part(erasure.target, ':', 1) = split_part(erased.action, '.', 1)
                    AND erased.create_time < to_timestamp(split_part(erasure.target, ':', 2)::float8)
                )
            )
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only: no record says that this body is erased'
        USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER only_on_record BEFORE DELETE ON body FOR EACH ROW EXECUTE FUNCTION refuse_unsaid_erasure();
ALTER TABLE body ENABLE ALWAYS TRIGGER only_on_record;

-- What was signed: the ends of all chains at a time. `size` is how many records they have together.
CREATE TABLE checkpoint (
    size bigint PRIMARY KEY,
    note text NOT NULL,
    create_time timestamptz NOT NULL
);

-- The ends that had moved since the checkpoint before. The others are the ones of earlier checkpoints.
CREATE TABLE checkpoint_head (
    tenant_id uuid NOT NULL,
    size bigint NOT NULL REFERENCES checkpoint,
    sequence bigint NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (tenant_id, size)
);

-- For a walk through all checkpoints.
CREATE INDEX checkpoint_head_size ON checkpoint_head (size, tenant_id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE checkpoint ENABLE ALWAYS TRIGGER append_only;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON checkpoint_head
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE checkpoint_head ENABLE ALWAYS TRIGGER append_only;

-- Up to which checkpoint each second place has them.
CREATE TABLE publication (
    place text PRIMARY KEY,
    size bigint NOT NULL
);

-- Up to which record each receiver of the stream has a tenant's chain.
CREATE TABLE stream_cursor (
    tenant_id uuid NOT NULL,
    receiver text NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (tenant_id, receiver)
);

-- A new installation has nothing to seal.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM unsealed_record) THEN
        DROP TABLE unsealed_record;
        UPDATE head SET hash = DEFAULT WHERE hash IS NULL AND sequence = 0;
    END IF;
END
$$;
