"""The tables in which quotas are kept: limits, counters, crossings. Beside `tables.py`, likewise.

What was decided about a limit is a row of `tables.QUOTA_LOGS`.
"""

from auditlog.schema import Column, Index, Table, instant

QUOTAS = Table(
    "logstore",
    "quotas",
    (
        Column("quota_id", "text", collation="C"),
        Column("instance_id", "text", collation="C", default="''::text"),
        Column("counts", "text", default="'requests'::text"),
        Column("per", "text[]", default="'{tenant}'::text[]"),
        Column("quota_limit", "bigint"),
        Column("period", "text", default="'1 month'::text"),
        Column("rolling", "boolean", default="false"),
        instant("anchor", default=None),
        Column("time_zone", "text", default="'UTC'::text"),
        Column("thresholds", "integer[]", default="'{}'::integer[]"),
        Column("enforced", "boolean", default="true"),
        Column("exact", "boolean", default="false"),
        Column("on_unavailable", "text", default="'open'::text"),
        Column("refunds", "text[]", default="'{server_error,cancelled,401,429}'::text[]"),
        Column("routes", "text[]", default="'{}'::text[]"),
        Column("methods", "text[]", default="'{}'::text[]"),
        Column("log_allowed", "boolean", default="false"),
        instant("changed_at", default="clock_timestamp()"),
        Column("changed_by", "text", default="SESSION_USER"),
    ),
    ("quota_id", "instance_id"),
)
"""Limits laid down by `auditlog quota set`; an empty tenant stands for all."""

QUOTA_USAGE = Table(
    "logstore",
    "quota_usage",
    (
        Column("quota_id", "text", collation="C"),
        Column("instance_id", "text", collation="C"),
        Column("subject", "text", collation="C"),
        Column("period_start", "timestamptz"),
        Column("period_end", "timestamptz"),
        Column("used", "bigint", default="0"),
        Column("quota_limit", "bigint"),
        Column("told_percent", "integer", default="0"),
        instant("first_at", default="clock_timestamp()"),
        instant("last_at", default="clock_timestamp()"),
    ),
    ("quota_id", "instance_id", "subject", "period_start"),
    (
        Index(
            "quota_usage_ended",
            "period_end",
            "The counters of periods that are over",
            "SELECT * FROM logstore.quota_usage WHERE period_end < '2026-01-03' LIMIT 50",
        ),
    ),
)
"""Counters of periods."""

QUOTA_WINDOWS = Table(
    "logstore",
    "quota_windows",
    (
        Column("quota_id", "text", collation="C"),
        Column("instance_id", "text", collation="C"),
        Column("subject", "text", collation="C"),
        Column("window_length", "interval"),
        Column("newest", "bigint"),
        Column("counts", "bigint[]"),
        Column("quota_limit", "bigint"),
        Column("told_window", "bigint", default="0"),
        Column("told_percent", "integer", default="0"),
        instant("first_at", default="clock_timestamp()"),
        instant("last_at", default="clock_timestamp()"),
    ),
    ("quota_id", "instance_id", "subject", "window_length"),
)
"""Counters of rolling windows."""

QUOTA_CROSSINGS = Table(
    "logstore",
    "quota_crossings",
    (
        Column("crossing_id", "uuid"),
        Column("quota_id", "text", collation="C"),
        Column("instance_id", "text", collation="C"),
        Column("subject", "text", collation="C"),
        Column("period_start", "timestamptz"),
        Column("period_end", "timestamptz"),
        Column("percent", "integer"),
        Column("previous_usage", "bigint"),
        Column("current_usage", "bigint"),
        Column("quota_limit", "bigint"),
        Column("resource_owner", "text", nullable=True),
        Column("user_id", "text", nullable=True),
        Column("action", "text", nullable=True),
        instant("crossed_at", default="clock_timestamp()"),
        instant("claimed_at", default="clock_timestamp()"),
        instant("stored_at", default=None),
        instant("called_at", default=None),
    ),
    ("crossing_id",),
    (
        Index(
            "quota_crossings_once",
            "quota_id, instance_id, subject, period_start, period_end, percent",
            "The crossings of a quota in a period",
            "SELECT * FROM logstore.quota_crossings WHERE quota_id = 'quota-47'"
            " AND instance_id = 'tenant-7' AND subject = ''"
            " AND period_start = '2026-01-03' ORDER BY percent",
            unique=True,
        ),
        Index(
            "quota_crossings_unfinished",
            "claimed_at",
            "Crossings that a process was about to tell, and did not",
            "SELECT * FROM logstore.quota_crossings WHERE (stored_at IS NULL OR called_at IS NULL)"
            " AND claimed_at < '2026-01-03' LIMIT 50",
            where="(stored_at IS NULL) OR (called_at IS NULL)",
        ),
    ),
)
"""Thresholds that were crossed, committed with the spending."""

QUOTA_TABLES = (QUOTAS, QUOTA_USAGE, QUOTA_WINDOWS, QUOTA_CROSSINGS)
