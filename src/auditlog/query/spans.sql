-- What the ledger says of one table, in spans of time that no batch reaches across: within each, as
-- many rows must be there as its batches wrote, less those that retention took away again. Without a
-- bound in time both figures are the same; with one, a batch that reaches across it has written
-- between none and all of its rows within. So has a retirement; and one that was not counted yet
-- has taken nobody knows how many.
--
-- A date that is null is one outside of what the writer's language knows, so it may be anywhere.
WITH entries AS (
    SELECT
        CASE %(table)s
            WHEN 'logs' THEN logs WHEN 'execution_logs' THEN execution_logs ELSE quota_logs
        END AS rows,
        least(coalesce(first_log_date, '-infinity'), last_log_date) AS first,
        greatest(coalesce(last_log_date, 'infinity'), first_log_date) AS last
    FROM logstore.batches
),
-- The partitions whose rows are read with the table, where it has any by date.
visible AS MATERIALIZED (
    SELECT pg_get_expr(class.relpartbound, 0) AS bounds
    FROM pg_inherits AS child
    JOIN pg_class AS class ON class.oid = child.inhrelid
    JOIN pg_class AS parent ON parent.oid = child.inhparent
    JOIN pg_namespace AS namespace ON namespace.oid = parent.relnamespace
    WHERE namespace.nspname = 'logstore'
        AND parent.relname = %(table)s
        AND pg_get_partkeydef(parent.oid) = 'RANGE (log_date)'
        AND NOT child.inhdetachpending
),
-- Of retirements of one range, as when a partition was restored and retired again, the last counts.
retirements AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY instance_id IS NULL, lower_bound, upper_bound
            ORDER BY begun_at DESC, retirement_id DESC
        ) AS age
    FROM logstore.retirements
    WHERE table_name = %(table)s
),
gone AS (
    SELECT
        rows,
        coalesce(first_log_date, lower_bound) AS first,
        coalesce(last_log_date, upper_bound - interval '1 microsecond') AS last
    FROM retirements
    WHERE CASE
        WHEN instance_id IS NOT NULL THEN rows > 0
        ELSE age = 1 AND state <> 'attached' AND rows IS DISTINCT FROM 0 AND NOT EXISTS (
            -- Not taken yet, or put back.
            SELECT FROM visible
            WHERE upper_bound > coalesce(
                substring(bounds FROM 'FROM [(]''([^'']+)''')::timestamptz, '-infinity'
            )
                AND lower_bound < coalesce(
                    substring(bounds FROM 'TO [(]''([^'']+)''')::timestamptz, 'infinity'
                )
                AND bounds <> 'DEFAULT'
        )
    END
),
changes AS (
    SELECT rows, 0 AS retired, false AS is_uncounted, first, last FROM entries WHERE rows > 0
    UNION ALL
    SELECT 0, coalesce(rows, 0), rows IS NULL, first, last FROM gone
),
reached AS (
    SELECT
        rows, retired, is_uncounted, first, last,
        max(last) OVER (
            ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS reached
    FROM changes
    WHERE (%(since)s::timestamptz IS NULL OR last >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR first < %(until)s)
),
islands AS (
    SELECT
        rows, retired, is_uncounted, first,
        (%(since)s::timestamptz IS NULL OR first >= %(since)s)
            AND (%(until)s::timestamptz IS NULL OR last < %(until)s) AS is_whole,
        count(*) FILTER (WHERE reached IS NULL OR first > reached) OVER (
            ORDER BY first, last ROWS UNBOUNDED PRECEDING
        ) - 1 AS island
    FROM reached
),
-- Of more islands than are wanted, neighbours share a span.
spans AS (
    SELECT
        min(first) AS first,
        coalesce(sum(rows) FILTER (WHERE is_whole), 0) AS at_least,
        sum(rows) AS at_most,
        coalesce(sum(retired) FILTER (WHERE is_whole), 0) AS retired,
        sum(retired) AS retired_at_most,
        count(*) FILTER (WHERE is_uncounted) AS uncounted
    FROM islands
    GROUP BY island / (SELECT max(island) / %(spans)s + 1 FROM islands)
)
SELECT
    first::text AS start,
    (lead(first) OVER (ORDER BY first))::text AS "end",
    at_least::bigint,
    at_most::bigint,
    retired::bigint,
    retired_at_most::bigint,
    uncounted::bigint
FROM spans
ORDER BY spans.first
