-- name: insert_sandbox
-- A user has one sandbox: who comes second inserts nothing.
INSERT INTO sandbox (sandbox_id, tenant_id, user_id)
VALUES (%(id)s::uuid, %(tenant)s::uuid, %(user)s::uuid)
ON CONFLICT ON CONSTRAINT sandbox_user_has_one DO NOTHING;

-- name: find_sandbox_of_user
SELECT sandbox_id, tenant_id, user_id, state, runtime_revision, create_time, start_time
FROM sandbox
WHERE tenant_id = %(tenant)s::uuid AND user_id = %(user)s::uuid;

-- name: get_sandbox
SELECT sandbox_id, tenant_id, user_id, state, runtime_revision, create_time, start_time
FROM sandbox
WHERE tenant_id = %(tenant)s::uuid AND sandbox_id = %(id)s::uuid;

-- name: list_sandboxes
-- Ids are of version 7, so their order is that of creation.
SELECT sandbox_id, tenant_id, user_id, state, runtime_revision, create_time, start_time
FROM sandbox
WHERE tenant_id = %(tenant)s::uuid AND (%(after)s::uuid IS NULL OR sandbox_id > %(after)s::uuid)
ORDER BY sandbox_id
LIMIT %(limit)s::int;

-- name: save_sandbox
UPDATE sandbox
SET state = %(state)s::text, runtime_revision = %(revision)s::text, start_time = %(start)s::timestamptz
WHERE tenant_id = %(tenant)s::uuid AND sandbox_id = %(id)s::uuid;

-- name: stop_sandboxes
-- Of every tenant: processes end with the service that started them.
UPDATE sandbox SET state = 'stopped', runtime_revision = '' WHERE state <> 'stopped';

-- name: insert_run
-- A turn runs once: a second time inserts nothing.
INSERT INTO run (turn_id, tenant_id, sandbox_id, session_id)
VALUES (%(turn)s::uuid, %(tenant)s::uuid, %(sandbox)s::uuid, %(session)s::uuid)
ON CONFLICT (turn_id) DO NOTHING;

-- name: delete_old_runs
-- Of every tenant. A job is never tried again after so long.
DELETE FROM run WHERE create_time < now() - interval '30 days';

-- name: find_agent_session
SELECT agent_session
FROM agent_session
WHERE tenant_id = %(tenant)s::uuid AND session_id = %(session)s::uuid AND sandbox_id = %(sandbox)s::uuid
  AND NOT forgotten;

-- name: save_agent_session
INSERT INTO agent_session (session_id, tenant_id, sandbox_id, agent_session)
VALUES (%(session)s::uuid, %(tenant)s::uuid, %(sandbox)s::uuid, %(agent_session)s::text)
ON CONFLICT (session_id, sandbox_id) DO UPDATE SET agent_session = excluded.agent_session;

-- name: forget_agent_session
UPDATE agent_session SET forgotten = true WHERE tenant_id = %(tenant)s::uuid AND session_id = %(session)s::uuid;

-- name: list_forgotten
-- Of every tenant, but only where a sandbox runs.
SELECT sandbox_id, session_id, agent_session
FROM agent_session
WHERE forgotten AND sandbox_id = ANY(%(sandboxes)s::uuid[])
LIMIT 200;

-- name: delete_agent_session
DELETE FROM agent_session
WHERE session_id = %(session)s::uuid AND sandbox_id = %(sandbox)s::uuid AND forgotten;
