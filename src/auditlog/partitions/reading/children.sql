-- Everything attached to the table. From pg_inherits, because pg_partition_tree leaves out what is
-- being detached. The bound is printed without its table, which newer servers would lock.
SELECT
    class.relname AS name,
    class.oid::bigint AS oid,
    namespace.nspname AS schema,
    class.relkind::text AS kind,
    class.relpersistence::text AS persistence,
    inherits.inhdetachpending AS is_detaching,
    pg_get_expr(class.relpartbound, 0) AS bound,
    starts_with(obj_description(class.oid, 'pg_class'), %(mark)s) IS TRUE AS is_marked,
    class.reltuples::bigint AS rows,
    class.relpages::bigint * current_setting('block_size')::bigint AS size_bytes,
    (SELECT count(*) FROM pg_index WHERE indrelid = class.oid) AS indexes,
    has_schema_privilege(namespace.oid, 'USAGE')
        AND has_table_privilege(class.oid, 'SELECT')
        AND NOT row_security_active(class.oid) AS may_read
FROM pg_inherits AS inherits
JOIN pg_class AS class ON class.oid = inherits.inhrelid
JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
WHERE inherits.inhparent = %(oid)s::oid
