-- Up to where retention has taken partitions away, whole.
SELECT CASE WHEN max(upper_bound) IS NOT NULL
    THEN least(max(upper_bound), '9999-12-30 00:00:00+00') END AS retired_until
FROM logstore.retirements
WHERE table_name = %(table)s
    AND instance_id IS NULL
    AND state IN ('detached', 'archived', 'dropped')
    AND upper_bound >= '0001-01-02 00:00:00+00'
