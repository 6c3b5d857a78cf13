-- Tables in which others keep what they manage: TimescaleDB, Citus, pg_partman.
SELECT
    namespace.nspname AS schema,
    class.relname AS name,
    has_schema_privilege(namespace.oid, 'USAGE')
        AND has_table_privilege(class.oid, 'SELECT') AS may_read
FROM pg_class AS class
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE (namespace.nspname = 'timescaledb_information' AND class.relname = 'hypertables')
    OR (namespace.nspname = 'pg_catalog' AND class.relname = 'pg_dist_partition')
    OR (
        class.relname = 'part_config'
        AND class.relkind = 'r'
        AND EXISTS (
            SELECT FROM pg_attribute WHERE attrelid = class.oid AND attname = 'parent_table'
        )
    )
