-- What is attached to a table, the largest first.
SELECT c.oid::bigint AS oid, c.relname::text AS name,
       pg_relation_size(c.oid) AS size_bytes,
       c.relkind = 'r' AND c.relnamespace = 'logstore'::regnamespace
           AND starts_with(coalesce(obj_description(c.oid, 'pg_class'), ''), %(mark)s) AS is_ours,
       i.inhdetachpending AS is_detaching,
       (SELECT count(*) FROM pg_index x WHERE x.indrelid = c.oid) AS indexes
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %(table)s
ORDER BY size_bytes DESC, name
