"""`logs` partitioned by month, for the tests of the functions that make partitions."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from auditlog.partitions.windows import window
from databases import Server
from partitioned import partition
from trail import fetch

MAY = (datetime(2031, 5, 1, tzinfo=UTC), datetime(2031, 6, 1, tzinfo=UTC))
INSERT = "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES ('t', 'x', %s)"


@contextmanager
def monthly_databases(server: Server) -> Iterator[Server]:
    """A server whose new databases have `logs` partitioned by month, without any partition."""
    with server.database() as dsn:
        partition(dsn, step="month", ahead="3 months")
        yield replace(server, template=str(conninfo_to_dict(dsn)["dbname"]))


@contextmanager
def interrupted_detach(dsn: str, leaf: str) -> Iterator[None]:
    """A DETACH CONCURRENTLY that was cancelled while it waited for a reader."""
    with (
        psycopg.connect(dsn) as reader,
        psycopg.connect(dsn, autocommit=True) as conn,
        ThreadPoolExecutor(1) as pool,
    ):
        reader.execute("SELECT FROM logstore.logs")
        detach = f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{leaf} CONCURRENTLY"
        detaching = pool.submit(conn.execute, detach)
        while fetch(dsn, "SELECT bool_or(inhdetachpending) FROM pg_inherits") != [True]:
            assert not detaching.done()
        conn.cancel()
        with pytest.raises(psycopg.errors.QueryCanceled):
            detaching.result(20)
        yield


def until_somebody_waits(dsn: str) -> None:
    query = (
        "SELECT count(*) > 0 FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        while conn.execute(query).fetchone() == (False,):
            pass


def microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def month_after(lower: datetime) -> datetime:
    return window("month", lower)[1]


def bounds(dsn: str) -> list[tuple[str, datetime, datetime]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "SELECT relname, lower, upper FROM logstore.partitions_of('logstore.logs'::regclass)"
            " JOIN pg_class ON oid = partition WHERE isfinite(lower) ORDER BY lower"
        ).fetchall()


def comment(conn: psycopg.Connection, table: str) -> str:
    row = conn.execute("SELECT obj_description(%s::regclass)", [f"logstore.{table}"]).fetchone()
    assert row is not None
    return row[0]


def methods(conn: psycopg.Connection, table: str) -> list[str]:
    """Its indexes: what follows USING in their definitions."""
    found = conn.execute(
        "SELECT split_part(pg_get_indexdef(indexrelid), ' USING ', 2) FROM pg_index"
        " WHERE indrelid = %s::regclass",
        [f"logstore.{table}"],
    )
    return [method for (method,) in found]


def dressing(conn: psycopg.Connection, leaf: str) -> list[str]:
    found = conn.execute(
        "SELECT logstore.dressing('logstore.logs', %s::regclass)", [f"logstore.{leaf}"]
    )
    return [statement for (statement,) in found]
