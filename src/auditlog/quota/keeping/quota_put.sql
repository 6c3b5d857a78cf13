-- Lays a quota down, in place of the one that there is.
INSERT INTO logstore.quotas (
    quota_id, instance_id, counts, per, quota_limit, period, rolling, anchor, time_zone, thresholds,
    enforced, exact, on_unavailable, refunds, routes, methods, log_allowed, changed_at, changed_by
)
VALUES (
    %(quota_id)s, %(instance_id)s, %(counts)s, %(per)s::text[], %(quota_limit)s, %(period)s,
    %(rolling)s, %(anchor)s::timestamptz, %(time_zone)s, %(thresholds)s::integer[], %(enforced)s,
    %(exact)s, %(on_unavailable)s, %(refunds)s::text[], %(routes)s::text[], %(methods)s::text[],
    %(log_allowed)s, clock_timestamp(), coalesce(%(by)s::text, session_user)
)
ON CONFLICT (quota_id, instance_id) DO UPDATE SET
    counts = excluded.counts,
    per = excluded.per,
    quota_limit = excluded.quota_limit,
    period = excluded.period,
    rolling = excluded.rolling,
    anchor = excluded.anchor,
    time_zone = excluded.time_zone,
    thresholds = excluded.thresholds,
    enforced = excluded.enforced,
    exact = excluded.exact,
    on_unavailable = excluded.on_unavailable,
    refunds = excluded.refunds,
    routes = excluded.routes,
    methods = excluded.methods,
    log_allowed = excluded.log_allowed,
    changed_at = excluded.changed_at,
    changed_by = excluded.changed_by
