"""A table that is cut into partitions of the past, as it is after years, for what retires them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from auditlog.partitions.model import Operation, OperationKind, TableConfig
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name, window
from databases import Server

NOW = datetime.now(UTC)
OLDER, OLDEST = 5, 6
MONTHS = (0, OLDER, OLDEST)
QUICK = TableConfig(
    "logs", retain=Span(months=3), drop_without_archive=True, max_retire=12, lock_timeout_s=0.3
)
"""For tests that lose locks: a whole timeout of everyday's is a second and a half."""


def month(ago: int) -> datetime:
    """The first of the month that was so many months ago, in UTC; negative: that will be."""
    first = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Span(months=ago).before(first) if ago > 0 else Span(months=-ago).after(first)


def partition(ago: int) -> str:
    """Name of the partition of that month."""
    return name("logs", "month", month(ago))


@contextmanager
def cut_server(server: Server, rows: tuple[int, int] = (100, 50)) -> Iterator[Server]:
    """The server, whose new databases now have a table with partitions, and rows in the oldest.

    They are clones of one that is cut once, which takes a third of the time.
    """
    with server.database() as dsn:
        cut(dsn, MONTHS)
        fill(dsn, OLDEST, rows[0])
        fill(dsn, OLDER, rows[1])
        yield replace(server, template=str(conninfo_to_dict(dsn)["dbname"]))


def cut(dsn: str, months: Iterable[int], *, default: bool = False) -> None:
    """Make `logstore.logs` a table with partitions for those months, and no rows."""
    with maintenance(dsn) as conn:
        _replace_table(conn)
        conn.execute(
            "INSERT INTO logstore.partitioning (table_name, step) VALUES ('logs', 'month')"
        )
        for ago in months:
            conn.execute(
                "SELECT logstore.make_partition('logstore.logs', %s, %s, %s)",
                [partition(ago), *window("month", month(ago))],
            )
        if default:
            conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")


def fill(dsn: str, ago: int, rows: int, *, tenant: str = "tenant", prefix: str = "") -> None:
    """Add rows to the partition of a month, spread over its first days."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO logstore.logs (instance_id, log_id, log_date)"
            " SELECT %(tenant)s, %(prefix)s || lpad(n::text, 9, '0'),"
            " %(start)s + n * interval '1 second' FROM generate_series(1, %(rows)s) AS n",
            {
                "tenant": tenant,
                "prefix": prefix or f"{partition(ago)}-",
                "start": month(ago),
                "rows": rows,
            },
        )


def operation(
    conn: psycopg.Connection[Any], kind: OperationKind, ago: int, **more: Any
) -> Operation:
    """What a plan would have about the partition of that month."""
    lower, upper = window("month", month(ago))
    oid = conn.execute(
        "SELECT oid::bigint FROM pg_class WHERE relnamespace = 'logstore'::regnamespace"
        " AND relname = %s",
        [partition(ago)],
    ).fetchone()
    return Operation(
        kind,
        "logs",
        partition(ago),
        "its time is over",
        lower,
        upper,
        oid[0] if oid else None,
        **more,
    )


def attached(conn: psycopg.Connection[Any]) -> list[str]:
    """Names of the partitions, without those that are being detached."""
    rows = conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'logstore.logs'::regclass AND NOT inhdetachpending ORDER BY 1"
    )
    return [text.rpartition(".")[2] for (text,) in rows]


def tables(conn: psycopg.Connection[Any]) -> list[str]:
    """Names of all tables that are or were a partition."""
    rows = conn.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'logstore'::regnamespace"
        " AND relkind = 'r' AND relname LIKE 'logs\\_%' ORDER BY 1"
    )
    return [text for (text,) in rows]


def states(conn: psycopg.Connection[Any]) -> list[tuple[str, str, int | None, bool]]:
    """Partition, state, rows and whether it is over, of every retirement in order."""
    return conn.execute(
        "SELECT partition_name, state, rows, ended_at IS NOT NULL FROM logstore.retirements"
        " ORDER BY partition_name, begun_at"
    ).fetchall()


def told(conn: psycopg.Connection[Any], event_type: str) -> list[dict[str, Any]]:
    """Metadata of the rows of that type, in the order in which they were recorded."""
    rows = conn.execute(
        "SELECT metadata FROM logstore.logs WHERE event_type = %s ORDER BY log_id", [event_type]
    )
    return [metadata for (metadata,) in rows]


def _replace_table(conn: psycopg.Connection[Any]) -> None:
    """Put a partitioned table with the same columns and indexes in the place of `logstore.logs`."""
    indexes = conn.execute(
        "SELECT replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') FROM pg_index"
        " WHERE indrelid = 'logstore.logs'::regclass AND NOT indisprimary"
    ).fetchall()
    conn.execute(
        "CREATE TABLE logstore.fresh (LIKE logstore.logs INCLUDING ALL EXCLUDING INDEXES)"
        " PARTITION BY RANGE (log_date);"
        "DROP TABLE logstore.logs;"
        "ALTER TABLE logstore.fresh RENAME TO logs;"
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON logstore.logs"
        " FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change()"
    )
    for (definition,) in indexes:
        conn.execute(sql.SQL(definition))
