"""A table of the trail with partitions by date, made with plain SQL and the schema's functions."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import psycopg

from auditlog.tables import TABLES

DAY = timedelta(days=1)
_CONVERTED = """
    ALTER TABLE logstore.{table} RENAME TO plain;
    CREATE TABLE logstore.{table} (LIKE logstore.plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
        PARTITION BY RANGE (log_date);
    DROP TABLE logstore.plain;
    {indexes};
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.{table}
        FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change()
"""


def today() -> datetime:
    """The midnight that has been, in UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def partition(
    dsn: str,
    table: str = "logs",
    *,
    step: str = "day",
    ahead: str = "2 days",
    windows: Iterable[datetime] = (),
) -> None:
    """Make a table that has no rows a partitioned one, with the partitions of some instants."""
    (described,) = (each for each in TABLES if each.name == table)
    indexes = ";".join(described.index_definition(index) for index in described.indexes)
    with psycopg.connect(dsn) as conn:
        conn.execute(_CONVERTED.format(table=table, indexes=indexes).encode())
        conn.execute(
            "INSERT INTO logstore.partitioning (table_name, step, ahead) VALUES (%s, %s, %s)",
            (table, step, ahead),
        )
    add_partitions(dsn, windows, table=table, step=step)


def add_partitions(
    dsn: str, windows: Iterable[datetime], *, table: str = "logs", step: str = "day"
) -> None:
    """Make the partitions that these instants lie in."""
    with psycopg.connect(dsn) as conn:
        for instant in windows:
            conn.execute(
                "SELECT logstore.make_partition(%s::regclass,"
                " logstore.partition_name(%s, %s, lower), lower, upper)"
                " FROM logstore.partition_window(%s, %s)",
                (f"logstore.{table}", table, step, step, instant),
            )


def partitions(dsn: str, table: str = "logs") -> list[str]:
    """The names of what is attached, in order."""
    with psycopg.connect(dsn) as conn:
        found = conn.execute(
            "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid"
            " WHERE inhparent = %s::regclass AND NOT inhdetachpending ORDER BY 1",
            (f"logstore.{table}",),
        )
        return [name for (name,) in found]


def retired(
    dsn: str, name: str, day: datetime, *, state: str = "dropped", rows: int | None = None
) -> None:
    """Write down that a partition of `logs`, of one day, was retired."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "INSERT INTO logstore.retirements (retirement_id, table_name, partition_name,"
            " partition_oid, lower_bound, upper_bound, state, rows)"
            " VALUES (gen_random_uuid(), 'logs', %s, 0, %s, %s, %s, %s)",
            (name, day, day + DAY, state, rows),
        )
