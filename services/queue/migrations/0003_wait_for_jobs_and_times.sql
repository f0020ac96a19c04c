-- Jobs that wait for other jobs, jobs that have to end by a time, kinds that are paused, and jobs that come again.

ALTER TYPE job_state ADD VALUE 'waiting' BEFORE 'blocked'; -- waits for jobs that it depends on, and stands in no line yet

ALTER TABLE job
    ADD COLUMN deadline timestamptz, -- when it is dead if it has not ended
    ADD COLUMN depends_on uuid[] NOT NULL DEFAULT '{}',
    ADD COLUMN needed boolean NOT NULL DEFAULT false; -- another job depends, or has depended, on it

ALTER TABLE ended_job
    ADD COLUMN deadline timestamptz,
    ADD COLUMN depends_on uuid[] NOT NULL DEFAULT '{}';

-- Serves the search for jobs whose deadline has passed and whose workers were not told.
CREATE INDEX job_deadline ON job (deadline) WHERE deadline IS NOT NULL AND cancel_time IS NULL;

-- Which job waits for which. A row goes when the job that is needed is completed, and with the end of either.
CREATE TABLE dependency (
    tenant_id uuid NOT NULL,
    needed_id uuid NOT NULL,
    job_id uuid NOT NULL,
    CONSTRAINT dependency_pkey PRIMARY KEY (tenant_id, needed_id, job_id)
);

-- Serves the question whether a job still waits for any.
CREATE INDEX dependency_of_job ON dependency (tenant_id, job_id);

-- The kinds that are not handed out; the empty kind stands for all. Workers serve every tenant, so a row belongs to none.
CREATE TABLE paused_kind (
    kind text NOT NULL,
    pause_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT paused_kind_pkey PRIMARY KEY (kind)
);

-- Jobs that come again and again.
CREATE TABLE schedule (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    cron text NOT NULL,
    time_zone text NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    payload bytea NOT NULL,
    next_time timestamptz NOT NULL,
    CONSTRAINT schedule_pkey PRIMARY KEY (tenant_id, name)
);

-- Serves the search for what is due.
CREATE INDEX schedule_due ON schedule (next_time);
