-- The ledger: what the sink wrote, batch by batch, in the same transaction as the rows themselves.

CREATE TABLE logstore.batches (
    batch_id uuid NOT NULL,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    writer text NOT NULL,
    logs integer NOT NULL DEFAULT 0,
    execution_logs integer NOT NULL DEFAULT 0,
    quota_logs integer NOT NULL DEFAULT 0,
    bytes bigint NOT NULL,
    first_log_date timestamptz,
    last_log_date timestamptz,
    sha256 bytea NOT NULL,
    CONSTRAINT batches_pkey PRIMARY KEY (batch_id),
    CONSTRAINT batches_sequence_key UNIQUE (sequence),
    CONSTRAINT batches_counts_not_negative CHECK (
        logs >= 0 AND execution_logs >= 0 AND quota_logs >= 0 AND bytes >= 0
    ),
    CONSTRAINT batches_sha256_whole CHECK (octet_length(sha256) = 32)
);
COMMENT ON TABLE logstore.batches IS
    'Ledger of the sink: one row for each batch, committed together with its rows. A batch that is here was stored; one that is not was not. Append-only.';
COMMENT ON COLUMN logstore.batches.batch_id IS
    'Identity that the writer gave the batch; a repetition finds it here and writes nothing.';
COMMENT ON COLUMN logstore.batches.sequence IS
    'Order in which batches were written; log_date is the client''s clock and says nothing of that. Batches written at the same time may become visible in another order, so whoever follows this number comes back for gaps.';
COMMENT ON COLUMN logstore.batches.committed_at IS
    'Clock of the server when the ledger row was written, just before the commit.';
COMMENT ON COLUMN logstore.batches.writer IS 'Process that wrote it, as host:pid.';
COMMENT ON COLUMN logstore.batches.logs IS 'Rows of this batch in logstore.logs.';
COMMENT ON COLUMN logstore.batches.execution_logs IS 'Rows in logstore.execution_logs.';
COMMENT ON COLUMN logstore.batches.quota_logs IS 'Rows in logstore.quota_logs.';
COMMENT ON COLUMN logstore.batches.bytes IS 'Length of the encoded rows.';
COMMENT ON COLUMN logstore.batches.first_log_date IS 'Smallest log_date in the batch.';
COMMENT ON COLUMN logstore.batches.last_log_date IS 'Largest log_date in the batch.';
COMMENT ON COLUMN logstore.batches.sha256 IS 'SHA-256 of the encoded rows, 32 bytes.';
COMMENT ON INDEX logstore.batches_sequence_key IS 'The batches after the one seen last';

REVOKE ALL ON logstore.batches FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (3, 'batches');
