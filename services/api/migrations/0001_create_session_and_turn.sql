-- Sessions, turns, the event log of each turn, and the outbox of what others have to be told.

CREATE TABLE session (
    session_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    title text NOT NULL DEFAULT '',
    provider_id text,
    model_id text,
    request_id uuid,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT session_title_is_short CHECK (length(title) <= 200),
    CONSTRAINT session_model_is_whole CHECK ((provider_id IS NULL) = (model_id IS NULL)),
    -- A repeated request finds the session that the first one made.
    CONSTRAINT session_request_is_new UNIQUE (tenant_id, user_id, request_id)
);

-- Serves the list of a user's sessions, the one last used first.
CREATE INDEX session_by_use ON session (tenant_id, user_id, update_time DESC, session_id DESC);

CREATE TABLE turn (
    turn_id uuid PRIMARY KEY,
    -- The order of turns: given while their session is held, so that no clock has a say in it.
    ordinal bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    session_id uuid NOT NULL REFERENCES session ON DELETE CASCADE,
    request_id uuid,
    state text NOT NULL DEFAULT 'queued',
    text text NOT NULL,
    provider_id text,
    model_id text,
    -- What the agent said in the end, as the contract's Message; made once, when the turn ends.
    answer bytea,
    last_sequence bigint NOT NULL DEFAULT 0,
    -- The lease of the worker that may write: a later attempt takes over from an earlier one.
    attempt integer NOT NULL DEFAULT 0,
    lease_token text,
    job_id uuid,
    abort_requested boolean NOT NULL DEFAULT false,
    failure_reason text,
    failure_message text,
    create_time timestamptz NOT NULL DEFAULT now(),
    start_time timestamptz,
    end_time timestamptz,
    CONSTRAINT turn_state_is_known CHECK (state IN ('queued', 'running', 'completed', 'failed', 'aborted')),
    CONSTRAINT turn_end_has_a_time CHECK ((end_time IS NOT NULL) = (state IN ('completed', 'failed', 'aborted'))),
    CONSTRAINT turn_failure_has_a_reason CHECK ((failure_reason IS NOT NULL) = (state = 'failed')),
    CONSTRAINT turn_model_is_whole CHECK ((provider_id IS NULL) = (model_id IS NULL)),
    -- A repeated prompt finds the turn that the first one made.
    CONSTRAINT turn_request_is_new UNIQUE (session_id, request_id)
);

-- Serves the history of a session, in both directions.
CREATE INDEX turn_by_session ON turn (session_id, ordinal);
-- Serves the search for turns whose job died; few turns live at a time.
CREATE INDEX turn_live ON turn (create_time) WHERE end_time IS NULL;

-- One row for each flush of the log, not for each event: six times smaller, and read in one step.
CREATE TABLE turn_event (
    turn_id uuid NOT NULL REFERENCES turn ON DELETE CASCADE,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL,
    tenant_id uuid NOT NULL,
    -- The events in order, each as the contract's TurnEvent.
    events bytea[] NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (turn_id, first_sequence),
    CONSTRAINT turn_event_has_no_gap CHECK (cardinality(events) = last_sequence - first_sequence + 1)
);

-- What others have to be told, written with the change itself and removed when they have confirmed it.
CREATE TABLE outbox (
    outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id uuid NOT NULL,
    receiver text NOT NULL,
    message jsonb NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_receiver_is_known CHECK (receiver IN ('queue', 'audit'))
);
