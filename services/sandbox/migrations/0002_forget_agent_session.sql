-- A session that was deleted: what the agent keeps of it goes as soon as its sandbox runs.
ALTER TABLE agent_session ADD COLUMN forgotten boolean NOT NULL DEFAULT false;

-- Serves the search for what is to be deleted, which is little.
CREATE INDEX agent_session_forgotten ON agent_session (sandbox_id) WHERE forgotten;
