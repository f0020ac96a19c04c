-- What Audit asks of its tables.

-- name: add_head
-- Begin the log of a tenant that has none.
INSERT INTO head (tenant_id) VALUES (%(tenant_id)s::uuid) ON CONFLICT (tenant_id) DO NOTHING;

-- name: lock_head
-- Hold the end of a tenant's log: nobody else appends to it until the transaction ends.
SELECT sequence FROM head WHERE tenant_id = %(tenant_id)s::uuid FOR UPDATE;

-- name: known_records
-- Which of these records are in the log already.
SELECT record_id FROM record WHERE tenant_id = %(tenant_id)s::uuid AND record_id = ANY (%(record_ids)s::uuid[]);

-- name: append_records
-- Write records behind the end of the log. They come as one document, so that a batch is one statement.
INSERT INTO record (
    tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel, ip_address, user_agent,
    duration, payload, create_time
)
SELECT
    %(tenant_id)s::uuid, sequence, record_id, user_id, actor, action, target, session_id, channel, ip_address, user_agent,
    duration_us * interval '1 microsecond', payload, create_time
FROM jsonb_to_recordset(%(records)s::jsonb) AS sent (
    sequence bigint, record_id uuid, user_id uuid, actor text, action text, target text, session_id text, channel text,
    ip_address text, user_agent text, duration_us bigint, payload jsonb, create_time timestamptz
);

-- name: move_head
-- The log ends here now.
UPDATE head SET sequence = %(sequence)s::bigint WHERE tenant_id = %(tenant_id)s::uuid;

-- name: list_records
-- A page of a tenant's log, newest first. An action or a beginning of actions, a user and a span of time narrow it.
SELECT
    tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel, ip_address, user_agent, duration,
    payload, create_time
FROM record
WHERE
    tenant_id = %(tenant_id)s::uuid
    AND (%(before)s::bigint IS NULL OR sequence < %(before)s::bigint)
    AND (%(action)s::text IS NULL OR action = %(action)s::text)
    AND (%(prefix)s::text IS NULL OR starts_with(action, %(prefix)s::text))
    AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s::uuid)
    AND (%(since)s::timestamptz IS NULL OR create_time >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR create_time < %(until)s::timestamptz)
ORDER BY sequence DESC
LIMIT %(size)s::int;
