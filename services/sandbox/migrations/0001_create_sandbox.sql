-- Sandboxes, what the agents in them call our sessions, and which turns have run.

CREATE TABLE sandbox (
    sandbox_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'stopped',
    runtime_revision text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    start_time timestamptz,
    CONSTRAINT sandbox_state_is_known CHECK (state IN ('stopped', 'starting', 'running')),
    CONSTRAINT sandbox_stopped_runs_nothing CHECK (state <> 'stopped' OR runtime_revision = ''),
    -- Claims at the same time find the same sandbox. It also serves the search by user.
    CONSTRAINT sandbox_user_has_one UNIQUE (tenant_id, user_id)
);

-- Serves the list of a tenant's sandboxes.
CREATE INDEX sandbox_by_tenant ON sandbox (tenant_id, sandbox_id);

CREATE TABLE agent_session (
    session_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    sandbox_id uuid NOT NULL REFERENCES sandbox ON DELETE CASCADE,
    -- The agent's own id of the session, on the volume of that sandbox.
    agent_session text NOT NULL,
    PRIMARY KEY (session_id, sandbox_id)
);

-- A turn that has begun is never begun again, whatever happened to the service since.
CREATE TABLE run (
    turn_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    sandbox_id uuid NOT NULL REFERENCES sandbox ON DELETE CASCADE,
    session_id uuid NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now()
);

-- Serves the removal of old runs.
CREATE INDEX run_by_age ON run (create_time);
