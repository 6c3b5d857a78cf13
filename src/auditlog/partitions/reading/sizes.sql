-- With indexes and TOAST. It locks each relation for the time of one look, so whoever rewrites or
-- attaches one makes it wait.
SELECT oid::bigint, pg_total_relation_size(oid) AS bytes FROM unnest(%(oids)s::oid[]) AS oid
