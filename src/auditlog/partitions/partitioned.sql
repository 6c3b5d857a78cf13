-- Partitioned, or about to be when that was interrupted: the bound is the dangerous part of it.
SELECT relname::text
FROM pg_catalog.pg_class
WHERE relnamespace = 'logstore'::regnamespace AND relname = ANY (%s) AND (
    relkind = 'p' OR EXISTS (
        SELECT FROM pg_catalog.pg_constraint
        WHERE conrelid = pg_class.oid AND conname = relname || '_partition_bound'
    )
)
