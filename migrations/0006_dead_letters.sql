-- Rows that no table takes, kept with the reason until somebody has looked at them.
--
-- The writer adds letters and does nothing else with them. Unlike the trail they may be taken away:
-- `auditlog dead-letters` does so when it has stored the row after all, or, with a reason, when it
-- has put an `audit.gap` row in its place.

-- The writer locks the ledger first; in another order the two would wait for each other.
LOCK TABLE logstore.batches IN SHARE MODE;

CREATE TABLE logstore.dead_letters (
    letter_id uuid NOT NULL,
    died_at timestamptz NOT NULL,
    writer text NOT NULL,
    table_name text NOT NULL,
    columns text[] NOT NULL,
    "row" bytea NOT NULL,
    instance_id bytea,
    log_id bytea,
    sqlstate text NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    CONSTRAINT dead_letters_pkey PRIMARY KEY (letter_id)
);
COMMENT ON TABLE logstore.dead_letters IS
    'Rows that were refused even in their smallest form. `auditlog dead-letters` shows them, stores them after all, or discards them and leaves an audit.gap row.';
COMMENT ON COLUMN logstore.dead_letters.letter_id IS
    'Made of the table and the row: the same row is one letter, however often it is buried.';
COMMENT ON COLUMN logstore.dead_letters.died_at IS
    'When it was given up, by the clock of the writer.';
COMMENT ON COLUMN logstore.dead_letters.writer IS 'Process that gave it up, as host:pid.';
COMMENT ON COLUMN logstore.dead_letters.table_name IS
    'Table of schema logstore that it was meant for.';
COMMENT ON COLUMN logstore.dead_letters.columns IS
    'Names of the columns, in the order of the fields of the row.';
COMMENT ON COLUMN logstore.dead_letters."row" IS
    'The row as it was: one tuple in the binary format of COPY. Nothing in it was judged safe.';
COMMENT ON COLUMN logstore.dead_letters.instance_id IS
    'Tenant, in the bytes of the row, which need not be a text; null where the row is no tuple.';
COMMENT ON COLUMN logstore.dead_letters.log_id IS 'Identity of the row, likewise.';
COMMENT ON COLUMN logstore.dead_letters.sqlstate IS
    'Why it was refused: a code of PostgreSQL, empty where there is none.';
COMMENT ON COLUMN logstore.dead_letters.reason IS
    'The same in words that quote nothing of the row.';
COMMENT ON COLUMN logstore.dead_letters.attempts IS
    'How often it was tried in vain to store it after all.';

-- A batch that is replayed may hold rows that are there already.
COMMENT ON COLUMN logstore.batches.logs IS
    'Rows that this batch added to logstore.logs; of a replay, those that were not there yet.';
COMMENT ON COLUMN logstore.batches.execution_logs IS 'Likewise to logstore.execution_logs.';
COMMENT ON COLUMN logstore.batches.quota_logs IS 'Likewise to logstore.quota_logs.';
COMMENT ON COLUMN logstore.batches.bytes IS
    'Length of the encoded rows, all of them, whether they were new or not.';

REVOKE ALL ON logstore.dead_letters FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (6, 'dead_letters');
