-- The newest rows of one tenant: the end of the primary key, since log_id is a UUIDv7.
SELECT
    instance_id, log_id, log_date, occurrence_date, aggregate_type, aggregate_id, event_sequence,
    event_type, user_id, resource_owner, protocol, request_url, request_method, request_headers,
    response_status, response_time_ms, log_level, message, metadata
FROM logstore.logs
WHERE instance_id = %(tenant)s
ORDER BY log_id DESC
LIMIT %(limit)s
