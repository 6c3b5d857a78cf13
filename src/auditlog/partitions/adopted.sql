UPDATE logstore.partitioning
SET step = coalesce(%(step)s, step), ahead = coalesce(%(ahead)s::interval, ahead)
WHERE table_name = %(table)s
    -- As texts, because to an interval a month is as long as 30 days.
    AND (
        step <> %(step)s
        OR ahead::text <> (%(ahead)s::interval)::text
    )
