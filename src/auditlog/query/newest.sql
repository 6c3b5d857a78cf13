-- The newest rows of all tenants. The BRIN on log_date cannot sort, and no index has the date
-- without the tenant; so the primary key is walked from tenant to tenant, one look-up each, and
-- the newest keys of each compete. Whole rows are fetched of the winners only.
WITH RECURSIVE tenants AS (
    (SELECT instance_id FROM logstore.logs ORDER BY instance_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT logs.instance_id FROM logstore.logs
        WHERE logs.instance_id > tenants.instance_id
        ORDER BY logs.instance_id
        LIMIT 1
    )
    FROM tenants
    WHERE tenants.instance_id IS NOT NULL
),
newest AS MATERIALIZED (
    SELECT keys.instance_id, keys.log_id
    FROM tenants
    CROSS JOIN LATERAL (
        SELECT logs.instance_id, logs.log_id FROM logstore.logs
        WHERE logs.instance_id = tenants.instance_id
        ORDER BY logs.log_id DESC
        LIMIT %(limit)s
    ) AS keys
    ORDER BY keys.log_id DESC
    LIMIT %(limit)s
)
SELECT
    logs.instance_id, logs.log_id, logs.log_date, logs.occurrence_date, logs.aggregate_type,
    logs.aggregate_id, logs.event_sequence, logs.event_type, logs.user_id, logs.resource_owner,
    logs.protocol, logs.request_url, logs.request_method, logs.request_headers,
    logs.response_status, logs.response_time_ms, logs.log_level, logs.message, logs.metadata
FROM newest
JOIN logstore.logs USING (instance_id, log_id)
ORDER BY log_id DESC
