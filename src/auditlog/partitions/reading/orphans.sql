-- Tables with our mark that are no partition of anything.
SELECT class.relname AS name, class.oid::bigint AS oid
FROM pg_class AS class
WHERE class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'logstore')
    AND class.relkind = 'r'
    AND NOT class.relispartition
    AND starts_with(obj_description(class.oid, 'pg_class'), %(mark)s)
ORDER BY class.relname
