-- Partitions: what each table is cut by, what may not be deleted, and what retention took away.
--
-- Nothing is partitioned by this file: `auditlog partitions enable` does that, table by table, and
-- `disable` undoes it. The functions that make partitions are in the next file.

-- The writer locks the ledger first; in another order the two would wait for each other.
LOCK TABLE logstore.batches IN SHARE MODE;

CREATE TABLE logstore.partitioning (
    table_name text COLLATE "C" NOT NULL,
    step text NOT NULL,
    ahead interval NOT NULL DEFAULT '3 months',
    enabled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    maintained_at timestamptz,
    maintained_by text,
    findings integer NOT NULL DEFAULT 0,
    CONSTRAINT partitioning_pkey PRIMARY KEY (table_name),
    CONSTRAINT partitioning_step_known CHECK (step IN ('day', 'week', 'month')),
    CONSTRAINT partitioning_ahead_positive CHECK (ahead > '0')
);
COMMENT ON TABLE logstore.partitioning IS
    'The tables that are partitioned by log_date: how, and when that was last seen to.';
COMMENT ON COLUMN logstore.partitioning.table_name IS 'Table of schema logstore.';
COMMENT ON COLUMN logstore.partitioning.step IS
    'Length of a partition that is made from now on: day, week (from Monday) or month, in UTC.';
COMMENT ON COLUMN logstore.partitioning.ahead IS
    'For how long from now on there are to be partitions.';
COMMENT ON COLUMN logstore.partitioning.enabled_at IS 'When the table became a partitioned one.';
COMMENT ON COLUMN logstore.partitioning.maintained_at IS
    'End of the last run of maintenance that looked at the table; null before the first.';
COMMENT ON COLUMN logstore.partitioning.maintained_by IS 'The login that ran it.';
COMMENT ON COLUMN logstore.partitioning.findings IS
    'How many things it found that somebody has to look at.';

CREATE TABLE logstore.holds (
    hold_id uuid NOT NULL,
    table_name text COLLATE "C",
    instance_id text COLLATE "C",
    from_date timestamptz NOT NULL DEFAULT '-infinity',
    until_date timestamptz NOT NULL DEFAULT 'infinity',
    reason text NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    placed_by text NOT NULL DEFAULT session_user,
    released_at timestamptz,
    released_by text,
    release_reason text,
    CONSTRAINT holds_pkey PRIMARY KEY (hold_id),
    CONSTRAINT holds_range_not_empty CHECK (from_date < until_date)
);
COMMENT ON TABLE logstore.holds IS
    'Legal holds: rows that nothing deletes, however old they become, until the hold is released.';
COMMENT ON COLUMN logstore.holds.hold_id IS 'Identity of the hold.';
COMMENT ON COLUMN logstore.holds.table_name IS 'Table that it is about; null for all.';
COMMENT ON COLUMN logstore.holds.instance_id IS 'Tenant whose rows it is about; null for all.';
COMMENT ON COLUMN logstore.holds.from_date IS 'First log_date that is held.';
COMMENT ON COLUMN logstore.holds.until_date IS 'First log_date after it that is not.';
COMMENT ON COLUMN logstore.holds.reason IS 'Why: the matter, as its file names it.';
COMMENT ON COLUMN logstore.holds.placed_at IS 'When it was placed.';
COMMENT ON COLUMN logstore.holds.placed_by IS 'The login, or the person named at the time.';
COMMENT ON COLUMN logstore.holds.released_at IS 'When it was released; null while it holds.';
COMMENT ON COLUMN logstore.holds.released_by IS 'By whom.';
COMMENT ON COLUMN logstore.holds.release_reason IS 'Why.';

CREATE TABLE logstore.retirements (
    retirement_id uuid NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    partition_name text COLLATE "C" NOT NULL,
    partition_oid bigint NOT NULL,
    instance_id text COLLATE "C",
    lower_bound timestamptz NOT NULL,
    upper_bound timestamptz NOT NULL,
    state text NOT NULL,
    "rows" bigint,
    first_log_date timestamptz,
    last_log_date timestamptz,
    checksum text,
    archive_uri text,
    manifest_sha256 bytea,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    begun_by text NOT NULL DEFAULT session_user,
    ended_at timestamptz,
    package_version text,
    CONSTRAINT retirements_pkey PRIMARY KEY (retirement_id),
    CONSTRAINT retirements_state_known CHECK (
        state IN ('detaching', 'detached', 'archived', 'dropped', 'attached',
                  'deleting', 'deleted')
    ),
    CONSTRAINT retirements_range_not_empty CHECK (lower_bound < upper_bound)
);
COMMENT ON TABLE logstore.retirements IS
    'What retention took away, and where that is now: one row for each partition that left its table, or for the rows of one tenant that were deleted from a partition. The evidence that a row which is missing was meant to go.';
COMMENT ON COLUMN logstore.retirements.retirement_id IS 'Identity of the retirement: a UUIDv7.';
COMMENT ON COLUMN logstore.retirements.table_name IS 'Table of schema logstore.';
COMMENT ON COLUMN logstore.retirements.partition_name IS 'The partition.';
COMMENT ON COLUMN logstore.retirements.partition_oid IS
    'Its identity in the catalog: another table under that name is not this one.';
COMMENT ON COLUMN logstore.retirements.instance_id IS
    'Tenant whose rows were deleted; null where the whole partition went.';
COMMENT ON COLUMN logstore.retirements.lower_bound IS 'Lower bound of the partition.';
COMMENT ON COLUMN logstore.retirements.upper_bound IS 'Its upper bound, itself excluded.';
COMMENT ON COLUMN logstore.retirements.state IS
    'Of a partition: detaching, detached, archived (and the archive verified), dropped; attached when it was put back. Of a tenant''s rows: deleting, deleted.';
COMMENT ON COLUMN logstore.retirements."rows" IS
    'Rows of the partition, or rows deleted so far; null before they were counted.';
COMMENT ON COLUMN logstore.retirements.first_log_date IS 'Smallest log_date among them.';
COMMENT ON COLUMN logstore.retirements.last_log_date IS 'Largest log_date among them.';
COMMENT ON COLUMN logstore.retirements.checksum IS
    'Of their content, in any order; what the archive''s manifest says, too.';
COMMENT ON COLUMN logstore.retirements.archive_uri IS
    'Folder of the archive; null where there is none.';
COMMENT ON COLUMN logstore.retirements.manifest_sha256 IS 'SHA-256 of the archive''s manifest.';
COMMENT ON COLUMN logstore.retirements.begun_at IS 'When the retirement was begun.';
COMMENT ON COLUMN logstore.retirements.begun_by IS 'The login that did.';
COMMENT ON COLUMN logstore.retirements.ended_at IS
    'When the rows were gone, or back in their table; null until then.';
COMMENT ON COLUMN logstore.retirements.package_version IS
    'Version of auditlog-postgres that retired it.';

REVOKE ALL ON logstore.partitioning, logstore.holds, logstore.retirements FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (7, 'partitions');
