-- What the audit log has to be told: written with the change itself, removed when Audit has it on disk.
CREATE TABLE audit_outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    record jsonb NOT NULL,
    -- Why Audit would not have it. It is kept for people to look at, and holds up no other.
    refusal text,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- For the courier, which brings what waits in its order.
CREATE INDEX audit_outbox_waiting ON audit_outbox (outbox_id) WHERE refusal IS NULL;
