"""A table as it is after years: with a partition for each month, or day, that has gone by."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from auditlog.partitions.catalog import read
from auditlog.partitions.creating import create
from auditlog.partitions.enabling import enable
from auditlog.partitions.windows import name, windows
from psycopg import Connection

from auditlog.partitions.model import Leaf, Step, TableConfig
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from benchmarks.database import Server

TABLE = "logs"
MONTHS = 12


@contextmanager
def with_months(server: Server, count: int = MONTHS) -> Iterator[str]:
    """Make a database whose table has partitions for so many months, this one among them."""
    with server.database() as dsn:
        partition(dsn, "month", since=Span(months=count - 1).before(datetime.now(UTC)))
        yield dsn


def partition(dsn: str, step: Step, since: datetime, ahead: Span | None = None) -> None:
    """Make a partitioned table of the empty one, as if that had been done at an earlier time."""
    with maintenance(dsn) as conn:
        enable(conn, TABLE, step, ahead=ahead, on_step=lambda _: None)
        # The empty table that it was is now the partition of all that lies before.
        legacy = leaves(conn)[0]
        conn.execute(
            f"ALTER TABLE logstore.{TABLE} DETACH PARTITION logstore.{legacy.name};"
            f" DROP TABLE logstore.{legacy.name}".encode()
        )
        for lower, upper in windows(step, since, legacy.upper):
            create(conn, TABLE, name(TABLE, step, lower), lower, upper)


def leaves(conn: Connection[Any]) -> tuple[Leaf, ...]:
    """Return the table's partitions, in their order."""
    return read(conn, TableConfig(TABLE)).leaves
