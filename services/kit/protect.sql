-- What stands around the tables of every schema. Run by `migrate` before and after the files of a service; all of it can be
-- run again.

-- name: prepare
-- New tables can be used by the two logins of the service, new functions by nobody until `finish`.
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
GRANT USAGE ON SCHEMA {schema} TO {tenant}, {system};
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {tenant}, {system};

-- Let each table show a row to its tenant alone, and to the system. Says how many tables had to be changed.
--
-- A table without a tenant is the system's. A partition is reached through its parent only. Who owns the tables sees rows
-- only when they say that they mean to, which keeps a service that was given the owner's login by mistake in the dark.
CREATE OR REPLACE FUNCTION {schema}.protect_tables() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found record;
    changed integer := 0;
BEGIN
    FOR found IN
        SELECT c.oid::regclass AS name, c.relispartition AS partition, column_of_tenant.attname IS NOT NULL AS of_tenants
        FROM pg_class c
        LEFT JOIN pg_attribute column_of_tenant
            ON column_of_tenant.attrelid = c.oid AND column_of_tenant.attname = 'tenant_id'
            AND NOT column_of_tenant.attisdropped
        WHERE c.relnamespace = {schema_name}::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'migration'
          AND NOT (
              c.relrowsecurity AND c.relforcerowsecurity
              AND NOT (c.relispartition AND has_table_privilege({tenant_name}, c.oid, 'SELECT'))
              AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'system')
              -- After a restore the owner may be another.
              AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'owner'
                          AND p.polroles = ARRAY[CURRENT_USER::regrole::oid])
              AND (column_of_tenant.attname IS NULL
                   OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant'))
          )
        ORDER BY c.oid
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', found.name);
        EXECUTE format('DROP POLICY IF EXISTS owner ON %s', found.name);
        EXECUTE format('DROP POLICY IF EXISTS system ON %s', found.name);
        EXECUTE format('DROP POLICY IF EXISTS tenant ON %s', found.name);
        EXECUTE format(
            'CREATE POLICY owner ON %s TO CURRENT_USER USING (current_setting(''oiab.owner'', true) = ''works'')', found.name);
        EXECUTE format('CREATE POLICY system ON %s TO {system} USING (true) WITH CHECK (true)', found.name);
        IF found.of_tenants THEN
            EXECUTE format(
                'CREATE POLICY tenant ON %s TO {tenant}'
                ' USING (tenant_id = (SELECT current_setting(''oiab.tenant'')::uuid))'
                ' WITH CHECK (tenant_id = (SELECT current_setting(''oiab.tenant'')::uuid))', found.name);
        ELSE
            EXECUTE format('REVOKE ALL ON %s FROM {tenant}', found.name);
        END IF;
        IF found.partition THEN
            EXECUTE format('REVOKE ALL ON %s FROM {tenant}, {system}', found.name);
        END IF;
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END
$$;

-- name: finish
-- A function that works with the rights of the owner is for the system alone.
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT p.oid::regprocedure AS name, p.prosecdef AS by_owner, p.prokind FROM pg_proc p
        WHERE p.pronamespace = {schema_name}::regnamespace
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC, {tenant}', found.name);
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO {system}', found.name);
        IF NOT found.by_owner THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO {tenant}', found.name);
        END IF;
    END LOOP;
END
$$;
