UPDATE logstore.partitioning
SET
    maintained_at = CASE WHEN %(trusts_clock)s THEN clock_timestamp() ELSE maintained_at END,
    maintained_by = session_user,
    findings = %(findings)s
WHERE table_name = %(table)s
