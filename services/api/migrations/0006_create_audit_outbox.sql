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

-- What waited in the outbox of all receivers goes on from here.
INSERT INTO audit_outbox (tenant_id, record, refusal, create_time)
SELECT tenant_id, message, CASE WHEN refused THEN 'refused before' END, create_time
FROM outbox WHERE receiver = 'audit' ORDER BY outbox_id;

DELETE FROM outbox WHERE receiver = 'audit';

ALTER TABLE outbox DROP CONSTRAINT outbox_receiver_is_known;
ALTER TABLE outbox ADD CONSTRAINT outbox_receiver_is_known CHECK (receiver IN ('queue', 'agent'));
