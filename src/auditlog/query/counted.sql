-- How many rows of a table lie in each span, 0 being before the first. One pass over the table, or
-- over a range of the BRIN on log_date; the work is shared by parallel workers.
SELECT width_bucket(log_date, %(starts)s::timestamptz[]) AS span, count(*) AS stored
FROM {table}
WHERE (%(since)s::timestamptz IS NULL OR log_date >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR log_date < %(until)s)
GROUP BY span
