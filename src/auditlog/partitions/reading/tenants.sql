-- Which tenants have rows in one partition that are older than their cutoff. The first rows by the
-- key are the oldest, as log_id begins with the time; where it does not, the rows wait until the
-- whole partition is older, and then any row will do.
SELECT wanted.tenant
FROM unnest({tenants}::text[], {cutoffs}::timestamptz[]) AS wanted (tenant, cutoff)
WHERE EXISTS (
    SELECT
    FROM (
        SELECT log_date
        FROM ONLY {partition}
        WHERE instance_id = wanted.tenant
        ORDER BY instance_id, log_id
        LIMIT 1000
    ) AS oldest
    WHERE log_date < wanted.cutoff
)
