-- What Audit asks of its checkpoints.

-- name: lock_checkpoints
-- Be the one who makes checkpoints until the transaction ends; several Audits take turns.
SELECT pg_advisory_xact_lock(hashtextextended('audit checkpoint', 0));

-- name: last_checkpoint
-- The newest checkpoint, or no row.
SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1;

-- name: find_checkpoint
-- The checkpoint of a size.
SELECT size, note FROM checkpoint WHERE size = %(size)s::bigint;

-- name: add_checkpoint
-- Keep a checkpoint.
INSERT INTO checkpoint (size, note, create_time)
VALUES (%(size)s::bigint, %(note)s::text, %(create_time)s::timestamptz);

-- name: add_checkpoint_heads
-- Keep the ends that have moved since the checkpoint before.
INSERT INTO checkpoint_head (tenant_id, size, sequence, hash)
SELECT tenant_id, %(size)s::bigint, sequence, hash
FROM unnest(%(tenants)s::uuid[], %(sequences)s::bigint[], %(hashes)s::bytea[]) AS moved (tenant_id, sequence, hash);

-- name: heads_at
-- The ends of all chains as a checkpoint has them.
SELECT DISTINCT ON (tenant_id) tenant_id, sequence, hash FROM checkpoint_head
WHERE size <= %(size)s::bigint ORDER BY tenant_id, size DESC;

-- name: page_checkpoints
-- Checkpoints, newest first.
SELECT size, note, create_time FROM checkpoint
WHERE %(before)s::bigint IS NULL OR size < %(before)s::bigint
ORDER BY size DESC LIMIT %(count)s::int;

-- name: checkpoints_after
-- Checkpoints in their order.
SELECT size, note, create_time FROM checkpoint WHERE size > %(after)s::bigint ORDER BY size LIMIT %(count)s::int;

-- name: moved_between
-- The ends that moved from one checkpoint to another, in the order of the checkpoints.
SELECT size, tenant_id, sequence, hash FROM checkpoint_head
WHERE size > %(after)s::bigint AND size <= %(until)s::bigint ORDER BY size, tenant_id;

-- name: published
-- Up to which checkpoint a place has them.
SELECT size FROM publication WHERE place = %(place)s::text;

-- name: mark_published
-- A place has the checkpoints up to here.
INSERT INTO publication (place, size) VALUES (%(place)s::text, %(size)s::bigint)
ON CONFLICT (place) DO UPDATE SET size = excluded.size WHERE publication.size < excluded.size;
