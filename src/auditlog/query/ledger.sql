-- The ledger by itself: how many entries, which numbers are missing between the first and the last,
-- and entries that no batch can have left. A COPY tuple has two bytes and four for each column, so
-- the bytes of an entry have a lower bound.
WITH entries AS (
    SELECT sequence, committed_at, logs, execution_logs, quota_logs, bytes,
        first_log_date, last_log_date
    FROM logstore.batches
    WHERE (%(since)s::timestamptz IS NULL OR coalesce(last_log_date, 'infinity') >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR coalesce(first_log_date, '-infinity') < %(until)s)
),
ends AS (
    SELECT count(*) AS entries, min(sequence) AS first_sequence, max(sequence) AS last_sequence,
        min(committed_at)::text AS first_committed_at,
        count(*) FILTER (
            WHERE first_log_date > last_log_date
                OR bytes < 78 * logs::bigint + 38 * execution_logs::bigint + 50 * quota_logs::bigint
        ) AS impossible
    FROM entries
)
SELECT entries, first_sequence, last_sequence, first_committed_at, impossible,
    coalesce(last_sequence - first_sequence + 1 - (
        SELECT count(*) FROM logstore.batches
        WHERE sequence BETWEEN ends.first_sequence AND ends.last_sequence
    ), 0) AS holes
FROM ends
