-- name: extend_log
-- Move the end of the log, if it is where the writer thinks and the writer still holds the lease.
UPDATE turn SET last_sequence = %(last)s::bigint
WHERE turn_id = %(id)s::uuid AND lease_token IS NOT DISTINCT FROM %(token)s::text
  AND last_sequence = %(first)s::bigint - 1 AND end_time IS NULL
RETURNING *;

-- name: insert_events
INSERT INTO turn_event (turn_id, first_sequence, last_sequence, tenant_id, events)
VALUES (%(id)s::uuid, %(first)s::bigint, %(last)s::bigint, %(tenant)s::uuid, %(events)s::bytea[]);

-- name: read_events
-- The rows of a log that hold the next so many events after a number, oldest first. The first may begin before it, the
-- last end after that many. A log has no gap, so numbers bound the rows.
SELECT first_sequence, events FROM turn_event
WHERE turn_id = %(id)s::uuid AND last_sequence > %(after)s::bigint
  AND first_sequence >= coalesce(
      (SELECT max(e.first_sequence) FROM turn_event e
       WHERE e.turn_id = %(id)s::uuid AND e.first_sequence <= %(after)s::bigint + 1), 0)
  AND first_sequence <= %(after)s::bigint + %(count)s::bigint
ORDER BY first_sequence;

-- name: keep_house
-- Be the one replica that keeps the log in order, until the transaction ends; wait for no table for long, since whoever
-- comes next would wait, too.
SELECT pg_try_advisory_xact_lock(hashtext('api: keep the log in order')) AS mine, set_config('lock_timeout', '2s', true);

-- name: make_partition
SELECT make_turn_event_partition(month_from_now(%(months)s::int)) AS made;

-- name: drop_partitions
SELECT drop_turn_event_partitions(now() - %(retention)s::interval) AS dropped;

-- name: find_ended
-- A turn that has ended and whose log lies in small rows. Whoever reads it meanwhile is not disturbed.
SELECT turn_id FROM turn
WHERE end_time IS NOT NULL AND NOT compacted
ORDER BY end_time
LIMIT 1
FOR NO KEY UPDATE SKIP LOCKED;

-- name: delete_events
DELETE FROM turn_event WHERE turn_id = %(id)s::uuid;

-- name: mark_compacted
UPDATE turn SET compacted = true, answer = coalesce(answer, %(answer)s::bytea) WHERE turn_id = %(id)s::uuid;

-- name: save_answer
UPDATE turn SET answer = %(answer)s::bytea WHERE turn_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid;

-- name: tell_neighbours
SELECT pg_notify('oiab_api_log', hint) FROM unnest(%(hints)s::text[]) AS hint;
