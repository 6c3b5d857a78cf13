-- What the ledger says of one table, in spans of time that no batch reaches across: within each, as
-- many rows must be there as its batches wrote. Without a bound in time both figures are the same;
-- with one, a batch that reaches across it has written between none and all of its rows within.
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
reached AS (
    SELECT
        rows, first, last,
        max(last) OVER (
            ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS reached
    FROM entries
    WHERE rows > 0
        AND (%(since)s::timestamptz IS NULL OR last >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR first < %(until)s)
),
islands AS (
    SELECT
        rows, first,
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
        sum(rows) AS at_most
    FROM islands
    GROUP BY island / (SELECT max(island) / %(spans)s + 1 FROM islands)
)
SELECT
    first::text AS start,
    (lead(first) OVER (ORDER BY first))::text AS "end",
    at_least::bigint,
    at_most::bigint,
    -- Rows that retention took away again, once it keeps account of them.
    0::bigint AS retired
FROM spans
ORDER BY spans.first
