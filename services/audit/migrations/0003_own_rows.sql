-- The service works as two logins that do not own its tables: what they may do with those that were there before them.
-- What is made from now on they may use from its beginning; the policies of every table are made by `migrate`.
--
-- A tenant reads its log. The system appends to it: no login changes or removes what stands there, and a body goes only
-- by the rule of `refuse_unsaid_erasure`.

REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM oiab_audit, oiab_audit_system;
GRANT SELECT ON head, record, body, checkpoint_head TO oiab_audit;
GRANT SELECT, INSERT, UPDATE ON head TO oiab_audit_system;
GRANT SELECT, INSERT ON record, checkpoint, checkpoint_head TO oiab_audit_system;
GRANT SELECT, INSERT, DELETE ON body TO oiab_audit_system;
GRANT SELECT, INSERT, UPDATE, DELETE ON publication, stream_cursor TO oiab_audit_system;
