-- The audit trail: the three tables that the sink fills, the indexes for the questions asked of
-- them, and the history of these files.
--
-- Every file here is plain SQL for PostgreSQL 14 to 18. `auditlog migrate` runs each in one
-- transaction; by hand it is `psql -v ON_ERROR_STOP=1 -1 -f FILE`, in the order of the numbers.
-- A file is never changed once it has been released: what is to change goes into a new one.

-- A role without CREATE on the database may be given the schema by its administrator beforehand;
-- CREATE SCHEMA IF NOT EXISTS would still ask for that right.
DO $$
BEGIN
    IF to_regnamespace('logstore') IS NULL THEN
        CREATE SCHEMA logstore;
    END IF;
END
$$;
COMMENT ON SCHEMA logstore IS
    'Audit trail of this service: what was asked of it, by whom, with what outcome.';

CREATE TABLE logstore.migrations (
    version integer NOT NULL,
    name text NOT NULL,
    sha256 bytea,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text NOT NULL DEFAULT session_user,
    package_version text,
    CONSTRAINT migrations_pkey PRIMARY KEY (version)
);
COMMENT ON TABLE logstore.migrations IS 'Which files of migrations/ this database has seen.';
COMMENT ON COLUMN logstore.migrations.version IS 'The number that the file name begins with.';
COMMENT ON COLUMN logstore.migrations.name IS 'The rest of the file name, without ".sql".';
COMMENT ON COLUMN logstore.migrations.sha256 IS
    'SHA-256 of the file; null when psql ran it, until the next "auditlog migrate".';
COMMENT ON COLUMN logstore.migrations.applied_at IS 'When the file was run.';
COMMENT ON COLUMN logstore.migrations.applied_by IS 'The login that ran it.';
COMMENT ON COLUMN logstore.migrations.package_version IS
    'Version of auditlog-postgres that ran it; null when psql did.';

-- Identifiers are COLLATE "C": they are compared as bytes. That keeps UUIDv7 in order of time
-- whatever the database's locale, makes `event_type LIKE 'user.%'` an index search, and a new
-- libc or ICU cannot invalidate the indexes.
CREATE TABLE logstore.logs (
    instance_id text COLLATE "C" NOT NULL,
    log_id text COLLATE "C" NOT NULL,
    log_date timestamptz NOT NULL DEFAULT now(),
    occurrence_date timestamptz NOT NULL DEFAULT now(),
    aggregate_type text COLLATE "C",
    aggregate_id text COLLATE "C",
    event_sequence bigint,
    event_type text COLLATE "C",
    user_id text COLLATE "C",
    resource_owner text COLLATE "C",
    protocol smallint NOT NULL DEFAULT 0,
    request_url text,
    request_method text,
    request_headers jsonb,
    response_status integer,
    response_time_ms integer,
    log_level smallint NOT NULL DEFAULT 1,
    message text,
    metadata jsonb,
    CONSTRAINT logs_pkey PRIMARY KEY (instance_id, log_id),
    CONSTRAINT logs_protocol_known CHECK (protocol BETWEEN 0 AND 3),
    CONSTRAINT logs_log_level_known CHECK (log_level BETWEEN 1 AND 4),
    CONSTRAINT logs_response_time_not_negative CHECK (response_time_ms >= 0)
);
COMMENT ON TABLE logstore.logs IS
    'One row for each request answered, over HTTP, WebSocket, gRPC or GraphQL, and for each event the application recorded itself. Append-only.';
COMMENT ON COLUMN logstore.logs.instance_id IS 'Tenant that the row belongs to; leads every key.';
COMMENT ON COLUMN logstore.logs.log_id IS
    'Identity of the row within its tenant: a UUIDv7, so its order is that of recording.';
COMMENT ON COLUMN logstore.logs.log_date IS
    'When the row was recorded, by the clock of the service. Not the order of commits: that is batches.sequence.';
COMMENT ON COLUMN logstore.logs.occurrence_date IS
    'When the request began or the event happened, by the clock of the service.';
COMMENT ON COLUMN logstore.logs.aggregate_type IS
    'Kind of thing acted upon, such as "user"; null when the request named none.';
COMMENT ON COLUMN logstore.logs.aggregate_id IS 'Which one of that kind.';
COMMENT ON COLUMN logstore.logs.event_sequence IS
    'Number of the event in the history of its aggregate, where the application counts them.';
COMMENT ON COLUMN logstore.logs.event_type IS 'What happened, such as "user.password.changed".';
COMMENT ON COLUMN logstore.logs.user_id IS 'Who asked; null when nobody was authenticated.';
COMMENT ON COLUMN logstore.logs.resource_owner IS
    'Organisation that owns the thing acted upon; null when unknown.';
COMMENT ON COLUMN logstore.logs.protocol IS '0 unknown, 1 HTTP or WebSocket, 2 gRPC, 3 GraphQL.';
COMMENT ON COLUMN logstore.logs.request_url IS
    'Target of the request with secrets redacted; for gRPC the full method, /package.Service/Method.';
COMMENT ON COLUMN logstore.logs.request_method IS 'Method: GET, POST, ...; for gRPC its bare name.';
COMMENT ON COLUMN logstore.logs.request_headers IS
    'Headers that may be stored: lower-case name to array of values, in the order received.';
COMMENT ON COLUMN logstore.logs.response_status IS
    'HTTP status or gRPC status code; null when no answer was begun.';
COMMENT ON COLUMN logstore.logs.response_time_ms IS
    'Milliseconds from the beginning of the request to the last byte of the answer.';
COMMENT ON COLUMN logstore.logs.log_level IS
    '1 info, 2 warn, 3 error, 4 debug. Numbers are names, not an order.';
COMMENT ON COLUMN logstore.logs.message IS 'A sentence for the reader, if the application gave one.';
COMMENT ON COLUMN logstore.logs.metadata IS
    'Everything without a column: OpenTelemetry attribute names, and "audit.*" for our own.';

CREATE TABLE logstore.execution_logs (
    instance_id text COLLATE "C" NOT NULL,
    log_id text COLLATE "C" NOT NULL,
    execution_id text COLLATE "C" NOT NULL,
    target_id text COLLATE "C" NOT NULL,
    log_date timestamptz NOT NULL DEFAULT now(),
    log_level smallint NOT NULL DEFAULT 1,
    message text NOT NULL,
    stack_trace text,
    metadata jsonb,
    CONSTRAINT execution_logs_pkey PRIMARY KEY (instance_id, log_id),
    CONSTRAINT execution_logs_log_level_known CHECK (log_level BETWEEN 1 AND 4)
);
COMMENT ON TABLE logstore.execution_logs IS
    'Lines that the runs of actions left, several for one execution. Append-only.';
COMMENT ON COLUMN logstore.execution_logs.instance_id IS 'Tenant that the row belongs to.';
COMMENT ON COLUMN logstore.execution_logs.log_id IS 'Identity of the row within its tenant, a UUIDv7.';
COMMENT ON COLUMN logstore.execution_logs.execution_id IS
    'The run that left this line: projections.executions.id.';
COMMENT ON COLUMN logstore.execution_logs.target_id IS 'The target of the run that it speaks of.';
COMMENT ON COLUMN logstore.execution_logs.log_date IS 'When the line was recorded.';
COMMENT ON COLUMN logstore.execution_logs.log_level IS
    '1 info, 2 warn, 3 error, 4 debug. Numbers are names, not an order.';
COMMENT ON COLUMN logstore.execution_logs.message IS 'What the line says.';
COMMENT ON COLUMN logstore.execution_logs.stack_trace IS 'Stack trace, where the run failed.';
COMMENT ON COLUMN logstore.execution_logs.metadata IS 'Details such as an error code or an attempt.';

CREATE TABLE logstore.quota_logs (
    instance_id text COLLATE "C" NOT NULL,
    log_id text COLLATE "C" NOT NULL,
    quota_id text COLLATE "C" NOT NULL,
    log_date timestamptz NOT NULL DEFAULT now(),
    previous_usage bigint NOT NULL,
    current_usage bigint NOT NULL,
    quota_limit bigint NOT NULL,
    resource_owner text COLLATE "C" NOT NULL,
    user_id text COLLATE "C",
    action text COLLATE "C",
    allowed boolean NOT NULL,
    threshold_exceeded boolean NOT NULL DEFAULT false,
    CONSTRAINT quota_logs_pkey PRIMARY KEY (instance_id, log_id)
);
COMMENT ON TABLE logstore.quota_logs IS
    'Decisions about limits: usage before and after, and whether it was allowed. Append-only; usage itself is counted elsewhere, never by scanning this table.';
COMMENT ON COLUMN logstore.quota_logs.instance_id IS 'Tenant that the row belongs to.';
COMMENT ON COLUMN logstore.quota_logs.log_id IS 'Identity of the row within its tenant, a UUIDv7.';
COMMENT ON COLUMN logstore.quota_logs.quota_id IS 'The quota that was asked.';
COMMENT ON COLUMN logstore.quota_logs.log_date IS 'When the decision was made.';
COMMENT ON COLUMN logstore.quota_logs.previous_usage IS 'Units used in the period before this request.';
COMMENT ON COLUMN logstore.quota_logs.current_usage IS 'Units used in the period after it.';
COMMENT ON COLUMN logstore.quota_logs.quota_limit IS 'Units that the period allows.';
COMMENT ON COLUMN logstore.quota_logs.resource_owner IS 'Organisation that the quota belongs to.';
COMMENT ON COLUMN logstore.quota_logs.user_id IS 'Who asked; null when nobody was authenticated.';
COMMENT ON COLUMN logstore.quota_logs.action IS 'What the units were wanted for.';
COMMENT ON COLUMN logstore.quota_logs.allowed IS 'Whether the request was let through.';
COMMENT ON COLUMN logstore.quota_logs.threshold_exceeded IS
    'Whether this request crossed a threshold that somebody wants to hear of.';

-- Index by index, the comment is the question it answers. Left out, with what each would cost a row
-- beside the 13 us that it costs now (2026-11-24, benchmarks/index_cost.py): the date within a
-- tenant, about 2 us, because the primary key already holds a tenant's rows in order of time; the
-- trace, (metadata ->> 'trace_id'), about 4.5 us as a B-tree and 2.3 as a hash, because logs_in_time
-- finds it within a known hour. Either can be added by whoever asks that question all day.
CREATE INDEX logs_newest_of_user ON logstore.logs (instance_id, user_id, log_date DESC)
    WHERE user_id IS NOT NULL;
CREATE INDEX logs_of_aggregate
    ON logstore.logs (instance_id, aggregate_type, aggregate_id, log_date DESC)
    WHERE aggregate_id IS NOT NULL;
CREATE INDEX logs_of_event_type ON logstore.logs (instance_id, event_type, log_date DESC)
    WHERE event_type IS NOT NULL;
CREATE INDEX logs_newest_of_resource_owner
    ON logstore.logs (instance_id, resource_owner, log_date DESC)
    WHERE resource_owner IS NOT NULL;
CREATE INDEX logs_warnings_and_errors ON logstore.logs (instance_id, log_date DESC)
    WHERE log_level <> 1;
CREATE INDEX logs_in_time ON logstore.logs USING brin (log_date) WITH (autosummarize = on);

CREATE INDEX execution_logs_of_execution
    ON logstore.execution_logs (instance_id, execution_id, log_date DESC);
CREATE INDEX execution_logs_newest_of_target
    ON logstore.execution_logs (instance_id, target_id, log_date DESC);
CREATE INDEX execution_logs_warnings_and_errors
    ON logstore.execution_logs (instance_id, log_date DESC)
    WHERE log_level <> 1;
CREATE INDEX execution_logs_in_time
    ON logstore.execution_logs USING brin (log_date) WITH (autosummarize = on);

CREATE INDEX quota_logs_newest_of_quota ON logstore.quota_logs (instance_id, quota_id, log_date DESC);
CREATE INDEX quota_logs_newest_of_user ON logstore.quota_logs (instance_id, user_id, log_date DESC)
    WHERE user_id IS NOT NULL;
CREATE INDEX quota_logs_refused ON logstore.quota_logs (instance_id, log_date DESC)
    WHERE NOT allowed;
CREATE INDEX quota_logs_in_time
    ON logstore.quota_logs USING brin (log_date) WITH (autosummarize = on);

COMMENT ON INDEX logstore.logs_newest_of_user IS 'The newest requests of a user';
COMMENT ON INDEX logstore.logs_of_aggregate IS 'The history of one thing, newest first';
COMMENT ON INDEX logstore.logs_of_event_type IS
    'The newest events of a type, or of a family of types (LIKE ''user.%'')';
COMMENT ON INDEX logstore.logs_newest_of_resource_owner IS
    'The newest requests that concern an organisation';
COMMENT ON INDEX logstore.logs_warnings_and_errors IS 'The newest rows whose level is not info';
COMMENT ON INDEX logstore.logs_in_time IS 'A range of time across all tenants';
COMMENT ON INDEX logstore.execution_logs_of_execution IS 'The lines of one execution, newest first';
COMMENT ON INDEX logstore.execution_logs_newest_of_target IS 'The newest lines about a target';
COMMENT ON INDEX logstore.execution_logs_warnings_and_errors IS
    'The newest lines whose level is not info';
COMMENT ON INDEX logstore.execution_logs_in_time IS 'A range of time across all tenants';
COMMENT ON INDEX logstore.quota_logs_newest_of_quota IS 'The newest decisions about a quota';
COMMENT ON INDEX logstore.quota_logs_newest_of_user IS 'The newest decisions about a user';
COMMENT ON INDEX logstore.quota_logs_refused IS 'The newest refusals of a tenant';
COMMENT ON INDEX logstore.quota_logs_in_time IS 'A range of time across all tenants';

REVOKE ALL ON SCHEMA logstore FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA logstore FROM PUBLIC;

INSERT INTO logstore.migrations (version, name) VALUES (1, 'logstore');
