-- name: insert_session
-- A repeated request inserts nothing.
INSERT INTO session (session_id, tenant_id, user_id, title, provider_id, model_id, request_id)
VALUES (%(id)s::uuid, %(tenant)s::uuid, %(user)s::uuid, %(title)s::text, %(provider)s::text, %(model)s::text, %(request)s::uuid)
ON CONFLICT ON CONSTRAINT session_request_is_new DO NOTHING;

-- name: find_session_by_request
SELECT s.*, NULL::uuid AS active_turn_id FROM session s
WHERE s.tenant_id = %(tenant)s::uuid AND s.user_id = %(user)s::uuid AND s.request_id = %(request)s::uuid;

-- name: find_session
-- A session with the turn that runs in it or is the next to run.
SELECT s.*, active.turn_id AS active_turn_id
FROM session s
LEFT JOIN LATERAL (
    SELECT t.turn_id FROM turn t WHERE t.session_id = s.session_id AND t.end_time IS NULL ORDER BY t.ordinal LIMIT 1
) active ON true
WHERE s.session_id = %(id)s::uuid AND s.tenant_id = %(tenant)s::uuid AND s.user_id = %(user)s::uuid;

-- name: lock_session
-- Hold a session, so that its turns get their order one at a time. Not against those who only refer to it: writing a turn
-- twice checks that, and whoever does it holds the turn, which comes after the session.
SELECT s.*, NULL::uuid AS active_turn_id FROM session s
WHERE s.session_id = %(id)s::uuid AND s.tenant_id = %(tenant)s::uuid AND s.user_id = %(user)s::uuid
FOR NO KEY UPDATE;

-- name: list_sessions
SELECT s.*, active.turn_id AS active_turn_id
FROM session s
LEFT JOIN LATERAL (
    SELECT t.turn_id FROM turn t WHERE t.session_id = s.session_id AND t.end_time IS NULL ORDER BY t.ordinal LIMIT 1
) active ON true
WHERE s.tenant_id = %(tenant)s::uuid AND s.user_id = %(user)s::uuid
  AND (%(before_time)s::timestamptz IS NULL
       OR (s.update_time, s.session_id) < (%(before_time)s::timestamptz, %(before_id)s::uuid))
ORDER BY s.update_time DESC, s.session_id DESC
LIMIT %(limit)s::int;

-- name: update_session
-- An empty title and no policy keep what there is.
UPDATE session SET title = coalesce(nullif(%(title)s::text, ''), title),
    busy_policy = coalesce(%(busy_policy)s::text, busy_policy)
WHERE session_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid AND user_id = %(user)s::uuid;

-- name: touch_session
-- Something was said: the session moves to the front, and gets a title if it has none.
UPDATE session SET update_time = now(), title = CASE WHEN title = '' THEN %(title)s::text ELSE title END
WHERE session_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid;

-- name: delete_session
DELETE FROM session WHERE session_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid AND user_id = %(user)s::uuid;

-- name: count_live_turns
SELECT count(*) AS live FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND end_time IS NULL;

-- name: insert_turn
INSERT INTO turn (turn_id, ticket, tenant_id, user_id, session_id, request_id, text, provider_id, model_id)
VALUES (%(id)s::uuid, %(id)s::uuid, %(tenant)s::uuid, %(user)s::uuid, %(session)s::uuid, %(request)s::uuid, %(text)s::text,
        %(provider)s::text, %(model)s::text)
RETURNING *;

-- name: find_turn_by_request
SELECT * FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND request_id = %(request)s::uuid;

-- name: count_turns_before
SELECT count(*) AS live FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid AND end_time IS NULL AND ordinal < %(ordinal)s::bigint;

-- name: find_turn
SELECT * FROM turn WHERE turn_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid AND user_id = %(user)s::uuid;

-- name: lock_turn
-- Hold a turn of a user.
SELECT * FROM turn WHERE turn_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid AND user_id = %(user)s::uuid
FOR UPDATE;

-- name: lock_turn_for_work
-- Hold a turn for the worker that has its job, whoever's it is.
SELECT * FROM turn WHERE turn_id = %(id)s::uuid FOR UPDATE;

-- name: save_turn
UPDATE turn
SET state = %(state)s::text, attempt = %(attempt)s::int, lease_token = %(token)s::text, start_time = %(start)s::timestamptz,
    end_time = %(end)s::timestamptz, failure_reason = %(reason)s::text, failure_message = %(message)s::text,
    abort_requested = %(abort)s::boolean
WHERE turn_id = %(id)s::uuid AND tenant_id = %(tenant)s::uuid;

-- name: list_turns
SELECT * FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid
  AND (%(before)s::bigint IS NULL OR ordinal < %(before)s::bigint)
ORDER BY ordinal DESC
LIMIT %(limit)s::int;

-- name: list_history
-- The turns of a session with their answers, oldest first.
SELECT * FROM turn
WHERE session_id = %(session)s::uuid AND tenant_id = %(tenant)s::uuid
  AND (%(after)s::bigint IS NULL OR ordinal > %(after)s::bigint)
ORDER BY ordinal
LIMIT %(limit)s::int;

-- name: list_live_turns
-- Of each session the turn that is first in line, if it has lived for a while and its job is known: the job may have died.
SELECT * FROM (
    SELECT DISTINCT ON (session_id) * FROM turn WHERE end_time IS NULL ORDER BY session_id, ordinal
) first_in_line
WHERE job_id IS NOT NULL AND create_time < now() - interval '5 seconds';

-- name: list_running_turns
-- The turns that run: whether their users may still have them run is asked again and again.
SELECT * FROM turn WHERE end_time IS NULL AND state = 'running';

-- name: insert_outbox
INSERT INTO outbox (tenant_id, receiver, message)
VALUES (%(tenant)s::uuid, %(receiver)s::text, %(message)s::jsonb);

-- name: read_outbox
SELECT outbox_id, tenant_id, receiver, message FROM outbox
WHERE receiver = %(receiver)s::text AND NOT refused
ORDER BY outbox_id
LIMIT 200;

-- name: set_aside_outbox
UPDATE outbox SET refused = true WHERE outbox_id = %(id)s::bigint;

-- name: delete_outbox
DELETE FROM outbox WHERE outbox_id = ANY(%(ids)s::bigint[]);
