UPDATE logstore.holds
SET released_at = clock_timestamp(),
    released_by = coalesce(%(by)s, session_user),
    release_reason = %(reason)s
WHERE hold_id = %(hold_id)s AND released_at IS NULL
RETURNING
    hold_id::text,
    table_name AS "table",
    instance_id,
    -- What lies outside of what dates of Python can be counts as for ever.
    CASE WHEN from_date >= '0001-01-02 00:00:00+00'
        THEN least(from_date, '9999-12-30 00:00:00+00') END AS start,
    CASE WHEN until_date < '9999-12-30 00:00:00+00'
        THEN greatest(until_date, '0001-01-02 00:00:00+00') END AS "end",
    reason,
    placed_at,
    placed_by,
    released_at,
    released_by,
    release_reason
