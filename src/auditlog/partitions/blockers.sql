SELECT
    a.pid,
    c.relname::text AS relation,
    coalesce(a.application_name, '') AS application,
    coalesce(a.usename::text, '') AS "user",
    clock_timestamp() - a.xact_start AS age,
    coalesce(substring(a.query FROM '^\s*([[:alpha:]]+(\s+[[:alpha:]]+)?)'), '') AS query
FROM pg_catalog.pg_stat_activity AS a
JOIN LATERAL (
    SELECT c.relname
    FROM pg_catalog.pg_locks AS l
    JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
    WHERE l.pid = a.pid AND l.granted
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        AND c.relnamespace = 'logstore'::regnamespace AND c.relname = ANY (%(names)s)
    ORDER BY c.relname
    LIMIT 1
) AS c ON true
WHERE a.pid <> pg_backend_pid()
    AND a.xact_start IS NOT NULL
    AND (a.backend_type <> 'autovacuum worker' OR a.query LIKE '%%(to prevent wraparound)')
ORDER BY a.xact_start
