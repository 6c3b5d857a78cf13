"""What the tests of the sink look at in a database: its rows, its ledger, its connections."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from auditlog import AuditLog, HealthStatus, LogRecord, Settings, Stats
from auditlog.tables import TABLES

QUICK: dict[str, Any] = {
    "batch_age_s": 0.01,
    "retry_min_s": 0.001,
    "retry_max_s": 0.02,
    "drain_timeout_s": 20.0,
    "life_rows": False,
}
"""Settings for tests that are not about time: nothing waits long, and nothing is given up.

Nor does the log write rows about itself, which would be counted with those of the test.
"""


def quick(**changes: Any) -> Settings:
    return Settings(**(QUICK | changes))


def rows(dsn: str, table: str = "logs") -> list[dict[str, Any]]:
    """All rows of a table of the trail, in the order of their identity."""
    return _rows(dsn, table, "instance_id, log_id")


def batches(dsn: str) -> list[dict[str, Any]]:
    """All rows of the ledger, in the order in which they were written."""
    return _rows(dsn, "batches", "sequence")


def users(dsn: str) -> list[str]:
    """The users of all rows but the log's own, in order; tests put their number there."""
    query = "SELECT user_id FROM logstore.logs WHERE starts_with(event_type, 'audit.') IS NOT TRUE"
    return fetch(dsn, f"{query} ORDER BY user_id")


def gaps(dsn: str) -> dict[str, int]:
    """How many records the rows about losses tell of, by reason."""
    query = (
        "SELECT jsonb_build_array(metadata ->> 'audit.gap.reason', metadata -> 'audit.gap.count')"
        " FROM logstore.logs WHERE event_type = 'audit.gap'"
    )
    told: dict[str, int] = {}
    for reason, count in fetch(dsn, query):
        told[reason] = told.get(reason, 0) + count
    return told


def fetch(dsn: str, query: str, *parameters: Any) -> list[Any]:
    """The first column of a query's rows."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return [row[0] for row in conn.execute(query.encode(), parameters)]


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


def numbered(numbers: Iterable[int]) -> list[LogRecord]:
    """Records that can be told apart, and told to be in order."""
    return [LogRecord(user_id=f"{number:06}", request_url="/") for number in numbers]


def stored_once(dsn: str, count: int) -> bool:
    """Whether `numbered(range(count))` is there, each once, and the ledger says the same."""
    return users(dsn) == [f"{number:06}" for number in range(count)] and ledger_agrees(dsn)


def ledger_agrees(dsn: str) -> bool:
    """Whether the ledger counts, table by table, the rows that are there."""
    with psycopg.connect(dsn) as conn:
        counted = conn.execute(
            "SELECT coalesce(sum(logs), 0), coalesce(sum(execution_logs), 0),"
            " coalesce(sum(quota_logs), 0) FROM logstore.batches"
        ).fetchone()
        present = tuple(
            conn.execute(
                sql.SQL("SELECT count(*) FROM logstore.{}").format(sql.Identifier(table.name))
            ).fetchone()[0]  # type: ignore[index]  # count(*) always has a row
            for table in TABLES
        )
    return counted == present


def adds_up(stats: Stats) -> bool:
    """The invariant of `Stats`."""
    accounted = stats.written + stats.pending + stats.spooled + stats.dropped
    return stats.submitted == accounted + stats.dead_lettered


def terminate_writers(dsn: str) -> int:
    """End the connections of every writer to this database; return how many there were."""
    return len(
        fetch(
            dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'auditlog' AND datname = current_database()",
        )
    )


def _rows(dsn: str, table: str, order: LiteralString) -> list[dict[str, Any]]:
    query = sql.SQL("SELECT * FROM logstore.{} ORDER BY {}").format(
        sql.Identifier(table), sql.SQL(order)
    )
    with psycopg.connect(dsn) as conn, conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def waits_for_a_lock(dsn: str) -> bool:
    """Whether a writer to this database is held up by another transaction."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'auditlog' AND wait_event_type = 'Lock'"
    )
    return fetch(dsn, query) == [1]


def join_writers() -> None:
    """Wait for the threads that have written all they had: they end by themselves."""
    for thread in threading.enumerate():
        if thread.name == "auditlog":
            thread.join(20)
            assert not thread.is_alive()


async def failing(audit: AuditLog, status: HealthStatus) -> None:
    """Wait until a log knows that something is wrong."""
    await until(lambda: audit.health().status is status)


async def change(dsn: str, statement: str) -> None:
    """Execute beside the loop: a writer in mid-transaction has locks, and must be able to go on."""
    await asyncio.to_thread(execute, dsn, statement)


async def until(condition: Callable[[], bool], *, within_s: float = 20) -> None:
    """Wait for something that no signal tells of; looks every few milliseconds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
