-- For each kind of counter, one that is running and that the quota applies to: its period, in
-- microseconds; of a rolling window, from 0 to its length.
(
    SELECT false AS rolling, (extract(epoch FROM period_start) * 1000000)::bigint AS start_us,
        (extract(epoch FROM period_end) * 1000000)::bigint AS end_us
    FROM logstore.quota_usage AS counter
    WHERE quota_id = %(quota_id)s
        AND CASE WHEN %(tenant)s::text IS NULL THEN NOT EXISTS (
                SELECT FROM logstore.quotas AS own WHERE own.quota_id = counter.quota_id
                    AND own.instance_id = counter.instance_id AND own.instance_id <> ''
            ) ELSE instance_id = %(tenant)s END
        AND period_start <= statement_timestamp() AND period_end > statement_timestamp()
    LIMIT 1
)
UNION ALL
(
    SELECT true, 0, (extract(epoch FROM window_length) * 1000000)::bigint
    FROM logstore.quota_windows AS counter
    WHERE quota_id = %(quota_id)s
        AND CASE WHEN %(tenant)s::text IS NULL THEN NOT EXISTS (
                SELECT FROM logstore.quotas AS own WHERE own.quota_id = counter.quota_id
                    AND own.instance_id = counter.instance_id AND own.instance_id <> ''
            ) ELSE instance_id = %(tenant)s END
        AND last_at + window_length > statement_timestamp()
    LIMIT 1
)
