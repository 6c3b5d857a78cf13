-- The lives of logs, from audit.start to audit.stop, and what is odd about them; at most %(listed)s
-- of each state, the newest, with the figures of all. States, the first that fits:
--
-- replaced    no stop, and a later process has its host and pid: it was killed
-- silent      no stop, and its writer committed nothing for a time: it was killed, or has nothing to do
-- running     no stop
-- unbalanced  the counters of its stop do not add up; the figure is the difference
-- overdrawn   the writer counted more rows written than the ledger has of it: entries were deleted;
--             not the sum of its lives, for a log that starts again goes on counting
-- stopped     nothing odd
--
-- Last batches are by the server's clock, starts and stops by the service's. A process that began
-- before the ledger does is not held against it, for a pruned ledger has only a part of its batches.
-- The index has the type of an event behind its tenant: so it is walked from tenant to tenant.
WITH RECURSIVE tenants AS (
    (
        SELECT instance_id FROM logstore.logs
        WHERE event_type IS NOT NULL
        ORDER BY instance_id
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT logs.instance_id FROM logstore.logs
        WHERE logs.event_type IS NOT NULL AND logs.instance_id > tenants.instance_id
        ORDER BY logs.instance_id
        LIMIT 1
    )
    FROM tenants
    WHERE tenants.instance_id IS NOT NULL
),
own AS MATERIALIZED (
    SELECT
        event_type, logs.instance_id, log_date,
        (metadata ->> 'audit.run_id') COLLATE "C" AS run_id,
        (metadata ->> 'audit.writer') COLLATE "C" AS writer,
        (metadata ->> 'audit.process_id') COLLATE "C" AS process,
        metadata ->> 'audit.durability' AS durability,
        metadata #>> '{audit.settings,spool_dir}' AS spool_dir,
        CASE WHEN event_type = 'audit.stop' THEN metadata END AS counters
    FROM tenants
    CROSS JOIN LATERAL (
        SELECT * FROM logstore.logs
        WHERE logs.instance_id = tenants.instance_id
            AND event_type IN ('audit.start', 'audit.stop')
            AND aggregate_type = 'auditlog'
            AND metadata ? 'audit.run_id'
        OFFSET 0
    ) AS logs
    WHERE %(tenant)s::text IS NULL OR tenants.instance_id = %(tenant)s
),
counted AS (
    SELECT own.*, submitted - settled AS difference, coalesce(written, 0) AS written
    FROM own
    CROSS JOIN LATERAL (
        SELECT
            coalesce(sum(figure) FILTER (WHERE key = 'audit.submitted'), 0) AS submitted,
            coalesce(sum(figure) FILTER (WHERE key <> 'audit.submitted'), 0) AS settled,
            sum(figure) FILTER (WHERE key = 'audit.written') AS written
        FROM (
            SELECT
                key,
                CASE WHEN jsonb_typeof(value) = 'number'
                    THEN least(greatest(value::numeric, 0), 1e15)
                END AS figure
            FROM (
                SELECT key, value FROM jsonb_each(own.counters)
                WHERE key IN (
                    'audit.submitted', 'audit.written', 'audit.pending', 'audit.spooled',
                    'audit.dead_lettered'
                )
                UNION ALL
                SELECT 'audit.dropped', value
                FROM jsonb_each(
                    CASE WHEN jsonb_typeof(own.counters -> 'audit.dropped') = 'object'
                        THEN own.counters -> 'audit.dropped'
                    END
                )
            ) AS named
        ) AS figures
    ) AS sums
),
-- Aggregates and windows in the place of joins: no estimate can make them quadratic.
told AS (
    SELECT
        run_id,
        max(writer) AS writer,
        min(instance_id) FILTER (WHERE event_type = 'audit.start') AS instance_id,
        max(process) AS process,
        max(durability) AS durability,
        max(spool_dir) AS spool_dir,
        min(log_date) FILTER (WHERE event_type = 'audit.start') AS log_date,
        max(log_date) FILTER (WHERE event_type = 'audit.stop') AS stopped_at,
        (array_agg(difference ORDER BY log_date DESC) FILTER (WHERE event_type = 'audit.stop'))[1]
            AS difference,
        max(written) AS written
    FROM counted
    GROUP BY run_id
    HAVING bool_or(event_type = 'audit.start')
),
ledger AS (
    SELECT
        writer COLLATE "C" AS writer,
        max(committed_at) AS last_batch,
        sum(logs::bigint + execution_logs + quota_logs) AS rows,
        min(committed_at) AS begins,
        min(sequence) AS first_sequence
    FROM logstore.batches
    GROUP BY writer
),
by_writer AS (
    SELECT
        run_id, writer, instance_id, durability, spool_dir, log_date, stopped_at, difference,
        coalesce(process < max(process) OVER of_writer, false) AS is_replaced,
        max(last_batch) OVER of_writer AS last_batch,
        max(written) OVER of_writer - coalesce(sum(rows) OVER of_writer, 0) AS overdrawn
    FROM (
        SELECT told.*, NULL::timestamptz AS last_batch, NULL::numeric AS rows FROM told
        UNION ALL
        SELECT
            NULL, writer, NULL, NULL, NULL, NULL, NULL::timestamptz, NULL::timestamptz,
            NULL::numeric, NULL::numeric, last_batch, rows
        FROM ledger
    ) AS lives_and_batches
    WINDOW of_writer AS (PARTITION BY writer)
),
lives AS (
    SELECT
        *,
        coalesce(
            log_date < (SELECT min(begins) FROM ledger)
            AND (SELECT min(first_sequence) FROM ledger) > 1,
            false
        ) AS is_pruned
    FROM by_writer
    WHERE run_id IS NOT NULL
),
judged AS (
    SELECT
        *,
        CASE
            WHEN stopped_at IS NULL AND is_replaced THEN 'replaced'
            WHEN stopped_at IS NULL
                AND log_date NOT BETWEEN now() - %(silent_after)s::interval
                    AND now() + %(silent_after)s::interval
                AND coalesce(last_batch < now() - %(silent_after)s::interval, true)
                THEN 'silent'
            WHEN stopped_at IS NULL THEN 'running'
            WHEN difference <> 0 THEN 'unbalanced'
            WHEN overdrawn > 0 AND NOT bool_or(is_pruned) OVER (PARTITION BY writer)
                AND log_date = max(log_date) FILTER (WHERE stopped_at IS NOT NULL)
                    OVER (PARTITION BY writer)
                THEN 'overdrawn'
            ELSE 'stopped'
        END AS state
    FROM lives
    WHERE (%(until)s::timestamptz IS NULL OR log_date < %(until)s)
),
measured AS (
    SELECT
        *,
        durability IN ('spool', 'commit') IS TRUE AS is_kept,
        coalesce(
            abs(CASE state WHEN 'unbalanced' THEN difference WHEN 'overdrawn' THEN overdrawn END), 0
        ) AS figure
    FROM judged
    WHERE %(since)s::timestamptz IS NULL
        OR state = 'running'
        OR greatest(log_date, stopped_at, CASE WHEN NOT is_replaced THEN last_batch END) >= %(since)s
),
ranked AS (
    SELECT
        *,
        count(*) OVER alike AS lives,
        sum(figure) OVER alike AS figures,
        min(log_date) OVER alike AS earliest,
        row_number() OVER (PARTITION BY state, is_kept ORDER BY log_date DESC, run_id DESC) AS rank
    FROM measured
    WINDOW alike AS (PARTITION BY state, is_kept)
)
SELECT
    state,
    is_kept,
    lives,
    figures,
    earliest::text AS earliest,
    run_id,
    instance_id AS tenant,
    left(coalesce(writer, ''), 300) AS writer,
    left(coalesce(durability, ''), 100) AS durability,
    spool_dir,
    log_date::text AS started,
    CASE WHEN NOT is_replaced THEN last_batch::text END AS last_batch,
    figure
FROM ranked
WHERE rank <= %(listed)s
ORDER BY state, is_kept, rank
