-- The service works as two logins that do not own its tables: what they may do with those that were there before them.
-- What is made from now on they may use from its beginning; the policies of every table are made by `migrate`.

GRANT SELECT, INSERT, UPDATE, DELETE ON runtime, provider, applied_provider, model_token TO oiab_runtime, oiab_runtime_system;
