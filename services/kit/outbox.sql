-- What the outbox of audit records asks of a room's table `audit_outbox`.

-- name: insert_audit_record
-- Put a record on its way, in the transaction of what it tells of.
INSERT INTO audit_outbox (tenant_id, record) VALUES (%(tenant_id)s::uuid, %(record)s::jsonb);

-- name: read_audit_outbox
-- Records that wait, oldest first.
SELECT outbox_id, tenant_id, record::text AS record, create_time FROM audit_outbox
WHERE refusal IS NULL ORDER BY outbox_id LIMIT %(count)s::int;

-- name: delete_audit_outbox
-- Forget records that are on disk in the log.
DELETE FROM audit_outbox WHERE outbox_id = ANY (%(ids)s::bigint[]);

-- name: refuse_audit_outbox
-- Set aside a record that the log will not have.
UPDATE audit_outbox SET refusal = %(refusal)s::text WHERE outbox_id = %(id)s::bigint;

-- name: audit_outbox_lag
-- How long the oldest record waits, in seconds. No row when none does.
SELECT extract(epoch FROM clock_timestamp() - create_time)::float8 AS seconds FROM audit_outbox
WHERE refusal IS NULL ORDER BY outbox_id LIMIT 1;
