-- The table itself, the server's clock, and what the server has room for. The key is put together
-- here, because pg_get_partkeydef would wait for whoever has locked the table.
SELECT
    clock_timestamp() AS now,
    class.oid::bigint AS oid,
    class.relkind = 'p' AS is_partitioned,
    (
        SELECT
            CASE partitioned.partstrat WHEN 'r' THEN 'RANGE' WHEN 'l' THEN 'LIST' ELSE 'HASH' END
            || format(' (%%s)', string_agg(
                coalesce(attribute.attname, 'an expression'), ', ' ORDER BY key.position
            ))
        FROM pg_partitioned_table AS partitioned,
            unnest(partitioned.partattrs::smallint[]) WITH ORDINALITY AS key (number, position)
        LEFT JOIN pg_attribute AS attribute
            ON attribute.attrelid = class.oid AND attribute.attnum = key.number
        WHERE partitioned.partrelid = class.oid
        GROUP BY partitioned.partstrat
    ) AS key,
    class.reltuples >= 0 AS is_analyzed,
    current_setting('max_locks_per_transaction')::integer * (
        current_setting('max_connections')::integer
        + current_setting('max_prepared_transactions')::integer
    ) AS locks_available,
    (
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend'
    ) AS connections,
    extract(epoch FROM current_setting('deadlock_timeout')::interval)::float8 AS deadlock_timeout_s
FROM pg_class AS class
WHERE class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'logstore')
    AND class.relname = %(table)s
    AND class.relkind IN ('r', 'p')
