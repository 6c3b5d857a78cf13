SELECT
    retirement_id::text,
    state,
    "rows",
    checksum,
    archive_uri,
    manifest_sha256,
    lower_bound = %(lower)s::timestamptz AND upper_bound = %(upper)s::timestamptz
        AND coalesce(first_log_date >= lower_bound AND last_log_date < upper_bound, true)
        AS has_bounds
FROM logstore.retirements
WHERE table_name = %(table)s
    AND partition_name = %(partition)s
    AND partition_oid = %(oid)s
    AND instance_id IS NOT DISTINCT FROM %(tenant)s
    AND ended_at IS NULL
ORDER BY begun_at DESC
LIMIT 1
FOR UPDATE
