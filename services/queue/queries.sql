-- name: enqueue_jobs
-- Put jobs in whose intent is new, and say where each stands. The keys of the jobs are locked. The length of a line is
-- counted up to 1,000.
WITH asked AS (
    SELECT * FROM unnest(
        %(tenant_ids)s::text::uuid[], %(ids)s::text::uuid[], %(kinds)b::text[], %(keys)b::text[],
        %(priorities)s::text::smallint[], %(max_attempts)s::text::smallint[], %(payloads)b::bytea[], %(idempotency_keys)b::text[], %(digests)b::bytea[],
        %(trace_parents)b::text[], %(run_times)s::timestamptz[], %(vts)s::text::bigint[],
        %(deadlines)s::timestamptz[], %(depend)s::text[]
    ) WITH ORDINALITY AS asked (
        tenant_id, id, kind, key, priority, max_attempts, payload, idempotency_key, digest, trace_parent, run_time, vt,
        deadline, depends_on, place
    )
), fresh AS (
    INSERT INTO intent AS known (tenant_id, idempotency_key, job_id, digest, expire_time)
    SELECT tenant_id, idempotency_key, id, digest, now() + interval '7 days'
    FROM asked ORDER BY tenant_id, idempotency_key
    ON CONFLICT (tenant_id, idempotency_key) DO UPDATE
        SET job_id = excluded.job_id, digest = excluded.digest, expire_time = excluded.expire_time
        WHERE known.expire_time < now()
    RETURNING job_id
), line AS (
    SELECT keyed.tenant_id, keyed.key, found.length
    FROM (SELECT DISTINCT tenant_id, key FROM asked WHERE key <> '') AS keyed
    CROSS JOIN LATERAL (
        SELECT count(*) AS length FROM (
            SELECT FROM job
            WHERE job.tenant_id = keyed.tenant_id AND job.key = keyed.key AND job.key <> ''
                AND job.state IN ('ready', 'leased', 'retrying')
            UNION ALL (
                SELECT FROM job
                WHERE job.tenant_id = keyed.tenant_id AND job.key = keyed.key AND job.state = 'blocked'
                LIMIT 1000
            )
        ) AS standing
    ) AS found
), placed AS (
    SELECT asked.*, coalesce(asked.run_time > now(), false) AS scheduled, asked.depends_on <> '{}' AS waits,
        CASE WHEN share.max_in_flight > 0 THEN share.lane ELSE 0 END AS lane,
        CASE WHEN asked.key = '' THEN 0 ELSE line.length + row_number() OVER (
            PARTITION BY asked.tenant_id, asked.key,
                coalesce(asked.run_time > now(), false) OR asked.depends_on <> '{}'
            ORDER BY asked.place
        ) - 1 END AS position
    FROM asked
    JOIN fresh ON fresh.job_id = asked.id
    LEFT JOIN line ON line.tenant_id = asked.tenant_id AND line.key = asked.key
    LEFT JOIN tenant_share AS share ON share.tenant_id = asked.tenant_id
), put AS (
    INSERT INTO job (
        tenant_id, id, kind, key, state, priority, max_attempts, run_time, idempotency_key, trace_parent, payload, vt,
        lane, deadline, depends_on
    )
    SELECT tenant_id, id, kind, key,
        CASE WHEN waits THEN 'waiting' WHEN scheduled THEN 'scheduled' WHEN position > 0 THEN 'blocked' ELSE 'ready'
            END::job_state,
        priority, max_attempts, coalesce(run_time, now()), idempotency_key, trace_parent, payload, vt, lane, deadline,
        depends_on::uuid[]
    FROM placed ORDER BY place
    RETURNING id, state, run_time, create_time
)
SELECT put.id, put.state, put.run_time, put.create_time, placed.vt, placed.position
FROM put JOIN placed ON placed.id = put.id;

-- name: known_intents
-- Read which jobs stand for these intents.
SELECT intent.tenant_id, intent.idempotency_key, intent.job_id, intent.digest
FROM unnest(%(tenant_ids)s::uuid[], %(idempotency_keys)s::text[]) AS asked (tenant_id, idempotency_key)
JOIN intent ON intent.tenant_id = asked.tenant_id AND intent.idempotency_key = asked.idempotency_key;

-- name: find_jobs
-- Read jobs, live or ended, and how many of their keys come before them, counted up to 1,000.
SELECT found.*,
    CASE WHEN found.key = '' OR found.seq IS NULL OR found.state IN ('ready', 'leased', 'retrying') THEN 0
    ELSE (
        SELECT count(*) FROM (
            SELECT FROM job
            WHERE job.tenant_id = found.tenant_id AND job.key = found.key AND job.key <> ''
                AND job.state IN ('ready', 'leased', 'retrying')
            UNION ALL (
                SELECT FROM job
                WHERE job.tenant_id = found.tenant_id AND job.key = found.key AND job.state = 'blocked'
                    AND job.seq < found.seq
                LIMIT 1000
            )
        ) AS standing
    ) END AS position
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS asked (tenant_id, id)
CROSS JOIN LATERAL (
    SELECT tenant_id, id, kind, key, state, priority, attempt, max_attempts, payload, idempotency_key, run_time,
        create_time, trace_parent, last_error, NULL::timestamptz AS end_time, deadline, depends_on, seq
    FROM job WHERE job.tenant_id = asked.tenant_id AND job.id = asked.id
    UNION ALL
    SELECT tenant_id, id, kind, key, state, priority, attempt, max_attempts, payload, idempotency_key, run_time,
        create_time, trace_parent, last_error, end_time, deadline, depends_on, NULL::bigint AS seq
    FROM ended_job WHERE ended_job.tenant_id = asked.tenant_id AND ended_job.id = asked.id
) AS found;

-- name: list_jobs
-- Read a page of jobs, live and ended, newest first.
SELECT * FROM (
    (
        SELECT tenant_id, id, kind, key, state, priority, attempt, max_attempts, payload, idempotency_key, run_time,
            create_time, trace_parent, last_error, NULL::timestamptz AS end_time, deadline, depends_on
        FROM job
        WHERE tenant_id = %(tenant_id)s::uuid AND id < %(before)s::uuid
            AND (%(every_state)s::boolean OR state = ANY(%(states)s::job_state[]))
            AND (%(kind)s::text = '' OR kind = %(kind)s::text)
            AND (%(key)s::text = '' OR key = %(key)s::text)
        ORDER BY id DESC LIMIT %(count)s::integer
    )
    UNION ALL
    (
        SELECT tenant_id, id, kind, key, state, priority, attempt, max_attempts, payload, idempotency_key, run_time,
            create_time, trace_parent, last_error, end_time, deadline, depends_on
        FROM ended_job
        WHERE tenant_id = %(tenant_id)s::uuid AND id < %(before)s::uuid
            AND (%(every_state)s::boolean OR state = ANY(%(states)s::job_state[]))
            AND (%(kind)s::text = '' OR kind = %(kind)s::text)
            AND (%(key)s::text = '' OR key = %(key)s::text)
        ORDER BY id DESC LIMIT %(count)s::integer
    )
) AS found
ORDER BY id DESC LIMIT %(count)s::integer;

-- name: lock_keys
-- Let nobody else change these lines until the transaction ends. The numbers come sorted, so that two never wait for
-- each other.
SELECT pg_advisory_xact_lock(number) FROM unnest(%(numbers)s::bigint[]) AS number;

-- name: claim_jobs
-- Lease ready jobs to sessions, the n-th job to the n-th session: from each stretch, which is a kind and a lane, those
-- from a position on, and no more of a lane than there is room for. Sessions that are gone get none. The array of turns
-- says whose each place is, as the number of a session.
WITH found AS (
    SELECT wanted.lane, wanted.room, next.*
    FROM (
        SELECT * FROM unnest(
            %(kinds)s::text[], %(lanes)s::integer[], %(rooms)s::integer[], %(priorities)s::smallint[],
            %(vts)s::bigint[]
        ) AS asked (kind, lane, room, priority, vt)
        WHERE NOT EXISTS (SELECT FROM paused_kind WHERE paused_kind.kind IN (asked.kind, ''))
    ) AS wanted
    CROSS JOIN LATERAL (
        SELECT job.ctid AS row, job.priority, job.vt, job.seq
        FROM job
        WHERE job.kind = wanted.kind AND job.lane = wanted.lane AND job.state = 'ready'
            AND (job.priority, job.vt) >= (wanted.priority, wanted.vt)
        ORDER BY job.priority, job.vt, job.seq
        LIMIT wanted.room
        FOR UPDATE SKIP LOCKED
    ) AS next
), admitted AS (
    SELECT found.*, row_number() OVER (PARTITION BY lane ORDER BY priority, vt, seq) AS place FROM found
), candidate AS (
    SELECT admitted.row, row_number() OVER (ORDER BY priority, vt, seq) AS slot FROM admitted WHERE place <= room
), seated AS (
    SELECT row, slot, (SELECT %(turns)s::text::smallint[])[slot] AS session FROM candidate
)
UPDATE job
SET state = 'leased', attempt = attempt + 1, token = gen_random_uuid(), session_id = seated.session_id
FROM (
    SELECT seated.row, seated.slot, seated.session, worker_session.id AS session_id
    FROM seated JOIN worker_session ON worker_session.id = (%(session_ids)s::uuid[])[seated.session]
) AS seated
WHERE job.ctid = seated.row
RETURNING seated.slot::integer, seated.session, job.tenant_id::text, job.id::text, job.kind, job.key, job.token::text,
    job.attempt, job.max_attempts, job.payload, job.idempotency_key, job.trace_parent, job.priority, job.vt, job.lane,
    CASE WHEN seated.slot = 1 THEN job.run_time END AS waited_since;

-- name: lock_lanes
-- Let nobody else claim from these lanes until the transaction ends. The lanes come sorted.
SELECT pg_advisory_xact_lock(20100, lane) FROM unnest(%(lanes)s::integer[]) AS lane;

-- name: rooms_in_lanes
-- Read how many more jobs may run in each lane.
SELECT share.lane, share.max_in_flight - (
    SELECT count(*) FROM job WHERE job.lane = share.lane AND job.lane <> 0 AND job.state = 'leased'
)::integer AS room
FROM tenant_share AS share
WHERE share.lane = ANY(%(lanes)s::integer[]) AND share.max_in_flight > 0;

-- name: lock_leases
-- Read the leases that still stand under these tokens, and hold their jobs until the transaction ends.
SELECT job.tenant_id, job.id, job.key, job.token::text, job.session_id, job.attempt, job.max_attempts,
    job.cancel_time IS NOT NULL AS cancelled, coalesce(job.deadline <= job.cancel_time, false) AS overdue
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[], %(tokens)s::uuid[]) AS held (tenant_id, id, token)
JOIN job ON job.tenant_id = held.tenant_id AND job.id = held.id AND job.token = held.token
WHERE job.session_id IS NOT NULL -- is leased, in words that keep the planner to the primary key
ORDER BY job.tenant_id, job.id
FOR UPDATE OF job;

-- name: complete_leases
-- Move leased jobs that are done to the ended ones. One whose worker was asked to stop ends as cancelled or, if that was
-- because its deadline had passed, as dead. Returns a row for each job that others may depend on, and one for all others
-- of a state: this is the busiest of all statements. Its arrays come as text, which is the fastest way in.
WITH ended AS (
    DELETE FROM job
    USING unnest(%(tenant_ids)s::text::uuid[], %(ids)s::text::uuid[], %(tokens)s::text::uuid[])
        AS held (tenant_id, id, token)
    WHERE job.tenant_id = held.tenant_id AND job.id = held.id AND job.token = held.token
        AND job.session_id IS NOT NULL -- is leased
    RETURNING job.*, CASE
        WHEN cancel_time IS NULL THEN 'completed' WHEN deadline <= cancel_time THEN 'dead' ELSE 'cancelled'
    END::job_state AS end_state
), kept AS (
    INSERT INTO ended_job (
        tenant_id, id, kind, key, state, priority, attempt, max_attempts, run_time, create_time, end_time, token,
        idempotency_key, trace_parent, last_error, payload, deadline, depends_on
    )
    SELECT tenant_id, id, kind, key, end_state, priority, attempt, max_attempts, run_time, create_time,
        clock_timestamp(), token, idempotency_key, trace_parent,
        CASE WHEN end_state = 'dead' THEN 'its deadline passed' ELSE last_error END, payload, deadline, depends_on
    FROM ended
)
SELECT end_state AS state, CASE WHEN needed THEN tenant_id END AS tenant_id, CASE WHEN needed THEN id END AS id,
    needed, string_agg(token::text, ',') AS tokens
FROM ended GROUP BY end_state, needed, CASE WHEN needed THEN tenant_id END, CASE WHEN needed THEN id END;

-- name: end_leases
-- Move leased jobs to the ended ones. One whose worker was asked to stop ends as cancelled or, if that was because its
-- deadline had passed, as dead, whatever else it was.
WITH ended AS (
    DELETE FROM job
    USING unnest(
        %(tenant_ids)s::uuid[], %(ids)s::uuid[], %(tokens)s::uuid[], %(states)s::job_state[], %(errors)s::text[],
        %(settled)s::boolean[]
    ) AS held (tenant_id, id, token, end_state, error, settled)
    WHERE job.tenant_id = held.tenant_id AND job.id = held.id AND job.token = held.token
        AND job.session_id IS NOT NULL -- is leased
    RETURNING job.*, held.end_state, held.error, held.settled
), kept AS (
    INSERT INTO ended_job (
        tenant_id, id, kind, key, state, priority, attempt, max_attempts, run_time, create_time, end_time, token,
        idempotency_key, trace_parent, last_error, payload, deadline, depends_on
    )
    SELECT tenant_id, id, kind, key, CASE
            WHEN cancel_time IS NULL THEN end_state WHEN deadline <= cancel_time THEN 'dead' ELSE 'cancelled'
        END, priority,
        attempt, max_attempts, run_time, create_time, clock_timestamp(), CASE WHEN settled THEN token END,
        idempotency_key, trace_parent, coalesce(
            CASE WHEN deadline <= cancel_time THEN 'its deadline passed' END, nullif(error, ''), last_error
        ), payload, deadline, depends_on
    FROM ended
)
SELECT token::text, tenant_id, id, needed, CASE
    WHEN cancel_time IS NULL THEN end_state WHEN deadline <= cancel_time THEN 'dead' ELSE 'cancelled'
END AS state
FROM ended;

-- name: requeue_leases
-- Give leased jobs back, ready now or after a delay.
UPDATE job
SET state = held.next_state, session_id = NULL, token = CASE WHEN held.settled THEN held.token END,
    run_time = CASE WHEN held.next_state = 'retrying' THEN clock_timestamp() + held.delay ELSE job.run_time END,
    last_error = coalesce(nullif(held.error, ''), job.last_error)
FROM unnest(
    %(tenant_ids)s::uuid[], %(ids)s::uuid[], %(tokens)s::uuid[], %(states)s::job_state[], %(errors)s::text[],
    %(settled)s::boolean[], %(delays)s::interval[]
) AS held (tenant_id, id, token, next_state, error, settled, delay)
WHERE job.tenant_id = held.tenant_id AND job.id = held.id AND job.token = held.token
    AND job.session_id IS NOT NULL -- is leased
RETURNING job.state, job.kind, job.priority, job.vt;

-- name: settled_before
-- Read which of these leases were settled earlier, by a commit whose answer was lost.
SELECT held.token::text
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[], %(tokens)s::uuid[]) AS held (tenant_id, id, token)
CROSS JOIN LATERAL (
    SELECT FROM ended_job
    WHERE ended_job.tenant_id = held.tenant_id AND ended_job.id = held.id AND ended_job.token = held.token
    UNION ALL
    SELECT FROM job
    WHERE job.tenant_id = held.tenant_id AND job.id = held.id AND job.token = held.token
        AND job.session_id IS NULL -- is not leased
) AS settled;

-- name: promote_keys
-- Make ready the first blocked job of each line that has no head. The keys are locked.
UPDATE job SET state = 'ready'
WHERE job.ctid = ANY(ARRAY(
    SELECT next.row
    FROM unnest(%(tenant_ids)s::uuid[], %(keys)s::text[]) AS line (tenant_id, key)
    CROSS JOIN LATERAL (
        SELECT waiting.ctid AS row FROM job AS waiting
        WHERE waiting.tenant_id = line.tenant_id AND waiting.key = line.key AND waiting.state = 'blocked'
        ORDER BY waiting.seq LIMIT 1
    ) AS next
    WHERE NOT EXISTS (
        SELECT FROM job AS head
        WHERE head.tenant_id = line.tenant_id AND head.key = line.key AND head.key <> ''
            AND head.state IN ('ready', 'leased', 'retrying')
    )
))
RETURNING kind, priority, vt;

-- name: make_due_jobs_ready
-- Make ready what waited for its time and stands at the head of its line, or in none.
UPDATE job SET state = 'ready'
WHERE job.ctid = ANY(ARRAY(
    SELECT due.ctid FROM job AS due
    WHERE due.state IN ('scheduled', 'retrying') AND due.run_time <= clock_timestamp()
        AND (due.state = 'retrying' OR due.key = '')
    ORDER BY due.run_time LIMIT %(count)s::integer
    FOR UPDATE SKIP LOCKED
))
RETURNING kind, priority, vt;

-- name: due_keyed_jobs
-- Read the jobs whose time has come and that have a line to join.
SELECT tenant_id, id, key FROM job
WHERE state IN ('scheduled', 'retrying') AND run_time <= clock_timestamp() AND state = 'scheduled' AND key <> ''
ORDER BY run_time LIMIT %(count)s::integer;

-- name: join_lines
-- Put jobs whose time has come into their lines. The keys are locked.
UPDATE job SET state = 'blocked'
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS due (tenant_id, id)
WHERE job.tenant_id = due.tenant_id AND job.id = due.id AND job.state = 'scheduled';

-- name: next_due_time
-- Read in how many seconds the next job is due.
SELECT extract(epoch FROM run_time - clock_timestamp())::double precision AS seconds
FROM job WHERE state IN ('scheduled', 'retrying') ORDER BY run_time LIMIT 1;

-- name: key_of_job
-- Read the key of a live job.
SELECT key FROM job WHERE tenant_id = %(tenant_id)s::uuid AND id = %(id)s::uuid;

-- name: lock_job
-- Read the state of a live job, and hold it until the transaction ends.
SELECT state FROM job WHERE tenant_id = %(tenant_id)s::uuid AND id = %(id)s::uuid FOR UPDATE;

-- name: end_waiting_jobs
-- End jobs that no worker has.
WITH ended AS (
    DELETE FROM job
    USING unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[], %(states)s::job_state[], %(errors)s::text[])
        AS gone (tenant_id, id, end_state, error)
    WHERE job.tenant_id = gone.tenant_id AND job.id = gone.id AND job.session_id IS NULL -- is not leased
    RETURNING job.*, gone.end_state, gone.error
), kept AS (
    INSERT INTO ended_job (
        tenant_id, id, kind, key, state, priority, attempt, max_attempts, run_time, create_time, end_time, token,
        idempotency_key, trace_parent, last_error, payload, deadline, depends_on
    )
    SELECT tenant_id, id, kind, key, end_state, priority, attempt, max_attempts, run_time, create_time,
        clock_timestamp(), token, idempotency_key, trace_parent, coalesce(nullif(error, ''), last_error), payload,
        deadline, depends_on
    FROM ended
)
SELECT tenant_id, id, end_state AS state, needed FROM ended;

-- name: need_jobs
-- Mark live jobs, so that whoever ends them looks for those that depend on them, and hold them until the transaction
-- ends.
UPDATE job SET needed = true
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS needed (tenant_id, id)
WHERE job.tenant_id = needed.tenant_id AND job.id = needed.id
RETURNING job.tenant_id, job.id;

-- name: ended_states
-- Read how jobs have ended.
SELECT ended_job.tenant_id, ended_job.id, ended_job.state
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS asked (tenant_id, id)
JOIN ended_job ON ended_job.tenant_id = asked.tenant_id AND ended_job.id = asked.id;

-- name: put_dependencies
-- Remember which job waits for which.
INSERT INTO dependency (tenant_id, needed_id, job_id)
SELECT * FROM unnest(%(tenant_ids)s::uuid[], %(needed_ids)s::uuid[], %(ids)s::uuid[])
ON CONFLICT DO NOTHING;

-- name: lock_dependents
-- Read the jobs that wait for these, and hold them until the transaction ends.
SELECT job.tenant_id, job.id, needed.id AS needed_id
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS needed (tenant_id, id)
JOIN dependency ON dependency.tenant_id = needed.tenant_id AND dependency.needed_id = needed.id
JOIN job ON job.tenant_id = dependency.tenant_id AND job.id = dependency.job_id
ORDER BY job.tenant_id, job.id
FOR UPDATE OF job;

-- name: forget_dependencies
-- Remove what these jobs were needed for.
DELETE FROM dependency
USING unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS needed (tenant_id, id)
WHERE dependency.tenant_id = needed.tenant_id AND dependency.needed_id = needed.id;

-- name: forget_waits
-- Remove what these jobs waited for.
DELETE FROM dependency
USING unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS gone (tenant_id, id)
WHERE dependency.tenant_id = gone.tenant_id AND dependency.job_id = gone.id;

-- name: release_jobs
-- Let those of these jobs that wait for no other any more wait for their time.
UPDATE job SET state = 'scheduled'
FROM unnest(%(tenant_ids)s::uuid[], %(ids)s::uuid[]) AS freed (tenant_id, id)
WHERE job.tenant_id = freed.tenant_id AND job.id = freed.id AND job.state = 'waiting'
    AND NOT EXISTS (
        SELECT FROM dependency WHERE dependency.tenant_id = job.tenant_id AND dependency.job_id = job.id
    );

-- name: overdue_jobs
-- Read the jobs whose deadline has passed and whose workers were not told to stop.
SELECT tenant_id, id, key FROM job
WHERE deadline IS NOT NULL AND cancel_time IS NULL AND deadline <= clock_timestamp()
ORDER BY deadline LIMIT %(count)s::integer;

-- name: next_deadline
-- Read in how many seconds the next deadline passes.
SELECT extract(epoch FROM deadline - clock_timestamp())::double precision AS seconds
FROM job WHERE deadline IS NOT NULL AND cancel_time IS NULL ORDER BY deadline LIMIT 1;

-- name: pause_kind
-- Stop handing out a kind.
INSERT INTO paused_kind (kind) VALUES (%(kind)s::text) ON CONFLICT DO NOTHING;

-- name: resume_kind
-- Hand out a kind again, or all.
DELETE FROM paused_kind WHERE kind = %(kind)s::text OR %(kind)s::text = '';

-- name: count_jobs
-- Count the jobs of each kind that has any or is paused.
SELECT kind, coalesce(bool_or(paused), false) OR EXISTS (SELECT FROM paused_kind WHERE kind = '') AS paused,
    coalesce(sum(jobs) FILTER (WHERE state = 'ready'), 0)::bigint AS ready,
    coalesce(sum(jobs) FILTER (WHERE state IN ('blocked', 'waiting')), 0)::bigint AS blocked,
    coalesce(sum(jobs) FILTER (WHERE state IN ('scheduled', 'retrying')), 0)::bigint AS delayed,
    coalesce(sum(jobs) FILTER (WHERE state = 'leased'), 0)::bigint AS leased,
    coalesce(sum(jobs) FILTER (WHERE state = 'dead'), 0)::bigint AS dead,
    max(greatest(now() - oldest, interval '0')) FILTER (WHERE state = 'ready') AS oldest_age
FROM (
    SELECT kind, state, count(*) AS jobs, min(run_time) AS oldest, false AS paused FROM job GROUP BY kind, state
    UNION ALL
    SELECT kind, 'dead', count(*), NULL, false FROM ended_job WHERE state = 'dead' GROUP BY kind
    UNION ALL
    SELECT kind, NULL, 0, NULL, true FROM paused_kind WHERE kind <> ''
) AS counted
GROUP BY kind ORDER BY kind;

-- name: put_schedule
-- Make a schedule, or change the one with this name.
INSERT INTO schedule (tenant_id, name, cron, time_zone, kind, key, payload, next_time)
VALUES (
    %(tenant_id)s::uuid, %(called)s::text, %(cron)s::text, %(time_zone)s::text, %(kind)s::text, %(key)s::text,
    %(payload)b::bytea, %(next_time)s::timestamptz
)
ON CONFLICT (tenant_id, name) DO UPDATE SET cron = excluded.cron, time_zone = excluded.time_zone, kind = excluded.kind,
    key = excluded.key, payload = excluded.payload, next_time = excluded.next_time;

-- name: list_schedules
-- Read a page of schedules by name.
SELECT tenant_id, name, cron, time_zone, kind, key, payload, next_time FROM schedule
WHERE tenant_id = %(tenant_id)s::uuid AND name > %(after)s::text
ORDER BY name LIMIT %(count)s::integer;

-- name: delete_schedule
-- Remove a schedule.
DELETE FROM schedule WHERE tenant_id = %(tenant_id)s::uuid AND name = %(called)s::text;

-- name: clock
-- Read the clock by which everything here is due: that of the database, whatever a process takes the time to be.
SELECT clock_timestamp() AS now;

-- name: due_schedules
-- Read the schedules with a tick that has come.
SELECT tenant_id, name, cron, time_zone, kind, key, payload, next_time FROM schedule
WHERE next_time <= clock_timestamp() ORDER BY next_time LIMIT %(count)s::integer;

-- name: advance_schedule
-- Go on to the next tick, unless somebody else has, or has changed the schedule.
UPDATE schedule SET next_time = %(next_time)s::timestamptz
WHERE tenant_id = %(tenant_id)s::uuid AND name = %(called)s::text AND next_time = %(tick)s::timestamptz;

-- name: ask_to_stop
-- Mark a leased job, so that its worker is told to stop.
UPDATE job SET cancel_time = clock_timestamp()
WHERE tenant_id = %(tenant_id)s::uuid AND id = %(id)s::uuid AND state = 'leased' AND cancel_time IS NULL;

-- name: cancelled_leases
-- Read the leases of these sessions whose workers have to be told to stop.
SELECT session_id, id, token::text FROM job
WHERE session_id = ANY(%(session_ids)s::uuid[]) AND cancel_time IS NOT NULL;

-- name: ended_job
-- Read the key and state of an ended job, and hold it until the transaction ends.
SELECT key, state FROM ended_job WHERE tenant_id = %(tenant_id)s::uuid AND id = %(id)s::uuid FOR UPDATE;

-- name: revive_job
-- Put a dead job back, at the end of its line and with all its attempts, but without its deadline. Its key is locked.
WITH dead AS (
    DELETE FROM ended_job WHERE tenant_id = %(tenant_id)s::uuid AND id = %(id)s::uuid AND state = 'dead' RETURNING *
)
INSERT INTO job (
    tenant_id, id, kind, key, state, priority, max_attempts, run_time, create_time, token, idempotency_key, trace_parent,
    last_error, payload, lane, depends_on
)
SELECT tenant_id, id, kind, key, CASE WHEN key = '' THEN 'ready' ELSE 'blocked' END::job_state, priority, max_attempts,
    now(), create_time, token, idempotency_key, trace_parent, last_error, payload, coalesce(
        (SELECT lane FROM tenant_share WHERE tenant_share.tenant_id = dead.tenant_id AND max_in_flight > 0), 0
    ), depends_on
FROM dead;

-- name: put_share
-- Set what a tenant gets.
INSERT INTO tenant_share (tenant_id, weight, max_in_flight, change_time)
VALUES (%(tenant_id)s::uuid, %(weight)s::integer, %(max_in_flight)s::integer, clock_timestamp())
ON CONFLICT (tenant_id) DO UPDATE
    SET weight = excluded.weight, max_in_flight = excluded.max_in_flight, change_time = excluded.change_time;

-- name: move_to_lanes
-- Move the jobs of tenants whose share was changed of late to where they belong. Those that were on their way in when it
-- was changed are moved by the next call.
UPDATE job
SET lane = CASE WHEN share.max_in_flight > 0 THEN share.lane ELSE 0 END
FROM tenant_share AS share
WHERE share.change_time > clock_timestamp() - interval '1 minute' AND job.tenant_id = share.tenant_id
    AND job.lane <> CASE WHEN share.max_in_flight > 0 THEN share.lane ELSE 0 END;

-- name: shares
-- Read what tenants get.
SELECT tenant_id, weight, max_in_flight, lane FROM tenant_share;

-- name: keep_pace
-- Write down how far the virtual times have come. They never go back.
INSERT INTO pace (kind, priority, tenant_id, vt, change_time)
SELECT kind, priority, tenant_id, vt, clock_timestamp()
FROM unnest(%(kinds)s::text[], %(priorities)s::smallint[], %(tenant_ids)s::uuid[], %(vts)s::bigint[])
    AS mark (kind, priority, tenant_id, vt)
ORDER BY kind, priority, tenant_id
ON CONFLICT (kind, priority, tenant_id) DO UPDATE SET vt = excluded.vt, change_time = excluded.change_time
    WHERE pace.vt < excluded.vt;

-- name: read_pace
-- Read the marks that were changed not longer ago than this.
SELECT kind, priority, tenant_id, vt FROM pace
WHERE change_time > clock_timestamp() - %(age)s::interval;

-- name: forget_pace
-- Remove the marks of tenants that are behind what is served now.
DELETE FROM pace USING pace AS now
WHERE now.kind = pace.kind AND now.priority = pace.priority AND now.tenant_id = %(nobody)s::uuid
    AND pace.tenant_id <> %(nobody)s::uuid AND pace.vt <= now.vt;

-- name: open_session
-- Remember the stream of a worker.
INSERT INTO worker_session (id, instance, worker_id, kinds, expire_time)
VALUES (
    %(id)s::uuid, %(instance)s::text, %(worker_id)s::text, %(kinds)s::text[],
    clock_timestamp() + %(duration)s::interval
);

-- name: renew_sessions
-- Keep sessions for another while, and say which are still there.
UPDATE worker_session SET expire_time = clock_timestamp() + %(duration)s::interval
WHERE id = ANY(%(ids)s::uuid[])
RETURNING id;

-- name: close_sessions
-- Forget sessions. Their leases end with them.
DELETE FROM worker_session WHERE id = ANY(%(ids)s::uuid[]);

-- name: close_expired_sessions
-- Forget the sessions that nobody renewed, but none that is known to live.
DELETE FROM worker_session WHERE expire_time < clock_timestamp() AND id <> ALL(%(living)s::uuid[]);

-- name: close_sessions_of
-- Forget the sessions of an earlier life of this Queue process.
DELETE FROM worker_session WHERE instance = %(instance)s::text;

-- name: leases_of
-- Read the leases of sessions.
SELECT tenant_id, id, key, token::text, session_id, attempt, max_attempts, cancel_time IS NOT NULL AS cancelled,
    coalesce(deadline <= cancel_time, false) AS overdue
FROM job WHERE session_id = ANY(%(session_ids)s::uuid[]) AND state = 'leased'
LIMIT %(count)s::integer;

-- name: orphaned_leases
-- Read the leases whose session is gone, and those whose worker was asked to stop and has not said that it did.
SELECT tenant_id, id, key, token::text, session_id, attempt, max_attempts, cancel_time IS NOT NULL AS cancelled,
    coalesce(deadline <= cancel_time, false) AS overdue
FROM job
WHERE state = 'leased' AND (
    NOT EXISTS (SELECT FROM worker_session WHERE worker_session.id = job.session_id)
    OR cancel_time < clock_timestamp() - %(stop_grace)s::interval
)
LIMIT %(count)s::integer;

-- name: forget_intents
-- Remove expired intents.
DELETE FROM intent WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM intent WHERE expire_time < now() ORDER BY expire_time LIMIT %(count)s::integer
));

-- name: forget_ended_jobs
-- Remove completed and cancelled jobs that have been kept long enough: longer than any intent that names them.
DELETE FROM ended_job WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM ended_job
    WHERE state <> 'dead' AND end_time < now() - interval '7 days 1 hour'
    ORDER BY end_time LIMIT %(count)s::integer
));

-- name: tell_others
-- Hint to the other Queue processes that there is something to do.
SELECT pg_notify('queue', %(instance)s::text);
