-- The table itself, the server's clock, and what the server has room for.
SELECT
    clock_timestamp() AS now,
    class.oid::bigint AS oid,
    class.relkind = 'p' AS is_partitioned,
    pg_get_partkeydef(class.oid) AS key,
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
