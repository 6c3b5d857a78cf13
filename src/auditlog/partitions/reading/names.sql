-- What already has a name that a partition could be given, and is no partition of the table.
SELECT
    class.relname AS name,
    CASE class.relkind
        WHEN 'r' THEN 'table'
        WHEN 'p' THEN 'partitioned table'
        WHEN 'v' THEN 'view'
        WHEN 'm' THEN 'materialized view'
        WHEN 'f' THEN 'foreign table'
        WHEN 'S' THEN 'sequence'
        WHEN 'c' THEN 'type'
        ELSE 'index'
    END AS kind
FROM pg_class AS class
WHERE class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'logstore')
    AND class.relname ~ ('^' || %(table)s || '_p[0-9]+([tw][0-9]+)?$')
    AND NOT EXISTS (
        SELECT FROM pg_inherits WHERE inhrelid = class.oid AND inhparent = %(oid)s::oid
    )
