-- What is used of quotas, the nearest to its limit first; with the past, the newest period first.
-- A rolling window has slid since it was last written; slices are counted as spend_in_window does.
WITH counters AS (
    SELECT quota_id, instance_id, subject, used, quota_limit, told_percent, false AS rolling,
        period_start, period_end, period_end AS empty_at, first_at, last_at
    FROM logstore.quota_usage
    UNION ALL
    SELECT quota_id, instance_id, subject,
        (SELECT coalesce(sum(units), 0)::bigint FROM unnest(
            counts[1 : 61 - greatest(0, least(61, current - newest))::integer]
        ) AS slices (units)), quota_limit,
        CASE WHEN told_window = now_us / window_us THEN told_percent ELSE 0 END, true,
        statement_timestamp() - window_length, statement_timestamp(),
        timestamptz 'epoch' + (newest + 61) * slice_us * interval '1 microsecond',
        first_at, last_at
    FROM logstore.quota_windows,
        -- Each in a subquery of its own, and not computed anew wherever it is used.
        LATERAL (SELECT (extract(epoch FROM window_length) * 1000000)::bigint,
            (extract(epoch FROM statement_timestamp()) * 1000000)::bigint OFFSET 0
        ) AS us (window_us, now_us),
        LATERAL (SELECT (window_us + 59) / 60, now_us / ((window_us + 59) / 60) OFFSET 0
        ) AS slice (slice_us, current)
), measured AS (
    SELECT counters.*, empty_at > statement_timestamp() AS is_current, CASE
            WHEN empty_at > statement_timestamp()
                THEN coalesce(own.quota_limit, every.quota_limit, counters.quota_limit)
            ELSE counters.quota_limit
        END AS "limit"
    FROM counters
    LEFT JOIN logstore.quotas AS own ON own.quota_id = counters.quota_id
        AND own.instance_id = counters.instance_id
    LEFT JOIN logstore.quotas AS every ON every.quota_id = counters.quota_id
        AND every.instance_id = ''
)
SELECT
    quota_id, instance_id AS tenant, subject, used, "limit", told_percent, rolling,
    period_start, period_end, first_at, last_at,
    greatest(empty_at - statement_timestamp(), interval '0') AS resets_in
FROM measured
WHERE (%(quota_id)s::text IS NULL OR quota_id = %(quota_id)s)
    AND (%(tenant)s::text IS NULL OR instance_id = %(tenant)s)
    AND (%(subject)s::text IS NULL OR subject = %(subject)s)
    AND (%(past)s OR is_current AND (rolling OR period_start <= statement_timestamp()))
    AND used * 100::float8 >= "limit" * %(over)s::float8
ORDER BY
    CASE WHEN %(past)s THEN period_end END DESC,
    used / nullif("limit", 0)::float8 DESC NULLS FIRST,
    used DESC, quota_id, tenant, subject
LIMIT %(rows)s
