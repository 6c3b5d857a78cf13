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
WITH own AS (
    SELECT
        event_type, instance_id, log_date, metadata,
        metadata ->> 'audit.run_id' AS run_id,
        metadata ->> 'audit.writer' AS writer,
        metadata ->> 'audit.process_id' COLLATE "C" AS process
    FROM logstore.logs
    WHERE event_type IN ('audit.start', 'audit.stop')
        AND aggregate_type = 'auditlog'
        AND (%(tenant)s::text IS NULL OR instance_id = %(tenant)s)
        AND metadata ? 'audit.run_id'
),
starts AS (
    SELECT DISTINCT ON (run_id)
        run_id, instance_id, writer, process, log_date, metadata,
        coalesce(process < max(process) OVER (PARTITION BY writer), false) AS is_replaced
    FROM own
    WHERE event_type = 'audit.start'
    ORDER BY run_id, log_date
),
stops AS (
    SELECT DISTINCT ON (run_id)
        run_id, log_date, submitted - settled AS difference, coalesce(written, 0) AS written
    FROM own
    CROSS JOIN LATERAL (
        SELECT
            coalesce(sum(figure) FILTER (WHERE key = 'audit.submitted'), 0) AS submitted,
            coalesce(sum(figure) FILTER (WHERE key <> 'audit.submitted'), 0) AS settled,
            sum(figure) FILTER (WHERE key = 'audit.written') AS written
        FROM (
            SELECT key, CASE WHEN jsonb_typeof(value) = 'number' THEN value::numeric END AS figure
            FROM (
                SELECT key, value FROM jsonb_each(own.metadata)
                WHERE key IN (
                    'audit.submitted', 'audit.written', 'audit.pending', 'audit.spooled',
                    'audit.dead_lettered'
                )
                UNION ALL
                SELECT 'audit.dropped', value
                FROM jsonb_each(
                    CASE WHEN jsonb_typeof(own.metadata -> 'audit.dropped') = 'object'
                        THEN own.metadata -> 'audit.dropped'
                    END
                )
            ) AS counters
        ) AS figures
    ) AS sums
    WHERE event_type = 'audit.stop'
    ORDER BY run_id, log_date DESC
),
ledger AS (
    SELECT
        writer,
        max(committed_at) AS last_batch,
        sum(logs::bigint + execution_logs + quota_logs) AS rows,
        min(committed_at) AS begins,
        min(sequence) AS first_sequence
    FROM logstore.batches
    GROUP BY writer
),
ends AS (
    SELECT min(begins) AS begins, min(first_sequence) AS first_sequence FROM ledger
),
lives AS (
    SELECT
        starts.run_id, starts.instance_id, starts.writer, starts.metadata, starts.log_date,
        starts.is_replaced, ledger.last_batch, stops.log_date AS stopped_at, stops.difference,
        max(stops.written) OVER (PARTITION BY starts.writer) - coalesce(ledger.rows, 0) AS overdrawn,
        coalesce(starts.log_date < ends.begins AND ends.first_sequence > 1, false) AS is_pruned
    FROM starts
    CROSS JOIN ends
    LEFT JOIN stops USING (run_id)
    LEFT JOIN ledger USING (writer)
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
        metadata ->> 'audit.durability' IN ('spool', 'commit') IS TRUE AS is_kept,
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
    coalesce(writer, '') AS writer,
    coalesce(metadata ->> 'audit.durability', '') AS durability,
    metadata #>> '{audit.settings,spool_dir}' AS spool_dir,
    log_date::text AS started,
    CASE WHEN NOT is_replaced THEN last_batch::text END AS last_batch,
    figure
FROM ranked
WHERE rank <= %(listed)s
ORDER BY state, is_kept, rank
