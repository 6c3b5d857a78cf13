-- Transactions older than a second that hold a lock on one of the relations. Of others' sessions a
-- role without pg_read_all_stats sees no age; then they are missing here.
WITH held AS (
    SELECT pid, virtualtransaction, min(relation) AS relation
    FROM pg_locks
    WHERE locktype = 'relation'
        AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND relation = ANY (%(oids)s::oid[])
        AND pid IS DISTINCT FROM pg_backend_pid()
    GROUP BY pid, virtualtransaction
)
SELECT
    held.pid,
    held.relation::bigint AS relation,
    coalesce(nullif(activity.application_name, ''), activity.backend_type) AS application,
    coalesce(activity.usename, '') AS "user",
    clock_timestamp() - activity.xact_start AS age,
    coalesce(activity.query, '') AS query
FROM held
JOIN pg_stat_activity AS activity USING (pid)
WHERE clock_timestamp() - activity.xact_start > '1 second'
UNION ALL
SELECT
    0,
    held.relation::bigint,
    'prepared transaction ' || prepared.gid,
    prepared.owner,
    clock_timestamp() - prepared.prepared,
    ''
FROM held
JOIN pg_prepared_xacts AS prepared
    ON held.pid IS NULL AND held.virtualtransaction = '-1/' || prepared.transaction::text
ORDER BY age DESC
LIMIT 20
