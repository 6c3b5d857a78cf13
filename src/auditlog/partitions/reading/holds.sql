-- Holds that were not released. What lies outside of Python's dates counts as for ever.
SELECT
    hold_id::text,
    table_name AS table,
    instance_id,
    CASE WHEN from_date >= '0001-01-02 00:00:00+00'
        THEN least(from_date, '9999-12-30 00:00:00+00') END AS start,
    CASE WHEN until_date < '9999-12-30 00:00:00+00'
        THEN greatest(until_date, '0001-01-02 00:00:00+00') END AS "end",
    reason
FROM logstore.holds
WHERE released_at IS NULL AND (table_name IS NULL OR table_name = %(table)s)
ORDER BY placed_at, hold_id
