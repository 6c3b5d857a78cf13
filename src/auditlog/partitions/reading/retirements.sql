-- Retirements that are not over.
SELECT
    entry.retirement_id::text,
    entry.partition_name AS partition,
    entry.partition_oid AS oid,
    CASE WHEN entry.lower_bound >= '0001-01-02 00:00:00+00' THEN entry.lower_bound END AS lower,
    least(
        greatest(entry.upper_bound, '0001-01-02 00:00:00+00'), '9999-12-30 00:00:00+00'
    ) AS upper,
    entry.state,
    EXISTS (
        SELECT FROM pg_inherits
        WHERE inhrelid::bigint = entry.partition_oid AND inhparent = %(oid)s::oid
    ) AS is_attached,
    class.oid IS NOT NULL AS exists,
    entry.instance_id,
    entry.archive_uri
FROM logstore.retirements AS entry
LEFT JOIN pg_class AS class
    ON class.oid::bigint = entry.partition_oid
    AND class.relname = entry.partition_name
    AND class.relkind = 'r'
WHERE entry.table_name = %(table)s
    AND entry.state IN ('detaching', 'detached', 'archived', 'deleting')
ORDER BY entry.begun_at, entry.retirement_id
