-- name: list_inbox
-- The turns of a session that run or wait, in the order in which they run.
SELECT * FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND end_time IS NULL
  AND (%(after)s::bigint IS NULL OR ordinal > %(after)s::bigint)
ORDER BY ordinal
LIMIT %(limit)s::int;

-- name: lock_running_turn
-- Hold the turn of a session that runs.
SELECT * FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND state = 'running' AND end_time IS NULL
ORDER BY ordinal
LIMIT 1
FOR UPDATE;

-- name: find_session_of_ticket
-- A ticket changes hands, but never the session.
SELECT session_id FROM turn WHERE ticket = %(ticket)s::uuid;

-- name: hold_session
-- Hold a session whoever's it is, so that its places do not change hands.
SELECT s.*, NULL::uuid AS active_turn_id FROM session s WHERE s.session_id = %(id)s::uuid
FOR NO KEY UPDATE;

-- name: lock_turn_of_ticket
-- Hold the turn that has a place, for the worker that has its job. The session must be held.
SELECT * FROM turn WHERE ticket = %(ticket)s::uuid FOR UPDATE;

-- name: move_to_front
-- Give a turn the first place of those that wait, and each of these the next one. The session must be held.
WITH waiting AS (
    SELECT turn_id, ordinal, ticket, job_id,
           row_number() OVER (ORDER BY ordinal) AS place,
           row_number() OVER (ORDER BY turn_id <> %(id)s::uuid, ordinal) AS wanted
    FROM turn
    WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND state = 'queued'
)
UPDATE turn SET ordinal = seat.ordinal, ticket = seat.ticket, job_id = seat.job_id
FROM waiting AS mover JOIN waiting AS seat ON seat.place = mover.wanted
WHERE turn.turn_id = mover.turn_id AND mover.place <> mover.wanted;

-- name: reword_turn
UPDATE turn SET text = %(text)s::text, reworded = true
WHERE turn_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid
RETURNING *;

-- name: save_job
-- Keep the job of a place. The session must be held: the place may have changed hands.
UPDATE turn SET job_id = %(job)s::uuid WHERE ticket = %(ticket)s::uuid AND tenant_id = %(tenant)s::uuid;

-- name: stop_turn_of_job
-- Want the turn that a job runs to stop.
UPDATE turn SET abort_requested = true
WHERE job_id = %(job)s::uuid AND tenant_id = %(tenant)s::uuid AND state = 'running' AND end_time IS NULL
RETURNING turn_id;

-- name: list_aborting_turns
-- The turns that run and are to stop.
SELECT turn_id FROM turn WHERE end_time IS NULL AND state = 'running' AND abort_requested LIMIT 200;

-- name: insert_steer
INSERT INTO steer (steer_id, tenant_id, turn_id, session_id, request_id, text, trace_parent)
VALUES (%(id)s::uuid, %(tenant)s::uuid, %(turn)s::uuid, %(session)s::uuid, %(request)s::uuid, %(text)s::text,
        %(trace_parent)s::text);

-- name: find_steer_by_request
SELECT * FROM steer
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND request_id = %(request)s::uuid;

-- name: count_open_steers
SELECT count(*) AS open FROM steer
WHERE turn_id = %(turn)s::uuid AND tenant_id = %(tenant)s::uuid AND NOT delivered AND became_turn_id IS NULL;

-- name: list_open_steers
-- What has yet to be delivered, in the order in which it was said, and whether it is too late.
SELECT s.*, t.end_time IS NOT NULL AS late
FROM steer s JOIN turn t USING (turn_id)
WHERE NOT s.delivered AND s.became_turn_id IS NULL
ORDER BY s.ordinal
LIMIT 500;

-- name: lock_open_steer
-- Hold what has yet to be delivered; finds nothing when somebody was faster.
SELECT steer_id FROM steer
WHERE steer_id = %(id)s::uuid AND NOT delivered AND became_turn_id IS NULL
FOR UPDATE;

-- name: save_delivery
UPDATE steer SET delivered = true WHERE steer_id = %(id)s::uuid AND became_turn_id IS NULL;

-- name: save_outcome
-- What was said too late is a turn of its own now.
UPDATE steer SET became_turn_id = %(turn)s::uuid WHERE steer_id = %(id)s::uuid;
