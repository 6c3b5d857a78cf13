SELECT
    c.oid::bigint AS oid,
    i.inhrelid IS NOT NULL AS is_attached,
    coalesce(i.inhdetachpending, false) AS is_detaching,
    c.relispartition AS is_partition,
    coalesce(starts_with(obj_description(c.oid, 'pg_class'), %(mark)s), false) AS is_ours,
    -- As it is printed in this session, whose time zone and style are pinned.
    coalesce(
        pg_get_expr(c.relpartbound, 0)
        = format('FOR VALUES FROM (%%L) TO (%%L)', %(lower)s::timestamptz, %(upper)s::timestamptz),
        false
    ) AS has_bounds,
    %(upper)s::timestamptz <= clock_timestamp() AS is_closed
FROM pg_catalog.pg_class AS c
LEFT JOIN pg_catalog.pg_inherits AS i
    ON i.inhrelid = c.oid AND i.inhparent = to_regclass(%(parent)s)
WHERE c.relnamespace = 'logstore'::regnamespace AND c.relname = %(partition)s
    AND c.relkind = 'r'
