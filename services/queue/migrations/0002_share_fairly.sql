-- Fairness between tenants: jobs wait in the order of a virtual time, in which a tenant that asks for much falls behind.

ALTER TABLE job
    ADD COLUMN vt bigint NOT NULL DEFAULT 0, -- the virtual time at which the job is served
    ADD COLUMN lane integer NOT NULL DEFAULT 0; -- of a tenant that may run only so many jobs at once; 0: of all others

DROP INDEX job_ready;
-- Serves the claim, in its order.
CREATE INDEX job_ready ON job (kind, lane, priority, vt, seq) WHERE state = 'ready';
-- Serves the count of what runs in a lane; empty where no tenant has a limit.
CREATE INDEX job_running ON job (lane) WHERE state = 'leased' AND lane <> 0;

-- What a tenant gets of the queue. One that has no row here has the weight 1 and no limit.
CREATE TABLE tenant_share (
    tenant_id uuid NOT NULL,
    weight integer NOT NULL,
    max_in_flight integer NOT NULL, -- 0: no limit
    lane integer GENERATED ALWAYS AS IDENTITY,
    change_time timestamptz NOT NULL,
    CONSTRAINT tenant_share_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT tenant_share_positive CHECK (weight > 0 AND max_in_flight >= 0)
);

-- How far the virtual times have come, so that Queue processes agree, and remember. Each has them in memory, and looks
-- here once a second: a row that every enqueue changes would be what they all wait for.
CREATE TABLE pace (
    kind text NOT NULL,
    priority smallint NOT NULL,
    tenant_id uuid NOT NULL, -- whose last job has this time; of nobody: the time that is served now
    vt bigint NOT NULL,
    change_time timestamptz NOT NULL,
    CONSTRAINT pace_pkey PRIMARY KEY (kind, priority, tenant_id)
);
