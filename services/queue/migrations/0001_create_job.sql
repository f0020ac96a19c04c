-- The queue: live jobs, jobs that have ended, the intents behind them, and the workers that hold leases.

CREATE TYPE job_state AS ENUM (
    'scheduled', -- waits for its time, and stands in no line yet
    'blocked',   -- stands in the line of its key, behind the head
    'ready',     -- waits for a worker
    'leased',    -- a worker session has it
    'retrying',  -- waits for its next attempt, and keeps the head of its line
    'completed',
    'dead',
    'cancelled'
);

-- Live jobs only, so that the table stays small however long the history is. No column that a beat of a worker changes:
-- leases stand under a row of worker_session.
CREATE TABLE job (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY, -- the order of a line; given while its lock is held
    kind text NOT NULL,
    key text NOT NULL, -- empty: stands in no line
    state job_state NOT NULL,
    priority smallint NOT NULL,
    attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL,
    run_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    cancel_time timestamptz, -- when its worker was asked to stop
    session_id uuid,
    token uuid, -- of the lease, and after it if its worker settled it: a settlement sent twice is known by it
    idempotency_key text NOT NULL,
    trace_parent text NOT NULL,
    last_error text NOT NULL DEFAULT '',
    payload bytea NOT NULL,
    CONSTRAINT job_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT job_is_live CHECK (state NOT IN ('completed', 'dead', 'cancelled')),
    CONSTRAINT job_leased_to_a_session CHECK ((state = 'leased') = (session_id IS NOT NULL)),
    CONSTRAINT job_leased_with_a_token CHECK (state <> 'leased' OR token IS NOT NULL),
    CONSTRAINT job_blocked_by_a_key CHECK (state <> 'blocked' OR key <> ''),
    CONSTRAINT job_cancel_waits_for_a_worker CHECK (cancel_time IS NULL OR state = 'leased'),
    CONSTRAINT job_attempts_not_negative CHECK (attempt >= 0 AND max_attempts > 0)
) WITH (
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);

-- Serves the claim, in its order.
CREATE INDEX job_ready ON job (kind, priority, seq) WHERE state = 'ready';
-- Serves the end of a session and the search for leases without one.
CREATE INDEX job_leased ON job (session_id) WHERE state = 'leased';
-- Serves the telling of workers that their job was cancelled; nearly always empty.
CREATE INDEX job_cancelling ON job (session_id) WHERE cancel_time IS NOT NULL;
-- Serves the promoter, which makes ready what is due.
CREATE INDEX job_due ON job (run_time) WHERE state IN ('scheduled', 'retrying');
-- Serves the search for the next of a line and the counting of those before a job.
CREATE INDEX job_blocked ON job (tenant_id, key, seq) WHERE state = 'blocked';
-- Serves the search for the head of a line, and refuses a second one: a race that the locks let through is an error, not
-- two turns at once.
CREATE UNIQUE INDEX job_head ON job (tenant_id, key) WHERE key <> '' AND state IN ('ready', 'leased', 'retrying');

-- Jobs that have ended: completed and cancelled ones are kept for a week, dead ones until somebody retries them.
CREATE TABLE ended_job (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    state job_state NOT NULL,
    priority smallint NOT NULL,
    attempt smallint NOT NULL,
    max_attempts smallint NOT NULL,
    run_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL DEFAULT now(),
    token uuid,
    idempotency_key text NOT NULL,
    trace_parent text NOT NULL,
    last_error text NOT NULL,
    payload bytea NOT NULL,
    CONSTRAINT ended_job_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT ended_job_has_ended CHECK (state IN ('completed', 'dead', 'cancelled'))
);

-- Serves the removal of what has been kept long enough.
CREATE INDEX ended_job_kept ON ended_job (end_time) WHERE state <> 'dead';
-- Serves the list of dead letters, which are few among many.
CREATE INDEX ended_job_dead ON ended_job (tenant_id, id) WHERE state = 'dead';

-- Which job stands for which idempotency key.
CREATE TABLE intent (
    tenant_id uuid NOT NULL,
    idempotency_key text NOT NULL,
    job_id uuid NOT NULL,
    digest bytea NOT NULL, -- SHA-256 of kind, key and payload
    expire_time timestamptz NOT NULL,
    CONSTRAINT intent_pkey PRIMARY KEY (tenant_id, idempotency_key)
);

-- Serves the removal of expired intents.
CREATE INDEX intent_expired ON intent (expire_time);

-- The streams of workers. A lease stands as long as the row of its session does. Workers serve every tenant, so a row
-- belongs to none.
CREATE TABLE worker_session (
    id uuid NOT NULL,
    instance text NOT NULL, -- the Queue process that holds the stream
    worker_id text NOT NULL,
    kinds text[] NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    expire_time timestamptz NOT NULL,
    CONSTRAINT worker_session_pkey PRIMARY KEY (id)
);
