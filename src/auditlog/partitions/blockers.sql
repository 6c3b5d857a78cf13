WITH held AS (
    SELECT l.pid, l.virtualtransaction, min(c.relname::text) AS relation
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE l.granted
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        AND c.relnamespace = 'logstore'::regnamespace
        AND c.relname = ANY (%(names)s)
        AND l.pid IS DISTINCT FROM pg_backend_pid()
    GROUP BY l.pid, l.virtualtransaction
)
SELECT
    a.pid,
    coalesce(held.relation, 'a snapshot') AS relation,
    coalesce(nullif(a.application_name, ''), a.backend_type, '') AS application,
    coalesce(a.usename::text, '') AS "user",
    -- Whoever may not see other people's sessions knows of no age.
    coalesce(clock_timestamp() - a.xact_start, '0') AS age,
    coalesce(substring(a.query FROM '^\s*([[:alpha:]]+(\s+[[:alpha:]]+)?)'), '') AS query
FROM pg_catalog.pg_stat_activity AS a
LEFT JOIN held ON held.pid = a.pid
WHERE a.pid <> pg_backend_pid()
    AND (
        held.pid IS NOT NULL
        OR (%(snapshots)s AND a.backend_xmin IS NOT NULL AND a.datname = current_database())
    )
    AND (
        a.backend_type IS DISTINCT FROM 'autovacuum worker'
        OR a.query LIKE '%%(to prevent wraparound)'
    )
UNION ALL
SELECT
    0,
    held.relation,
    'prepared transaction ' || p.gid,
    p.owner::text,
    clock_timestamp() - p.prepared,
    ''
FROM held
-- It keeps the virtual transaction of the session that it was prepared in until the next restart;
-- on its own number it always has a lock.
JOIN pg_catalog.pg_locks AS own
    ON own.pid IS NULL AND own.virtualtransaction = held.virtualtransaction
JOIN pg_catalog.pg_prepared_xacts AS p
    ON held.pid IS NULL AND own.transactionid = p.transaction
ORDER BY age DESC
