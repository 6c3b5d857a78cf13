UPDATE logstore.partitioning
SET maintained_at = clock_timestamp(), maintained_by = session_user, findings = %(findings)s
WHERE table_name = %(table)s
