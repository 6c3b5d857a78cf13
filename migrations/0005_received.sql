-- Received and complete rows: where a rule asks for it, a request has a row when it begins and one
-- when it ends, tied by `audit.exchange_id`. The index finds the two of an exchange, and the
-- exchanges of a time in the order in which they began, since the id is a UUIDv7; other rows are
-- not in it and pay 0.03 us for that (2026-11-25). The key is cut to the length of an id, because a
-- longer text that an application puts there must not be too large for an index.
--
-- CREATE INDEX reads the table, and the writers wait until it has: 0.3 s for a million rows that
-- are in memory (2026-11-25). Rows wait in the application's queue meanwhile, which max_queued_rows
-- bounds. For a large table, build it beforehand, while rows are written; it is then left as it is:
--
--     CREATE INDEX CONCURRENTLY logs_of_exchange ON logstore.logs
--         ((left(metadata ->> 'audit.exchange_id', 36)) COLLATE "C", instance_id)
--         WHERE metadata ? 'audit.stage';

-- The writer locks the ledger first; in another order the two would wait for each other.
LOCK TABLE logstore.batches IN SHARE MODE;

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_index
        WHERE indexrelid = to_regclass('logstore.logs_of_exchange') AND NOT indisvalid
    ) THEN
        RAISE EXCEPTION 'index logstore.logs_of_exchange is invalid, its CREATE INDEX CONCURRENTLY did not end'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Drop it: DROP INDEX CONCURRENTLY logstore.logs_of_exchange. Then build it again, or leave that to this file.';
    END IF;
END
$$;

CREATE INDEX IF NOT EXISTS logs_of_exchange ON logstore.logs
    ((left(metadata ->> 'audit.exchange_id', 36)) COLLATE "C", instance_id)
    WHERE metadata ? 'audit.stage';
COMMENT ON INDEX logstore.logs_of_exchange IS
    'The two rows of an exchange, and the exchanges that began in a range of time';

INSERT INTO logstore.migrations (version, name) VALUES (5, 'received');
