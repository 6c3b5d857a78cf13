-- A table that somebody else has partitioned, with a partition for everything else, is covered.
--
-- Of a table that maintenance keeps, rows in the DEFAULT partition are a failure that is about to be
-- felt, and its runway counts without it.

CREATE OR REPLACE FUNCTION logstore.covered_until(table_name text) RETURNS timestamptz
LANGUAGE sql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN c.relkind = 'r' THEN timestamptz 'infinity'
        WHEN EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = c.oid AND partdefid <> 0)
            AND NOT EXISTS (
                SELECT FROM logstore.partitioning kept
                WHERE kept.table_name = covered_until.table_name
            ) THEN timestamptz 'infinity'
        ELSE logstore.cover_end(c.oid, statement_timestamp())
    END
    FROM pg_class c
    WHERE c.relname = table_name AND c.relnamespace = 'logstore'::regnamespace
        AND c.relkind IN ('r', 'p')
$$;
COMMENT ON FUNCTION logstore.covered_until(text) IS
    'Until when rows that are recorded from now on have a partition, without a gap; "infinity" for a table that is not partitioned, or by somebody else with a DEFAULT partition; null if there is none even now.';

INSERT INTO logstore.migrations (version, name) VALUES (11, 'covered_until');
