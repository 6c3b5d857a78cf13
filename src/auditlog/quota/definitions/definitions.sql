-- Every quota that is laid down in the database. Instants as seconds: the driver has no infinite
-- ones, and none of other calendars, which a definition written by hand may have.
SELECT
    quota_id,
    instance_id,
    counts,
    per,
    quota_limit,
    period,
    rolling,
    extract(epoch FROM anchor) AS anchor_s,
    time_zone,
    thresholds,
    enforced,
    exact,
    on_unavailable,
    refunds,
    routes,
    methods,
    log_allowed,
    extract(epoch FROM changed_at) AS changed_s,
    changed_by
FROM logstore.quotas
ORDER BY quota_id, instance_id
