-- What Audit asks of its tables.

-- name: add_head
-- Begin the log of a tenant that has none.
INSERT INTO head (tenant_id) VALUES (%(tenant_id)s::uuid) ON CONFLICT (tenant_id) DO NOTHING;

-- name: lock_head
-- Hold the end of a tenant's log: nobody else appends to it until the transaction ends.
SELECT sequence, hash FROM head WHERE tenant_id = %(tenant_id)s::uuid FOR UPDATE;

-- name: known_records
-- Which of these records are in the log already.
SELECT record_id FROM record WHERE tenant_id = %(tenant_id)s::uuid AND record_id = ANY (%(record_ids)s::uuid[]);

-- name: append_records
-- Write sealed records behind the end of the log, and move the end. They come as one document, so that a batch is one
-- statement.
WITH sent AS (
    SELECT * FROM json_to_recordset(%(records)s::json) AS sent (
        sequence bigint, record_id uuid, user_id uuid, actor text, action text, target text, session_id text,
        channel text, duration_us bigint, create_time timestamptz, append_time timestamptz, commitment bytea, hash bytea,
        salt bytea, ip_address text, user_agent text, payload text
    )
),

moved AS (
    UPDATE head SET sequence = %(sequence)s::bigint, hash = %(hash)s::bytea WHERE tenant_id = %(tenant_id)s::uuid
),

kept AS (
    INSERT INTO body (tenant_id, sequence, salt, ip_address, user_agent, payload)
    SELECT %(tenant_id)s::uuid, sequence, salt, ip_address, user_agent, payload::json FROM sent
)

INSERT INTO record (
    tenant_id, sequence, record_id, user_id, actor, action, target, session_id, channel, duration_us, create_time,
    append_time, commitment, hash
)
SELECT
    %(tenant_id)s::uuid, sequence, record_id, user_id, actor, action, target, session_id, channel, duration_us,
    create_time, append_time, commitment, hash
FROM sent;

-- name: list_records
-- A page of a tenant's log, newest first. An action or a beginning of actions, a user and a span of time narrow it.
SELECT
    r.tenant_id, r.sequence, r.record_id, r.user_id, r.actor, r.action, r.target, r.session_id, r.channel, r.duration_us,
    r.create_time, r.hash, b.ip_address, b.user_agent, b.payload
FROM record AS r LEFT JOIN body AS b ON b.tenant_id = r.tenant_id AND b.sequence = r.sequence
WHERE
    r.tenant_id = %(tenant_id)s::uuid
    AND (%(before)s::bigint IS NULL OR r.sequence < %(before)s::bigint)
    AND (%(action)s::text IS NULL OR r.action = %(action)s::text)
    AND (%(prefix)s::text IS NULL OR starts_with(r.action, %(prefix)s::text))
    AND (%(user_id)s::uuid IS NULL OR r.user_id = %(user_id)s::uuid)
    AND (%(since)s::timestamptz IS NULL OR r.create_time >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR r.create_time < %(until)s::timestamptz)
ORDER BY r.sequence DESC
LIMIT %(size)s::int;

-- name: read_chain
-- Sealed records in their order, whole, with their bodies as far as they are kept.
SELECT
    r.tenant_id, r.sequence, r.record_id, r.user_id, r.actor, r.action, r.target, r.session_id, r.channel, r.duration_us,
    r.create_time, r.append_time, r.commitment, r.hash, b.salt, b.ip_address, b.user_agent, b.payload::text AS payload
FROM record AS r LEFT JOIN body AS b ON b.tenant_id = r.tenant_id AND b.sequence = r.sequence
WHERE
    r.tenant_id = %(tenant_id)s::uuid
    AND r.sequence > %(after)s::bigint
    AND (%(action)s::text IS NULL OR r.action = %(action)s::text)
    AND (%(prefix)s::text IS NULL OR starts_with(r.action, %(prefix)s::text))
    AND (%(user_id)s::uuid IS NULL OR r.user_id = %(user_id)s::uuid)
    AND (%(since)s::timestamptz IS NULL OR r.create_time >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR r.create_time < %(until)s::timestamptz)
ORDER BY r.sequence
LIMIT %(size)s::int;

-- name: read_head
-- The end of a tenant's log.
SELECT sequence, hash FROM head WHERE tenant_id = %(tenant_id)s::uuid;

-- name: list_heads
-- The ends of all logs, in the order in which the Merkle tree has them.
SELECT tenant_id, sequence, hash FROM head WHERE sequence > 0 ORDER BY tenant_id;

-- name: erase_user
-- Remove the bodies of what was done on behalf of a user. A record of the same transaction says so.
DELETE FROM body AS b USING record AS r
WHERE
    r.tenant_id = %(tenant_id)s::uuid AND r.user_id = %(user_id)s::uuid AND r.sequence < %(before)s::bigint
    AND b.tenant_id = r.tenant_id AND b.sequence = r.sequence;

-- name: expired_categories
-- The categories of which a tenant has bodies from before a time.
SELECT DISTINCT split_part(r.action, '.', 1) AS category
FROM record AS r JOIN body AS b ON b.tenant_id = r.tenant_id AND b.sequence = r.sequence
WHERE r.tenant_id = %(tenant_id)s::uuid AND r.create_time < %(until)s::timestamptz;

-- name: expire
-- Remove the bodies of a category from before a time. A record of the same transaction says so.
DELETE FROM body AS b USING record AS r
WHERE
    r.tenant_id = %(tenant_id)s::uuid AND split_part(r.action, '.', 1) = %(category)s::text
    AND r.create_time < %(until)s::timestamptz AND r.sequence < %(before)s::bigint
    AND b.tenant_id = r.tenant_id AND b.sequence = r.sequence;

-- name: list_behind
-- Whose logs go on where a receiver of the stream has not been yet.
SELECT h.tenant_id, coalesce(c.sequence, 0) AS sequence
FROM head AS h LEFT JOIN stream_cursor AS c ON c.tenant_id = h.tenant_id AND c.receiver = %(receiver)s::text
WHERE h.sequence > coalesce(c.sequence, 0)
ORDER BY h.tenant_id
LIMIT 1000;

-- name: move_cursor
-- A receiver of the stream has a tenant's log up to here.
INSERT INTO stream_cursor (tenant_id, receiver, sequence)
VALUES (%(tenant_id)s::uuid, %(receiver)s::text, %(sequence)s::bigint)
ON CONFLICT (tenant_id, receiver) DO UPDATE SET sequence = excluded.sequence
WHERE stream_cursor.sequence < excluded.sequence;
