"""The tables of schema `logstore`: columns and types in COPY order, keys, indexes.

The single source that encode, the queries and the schema test read; the migrations are
compared with it on a real PostgreSQL, both ways. `projections.py` describes the other schema.
"""

from auditlog.schema import Column, Index, SqlType, Table, identifier, instant

__all__ = [
    "BATCHES",
    "DEAD_LETTERS",
    "EXECUTION_LOGS",
    "HOLDS",
    "LOGS",
    "MIGRATIONS",
    "PARTITIONING",
    "QUOTA_LOGS",
    "RETIREMENTS",
    "TABLES",
    "Column",
    "Index",
    "SqlType",
    "Table",
]

_LOG_LEVEL = Column("log_level", "smallint", default="1")
_IN_TIME = "A range of time across all tenants"

LOGS = Table(
    "logstore",
    "logs",
    (
        identifier("instance_id"),
        identifier("log_id"),
        instant("log_date"),
        instant("occurrence_date"),
        identifier("aggregate_type", nullable=True),
        identifier("aggregate_id", nullable=True),
        Column("event_sequence", "bigint", nullable=True),
        identifier("event_type", nullable=True),
        identifier("user_id", nullable=True),
        identifier("resource_owner", nullable=True),
        Column("protocol", "smallint", default="0"),
        Column("request_url", "text", nullable=True, max_bytes=8192),
        Column("request_method", "text", nullable=True, max_bytes=64),
        Column("request_headers", "jsonb", nullable=True),
        Column("response_status", "integer", nullable=True),
        Column("response_time_ms", "integer", nullable=True),
        _LOG_LEVEL,
        Column("message", "text", nullable=True, max_bytes=8192),
        Column("metadata", "jsonb", nullable=True),
    ),
    ("instance_id", "log_id"),
    (
        Index(
            "logs_newest_of_user",
            "instance_id, user_id, log_date DESC",
            "The newest requests of a user",
            "SELECT * FROM logstore.logs WHERE instance_id = 'tenant-7' AND user_id = 'user-4711'"
            " ORDER BY log_date DESC LIMIT 50",
            where="user_id IS NOT NULL",
        ),
        Index(
            "logs_of_aggregate",
            "instance_id, aggregate_type, aggregate_id, log_date DESC",
            "The history of one thing, newest first",
            "SELECT * FROM logstore.logs WHERE instance_id = 'tenant-7'"
            " AND aggregate_type = 'order' AND aggregate_id = 'order-4711'"
            " ORDER BY log_date DESC LIMIT 50",
            where="aggregate_id IS NOT NULL",
        ),
        Index(
            "logs_of_event_type",
            "instance_id, event_type, log_date DESC",
            "The newest events of a type, or of a family of types (LIKE 'user.%')",
            "SELECT * FROM logstore.logs WHERE instance_id = 'tenant-7'"
            " AND event_type = 'order.cancelled' ORDER BY log_date DESC LIMIT 50",
            where="event_type IS NOT NULL",
        ),
        Index(
            "logs_newest_of_resource_owner",
            "instance_id, resource_owner, log_date DESC",
            "The newest requests that concern an organisation",
            "SELECT * FROM logstore.logs WHERE instance_id = 'tenant-7'"
            " AND resource_owner = 'org-47' ORDER BY log_date DESC LIMIT 50",
            where="resource_owner IS NOT NULL",
        ),
        Index(
            "logs_warnings_and_errors",
            "instance_id, log_date DESC",
            "The newest rows whose level is not info",
            "SELECT * FROM logstore.logs WHERE instance_id = 'tenant-7' AND log_level IN (2, 3)"
            " ORDER BY log_date DESC LIMIT 50",
            where="log_level <> 1",
        ),
        Index(
            "logs_in_time",
            "log_date",
            _IN_TIME,
            "SELECT count(*) FROM logstore.logs"
            " WHERE log_date >= '2026-01-03 10:00+00' AND log_date < '2026-01-03 11:00+00'",
            method="brin",
            storage="autosummarize='on'",
        ),
        Index(
            "logs_of_exchange",
            '"left"((metadata ->> \'audit.exchange_id\'::text), 36) COLLATE "C", instance_id',
            "The two rows of an exchange, and the exchanges that began in a range of time",
            "SELECT * FROM logstore.logs WHERE metadata ? 'audit.stage'"
            " AND left(metadata ->> 'audit.exchange_id', 36) COLLATE \"C\""
            " = '019b8b00-4711-7000-8000-000000000000'",
            where="metadata ? 'audit.stage'::text",
        ),
    ),
)

EXECUTION_LOGS = Table(
    "logstore",
    "execution_logs",
    (
        identifier("instance_id"),
        identifier("log_id"),
        identifier("execution_id"),
        identifier("target_id"),
        instant("log_date"),
        _LOG_LEVEL,
        Column("message", "text", max_bytes=8192),
        Column("stack_trace", "text", nullable=True, max_bytes=16384),
        Column("metadata", "jsonb", nullable=True),
    ),
    ("instance_id", "log_id"),
    (
        Index(
            "execution_logs_of_execution",
            "instance_id, execution_id, log_date DESC",
            "The lines of one execution, newest first",
            "SELECT * FROM logstore.execution_logs WHERE instance_id = 'tenant-7'"
            " AND execution_id = 'execution-471' ORDER BY log_date DESC LIMIT 50",
        ),
        Index(
            "execution_logs_newest_of_target",
            "instance_id, target_id, log_date DESC",
            "The newest lines about a target",
            "SELECT * FROM logstore.execution_logs WHERE instance_id = 'tenant-7'"
            " AND target_id = 'target-47' ORDER BY log_date DESC LIMIT 50",
        ),
        Index(
            "execution_logs_warnings_and_errors",
            "instance_id, log_date DESC",
            "The newest lines whose level is not info",
            "SELECT * FROM logstore.execution_logs WHERE instance_id = 'tenant-7'"
            " AND log_level IN (2, 3) ORDER BY log_date DESC LIMIT 50",
            where="log_level <> 1",
        ),
        Index(
            "execution_logs_in_time",
            "log_date",
            _IN_TIME,
            "SELECT count(*) FROM logstore.execution_logs"
            " WHERE log_date >= '2026-01-03 10:00+00' AND log_date < '2026-01-03 11:00+00'",
            method="brin",
            storage="autosummarize='on'",
        ),
    ),
)

QUOTA_LOGS = Table(
    "logstore",
    "quota_logs",
    (
        identifier("instance_id"),
        identifier("log_id"),
        identifier("quota_id"),
        instant("log_date"),
        Column("previous_usage", "bigint"),
        Column("current_usage", "bigint"),
        Column("quota_limit", "bigint"),
        identifier("resource_owner"),
        identifier("user_id", nullable=True),
        identifier("action", nullable=True),
        Column("allowed", "boolean"),
        Column("threshold_exceeded", "boolean", default="false"),
    ),
    ("instance_id", "log_id"),
    (
        Index(
            "quota_logs_newest_of_quota",
            "instance_id, quota_id, log_date DESC",
            "The newest decisions about a quota",
            "SELECT * FROM logstore.quota_logs WHERE instance_id = 'tenant-7'"
            " AND quota_id = 'quota-47' ORDER BY log_date DESC LIMIT 50",
        ),
        Index(
            "quota_logs_newest_of_user",
            "instance_id, user_id, log_date DESC",
            "The newest decisions about a user",
            "SELECT * FROM logstore.quota_logs WHERE instance_id = 'tenant-7'"
            " AND user_id = 'user-4711' ORDER BY log_date DESC LIMIT 50",
            where="user_id IS NOT NULL",
        ),
        Index(
            "quota_logs_refused",
            "instance_id, log_date DESC",
            "The newest refusals of a tenant",
            "SELECT * FROM logstore.quota_logs WHERE instance_id = 'tenant-7' AND NOT allowed"
            " ORDER BY log_date DESC LIMIT 50",
            where="NOT allowed",
        ),
        Index(
            "quota_logs_in_time",
            "log_date",
            _IN_TIME,
            "SELECT count(*) FROM logstore.quota_logs"
            " WHERE log_date >= '2026-01-03 10:00+00' AND log_date < '2026-01-03 11:00+00'",
            method="brin",
            storage="autosummarize='on'",
        ),
    ),
)

TABLES = (LOGS, EXECUTION_LOGS, QUOTA_LOGS)
"""What the sink writes with COPY, in the order in which it counts them."""

BATCHES = Table(
    "logstore",
    "batches",
    (
        Column("batch_id", "uuid"),
        Column("sequence", "bigint", identity=True),
        instant("committed_at", default="clock_timestamp()"),
        Column("writer", "text"),
        Column("logs", "integer", default="0"),
        Column("execution_logs", "integer", default="0"),
        Column("quota_logs", "integer", default="0"),
        Column("bytes", "bigint"),
        instant("first_log_date", default=None),
        instant("last_log_date", default=None),
        Column("sha256", "bytea"),
    ),
    ("batch_id",),
    (
        Index(
            "batches_sequence_key",
            "sequence",
            "The batches after the one seen last",
            "SELECT * FROM logstore.batches WHERE sequence > 99000 ORDER BY sequence LIMIT 50",
            unique=True,
        ),
    ),
)
"""The ledger: one row for each batch, in the transaction of its COPY."""

DEAD_LETTERS = Table(
    "logstore",
    "dead_letters",
    (
        Column("letter_id", "uuid"),
        Column("died_at", "timestamptz"),
        Column("writer", "text"),
        Column("table_name", "text"),
        Column("columns", "text[]"),
        Column("row", "bytea"),
        Column("instance_id", "bytea", nullable=True),
        Column("log_id", "bytea", nullable=True),
        Column("sqlstate", "text"),
        Column("reason", "text"),
        Column("attempts", "integer", default="0"),
    ),
    ("letter_id",),
)
"""Rows that none of `TABLES` takes, not even in their smallest form."""

PARTITIONING = Table(
    "logstore",
    "partitioning",
    (
        Column("table_name", "text", collation="C"),
        Column("step", "text"),
        Column("ahead", "interval", default="'3 mons'::interval"),
        instant("enabled_at", default="clock_timestamp()"),
        instant("maintained_at", default=None),
        Column("maintained_by", "text", nullable=True),
        Column("findings", "integer", default="0"),
    ),
    ("table_name",),
)
"""Which of `TABLES` are partitioned, and how."""

HOLDS = Table(
    "logstore",
    "holds",
    (
        Column("hold_id", "uuid"),
        Column("table_name", "text", nullable=True, collation="C"),
        Column("instance_id", "text", nullable=True, collation="C"),
        instant("from_date", default="'-infinity'::timestamp with time zone"),
        instant("until_date", default="'infinity'::timestamp with time zone"),
        Column("reason", "text"),
        instant("placed_at", default="clock_timestamp()"),
        Column("placed_by", "text", default="SESSION_USER"),
        instant("released_at", default=None),
        Column("released_by", "text", nullable=True),
        Column("release_reason", "text", nullable=True),
    ),
    ("hold_id",),
)
"""Legal holds: what nothing may delete."""

RETIREMENTS = Table(
    "logstore",
    "retirements",
    (
        Column("retirement_id", "uuid"),
        Column("table_name", "text", collation="C"),
        Column("partition_name", "text", collation="C"),
        Column("partition_oid", "bigint"),
        Column("instance_id", "text", nullable=True, collation="C"),
        Column("lower_bound", "timestamptz"),
        Column("upper_bound", "timestamptz"),
        Column("state", "text"),
        Column("rows", "bigint", nullable=True),
        instant("first_log_date", default=None),
        instant("last_log_date", default=None),
        Column("checksum", "text", nullable=True),
        Column("archive_uri", "text", nullable=True),
        Column("manifest_sha256", "bytea", nullable=True),
        instant("begun_at", default="clock_timestamp()"),
        Column("begun_by", "text", default="SESSION_USER"),
        instant("ended_at", default=None),
        Column("package_version", "text", nullable=True),
    ),
    ("retirement_id",),
)
"""What retention took away from `TABLES`, and where that is."""

MIGRATIONS = Table(
    "logstore",
    "migrations",
    (
        Column("version", "integer"),
        Column("name", "text"),
        Column("sha256", "bytea", nullable=True),
        instant("applied_at", default="clock_timestamp()"),
        Column("applied_by", "text", default="SESSION_USER"),
        Column("package_version", "text", nullable=True),
    ),
    ("version",),
)
"""Which files of migrations/ the database has seen; `postgres.migrate` keeps it."""
