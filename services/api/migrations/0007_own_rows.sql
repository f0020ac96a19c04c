-- The service works as two logins that do not own its tables: what they may do with those that were there before them.
-- What is made from now on they may use from its beginning; the policies of every table are made by `migrate`.

GRANT SELECT, INSERT, UPDATE, DELETE ON session, turn, turn_event, steer, outbox TO oiab_api, oiab_api_system;

-- Partitions are made and dropped while the service runs, which only the owner of the log may do. So these two functions
-- work with the owner's rights, on names of this schema alone, and see every row: whether a turn still lives is the
-- question that they ask.
CREATE OR REPLACE FUNCTION make_turn_event_partition(month timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = api, pg_temp AS $$
DECLARE
    name text := 'turn_event_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
    next_month timestamptz := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    PERFORM set_config('oiab.owner', 'works', true);
    IF EXISTS (SELECT FROM turn_event_partition WHERE until >= first_turn_id(next_month)) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE turn_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', name);
    EXECUTE format(
        'WITH moved AS (DELETE FROM turn_event_other WHERE turn_id >= %L AND turn_id < %L RETURNING *)'
        ' INSERT INTO %I SELECT * FROM moved', first_turn_id(month), first_turn_id(next_month), name);
    EXECUTE format(
        'ALTER TABLE turn_event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        name, first_turn_id(month), first_turn_id(next_month));
    PERFORM protect_tables();
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION drop_turn_event_partitions(before timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = api, pg_temp AS $$
DECLARE
    old record;
    dropped integer := 0;
BEGIN
    PERFORM set_config('oiab.owner', 'works', true);
    FOR old IN
        SELECT name FROM turn_event_partition p
        WHERE p.until <= first_turn_id(before)
          AND NOT EXISTS (SELECT FROM turn WHERE end_time IS NULL AND turn_id < p.until)
          AND NOT EXISTS (SELECT FROM turn WHERE end_time IS NOT NULL AND NOT compacted AND turn_id < p.until)
    LOOP
        EXECUTE 'DROP TABLE ' || old.name;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;

-- It is asked by these two only.
REVOKE ALL ON turn_event_partition FROM oiab_api, oiab_api_system;
