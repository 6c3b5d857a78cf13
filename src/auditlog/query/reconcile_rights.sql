-- What reconciling reads, and what keeps this role from reading it. The catalogue is asked by
-- name, because a cast to regclass would already need the right that may be missing.
SELECT
    names.name AS "table",
    class.oid IS NOT NULL AS is_there,
    coalesce(has_schema_privilege(namespace.oid, 'USAGE'), false) AS may_enter,
    coalesce(has_table_privilege(class.oid, 'SELECT'), false) AS may_read,
    coalesce(row_security_active(class.oid), false) AS is_filtered
FROM unnest(%(tables)s::text[]) WITH ORDINALITY AS names (name, position)
LEFT JOIN pg_namespace AS namespace ON namespace.nspname = 'logstore'
LEFT JOIN pg_class AS class
    ON class.relnamespace = namespace.oid
    AND class.relname = names.name
    AND class.relkind IN ('r', 'p')
ORDER BY names.position
