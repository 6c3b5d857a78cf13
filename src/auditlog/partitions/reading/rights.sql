-- The tables of maintenance, and what keeps this role from reading the whole of them. The catalogue
-- is asked by name, because a cast to regclass would already need the right that may be missing.
SELECT
    names.name AS name,
    class.oid IS NOT NULL AS is_there,
    has_schema_privilege(namespace.oid, 'USAGE')
        AND has_table_privilege(class.oid, 'SELECT')
        AND NOT row_security_active(class.oid) AS may_read
FROM unnest(%(names)s::text[]) AS names (name)
LEFT JOIN pg_namespace AS namespace ON namespace.nspname = 'logstore'
LEFT JOIN pg_class AS class
    ON class.relnamespace = namespace.oid
    AND class.relname = names.name
    AND class.relkind IN ('r', 'p')
