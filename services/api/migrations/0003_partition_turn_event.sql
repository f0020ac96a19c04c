-- The event log in one partition for each month, so that what is old goes with its table, at once and without a trace.
--
-- The id of a turn begins with the time at which it was made (UUIDv7), so a range of ids is a range of time, and the
-- primary key needs no column that only the partitions want. All events of a turn lie in one partition, whatever the
-- time at which they happen.

-- The smallest id of a turn that is made at a time or later.
CREATE FUNCTION first_turn_id(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The first moment of the month that is so many months away.
CREATE FUNCTION month_from_now(months integer) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => months)) AT TIME ZONE 'UTC';

-- Turns whose events still lie as they were written, in many small rows.
ALTER TABLE turn ADD COLUMN compacted boolean NOT NULL DEFAULT false;
-- Serves the search for them; few wait at a time.
CREATE INDEX turn_to_compact ON turn (end_time) WHERE end_time IS NOT NULL AND NOT compacted;

-- What there is becomes the first partition as it stands: no row is moved.
ALTER TABLE turn_event RENAME TO turn_event_before;
ALTER INDEX turn_event_pkey RENAME TO turn_event_before_pkey;

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
) PARTITION BY RANGE (turn_id);

-- Takes the events of turns from a month for which nobody has made a partition: a clock may be far ahead.
CREATE TABLE turn_event_other PARTITION OF turn_event DEFAULT;

-- Make the partition of a month, unless it is there. What waited for it elsewhere moves into it.
CREATE FUNCTION make_turn_event_partition(month timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'turn_event_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
    next_month timestamptz := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
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
    RETURN true;
END
$$;

-- The partitions with the first id that each no longer holds, as they say it themselves.
CREATE VIEW turn_event_partition AS
SELECT c.oid::regclass::text AS name,
       (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([0-9a-f-]{36})''\)'))[1]::uuid AS until
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'turn_event'::regclass;

-- Remove every partition whose turns were all made before a time, and return how many there were. One stays while a turn
-- of it lives, or has not been compacted: the compaction keeps the answer, which outlives the log.
CREATE FUNCTION drop_turn_event_partitions(before timestamptz) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    old record;
    dropped integer := 0;
BEGIN
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

DO $$
BEGIN
    EXECUTE format(
        'ALTER TABLE turn_event ATTACH PARTITION turn_event_before FOR VALUES FROM (MINVALUE) TO (%L)',
        first_turn_id(month_from_now(1)));
END
$$;
SELECT make_turn_event_partition(month_from_now(months)) FROM generate_series(1, 3) AS months;
