-- The service works as two logins that do not own its tables: what they may do with those that were there before them.
-- What is made from now on they may use from its beginning; the policies of every table are made by `migrate`.

GRANT SELECT, INSERT, UPDATE, DELETE ON job, ended_job, intent, dependency, schedule, tenant_share, pace
TO oiab_queue, oiab_queue_system;

-- Workers serve every tenant, and a kind is paused for all: these are the system's.
GRANT SELECT, INSERT, UPDATE, DELETE ON worker_session, paused_kind TO oiab_queue_system;
