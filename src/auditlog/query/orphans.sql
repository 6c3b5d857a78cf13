-- Received rows without a complete row, the newest first. The index holds rows of exchanges only,
-- in the order of their ids, which begin with the time in milliseconds: so a range of time is a
-- range of ids. The complete row is looked for in every tenant, because a handler may have named
-- the tenant only after the request began; of that row nothing is returned.
SELECT
    received.instance_id, received.log_id, received.log_date, received.occurrence_date,
    received.aggregate_type, received.aggregate_id, received.event_sequence, received.event_type,
    received.user_id, received.resource_owner, received.protocol, received.request_url,
    received.request_method, received.request_headers, received.response_status,
    received.response_time_ms, received.log_level, received.message, received.metadata,
    now() - received.log_date AS age
FROM logstore.logs AS received
WHERE received.metadata ? 'audit.stage'
    AND left(received.metadata ->> 'audit.exchange_id', 36) COLLATE "C" >= overlay(
        lpad(to_hex(greatest(
            (extract(epoch FROM now() - %(since)s::interval) * 1000)::bigint, 0
        )), 12, '0') PLACING '-' FROM 9 FOR 0
    )
    AND (%(tenant)s::text IS NULL OR received.instance_id = %(tenant)s)
    -- Metadata can be said by an application, the identity of a row cannot.
    AND received.log_id = received.metadata ->> 'audit.exchange_id'
    AND received.metadata ->> 'audit.stage' = 'received'
    -- Not "older than": a service whose clock is ahead would hide its rows until that time comes.
    AND received.log_date NOT BETWEEN now() - %(older_than)s::interval
        AND now() + %(older_than)s::interval
    AND NOT EXISTS (
        SELECT FROM logstore.logs AS complete
        WHERE complete.metadata ? 'audit.stage'
            AND left(complete.metadata ->> 'audit.exchange_id', 36) COLLATE "C"
                = left(received.metadata ->> 'audit.exchange_id', 36) COLLATE "C"
            AND complete.metadata ->> 'audit.stage' = 'complete'
    )
ORDER BY left(received.metadata ->> 'audit.exchange_id', 36) COLLATE "C" DESC
LIMIT %(limit)s
