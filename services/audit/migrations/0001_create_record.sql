-- The audit log: records in their order, and the head of each tenant's log.

-- The end of a tenant's log. Whoever appends holds its row, so that numbers have no gap and no double; what seals the
-- log will find its place here, since it too has to follow the order of the records.
CREATE TABLE head (
    tenant_id uuid PRIMARY KEY,
    sequence bigint NOT NULL DEFAULT 0,
    CONSTRAINT sequence_is_not_negative CHECK (sequence >= 0)
);

CREATE TABLE record (
    tenant_id uuid NOT NULL REFERENCES head,
    sequence bigint NOT NULL,
    record_id uuid NOT NULL,
    user_id uuid,
    actor text NOT NULL,
    action text NOT NULL COLLATE "C",
    target text NOT NULL,
    session_id text NOT NULL,
    channel text NOT NULL,
    ip_address text NOT NULL,
    user_agent text NOT NULL,
    duration interval,
    payload jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    append_time timestamptz NOT NULL DEFAULT now(),
    -- For a page of the whole log, newest first.
    PRIMARY KEY (tenant_id, sequence),
    CONSTRAINT sequence_begins_at_one CHECK (sequence >= 1),
    CONSTRAINT actor_is_known CHECK (actor = 'system' OR actor LIKE 'user:_%' OR actor LIKE 'agent:_%'),
    CONSTRAINT action_is_dotted CHECK (action ~ '^[a-z0-9_]+(\.[a-z0-9_]+)+$'),
    CONSTRAINT payload_is_an_object CHECK (jsonb_typeof(payload) = 'object')
);

-- For a record that is sent again: it is known already.
CREATE UNIQUE INDEX record_id ON record (tenant_id, record_id);

-- For one action or all that begin alike, newest first within an action.
CREATE INDEX record_action ON record (tenant_id, action, sequence DESC);

-- For what was done on behalf of one user, newest first.
CREATE INDEX record_user ON record (tenant_id, user_id, sequence DESC) WHERE user_id IS NOT NULL;

-- For a span of time.
CREATE INDEX record_time ON record (tenant_id, create_time);

-- Records are never changed and never removed. The rule holds for every role and every session, replication's included;
-- who owns the table can still drop the rule, which leaves a trace in the schema.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON record
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE record ENABLE ALWAYS TRIGGER append_only;

REVOKE UPDATE, DELETE, TRUNCATE ON record FROM PUBLIC, CURRENT_USER;

-- A head only moves forward, and by the records that were appended.
CREATE FUNCTION refuse_step_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.tenant_id = OLD.tenant_id AND NEW.sequence >= OLD.sequence THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the head of the audit log only moves forward' USING ERRCODE = 'restrict_violation';
END
$$;

CREATE TRIGGER only_forward BEFORE UPDATE OR DELETE ON head FOR EACH ROW EXECUTE FUNCTION refuse_step_back();

ALTER TABLE head ENABLE ALWAYS TRIGGER only_forward;
