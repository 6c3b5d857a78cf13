-- The losses that the library itself has told of, by tenant and reason. A gap is in the range when
-- its last record was lost in it. Whatever an application writes under these names adds nothing
-- that is no number, and none that no queue can have lost.
SELECT
    instance_id AS tenant,
    left(coalesce(metadata ->> 'audit.gap.reason', ''), 100) AS reason,
    coalesce(sum(
        CASE WHEN jsonb_typeof(metadata -> 'audit.gap.count') = 'number'
            THEN least(greatest((metadata -> 'audit.gap.count')::numeric, 0), 1e12)
        END
    ), 0) AS count,
    bool_and(NOT metadata ? 'audit.gap.at_least') AS exact,
    -- Both are written so that their order is that of time.
    coalesce(min((metadata ->> 'audit.gap.first') COLLATE "C"), min(occurrence_date)::text) AS first,
    coalesce(max((metadata ->> 'audit.gap.last') COLLATE "C"), max(occurrence_date)::text) AS last
FROM logstore.logs
WHERE event_type = 'audit.gap'
    AND aggregate_type = 'auditlog'
    AND (%(tenant)s::text IS NULL OR instance_id = %(tenant)s)
    AND (%(since)s::timestamptz IS NULL OR occurrence_date >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR occurrence_date < %(until)s)
GROUP BY instance_id, reason
ORDER BY count DESC, tenant, reason
