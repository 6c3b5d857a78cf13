"""A table as it is after years: with a partition for each month, or day, that has gone by."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.conversion.scaffold import legacy
from auditlog.partitions.creating import create
from auditlog.partitions.model import Step
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name, windows
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
        report = enable(conn, TABLE, step, ahead=ahead)
        assert report.end_of_legacy, report.findings
        # The empty table that it was is now the partition of all that lies before.
        was = legacy(TABLE)
        conn.execute(
            f"ALTER TABLE logstore.{TABLE} DETACH PARTITION logstore.{was};"
            f" DROP TABLE logstore.{was}".encode()
        )
        for lower, upper in windows(step, since, report.end_of_legacy):
            create(conn, TABLE, name(TABLE, step, lower), lower, upper)


@contextmanager
def copied(server: Server, dsn: str) -> Iterator[str]:
    """Make a copy of a database that nobody is connected to, with what is in it; drop it after."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    copy = sql.Identifier(f"{name}_copy")
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        # The files themselves are copied, which begins and ends with a checkpoint.
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                copy, sql.Identifier(name)
            )
        )
        try:
            yield make_conninfo(dsn, dbname=f"{name}_copy")
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(copy))
