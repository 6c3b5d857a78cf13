"""Locks that are waited for a few times and never for long, so that nobody queues behind them long.

Whoever waits for an ACCESS EXCLUSIVE lock holds up every session that comes after. So a wait has an
end, between two waits there is a pause in which the queue drains, and behind a transaction that has
been open for long nothing queues at all.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from psycopg import Connection, errors, sql
from psycopg.rows import class_row

from auditlog.partitions.model import Blocker
from auditlog.partitions.session import scalar
from auditlog.partitions.statements import statement

SCHEMA = "logstore"
TRIES = 5
# For as long as that, writers that queued behind a wait get through (a COPY of 1000 rows: 10 ms).
MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 0.8
HOPELESS_AGE = timedelta(seconds=10)
"""A transaction that is older will not end within the next seconds either: a dump, an analyst."""
MAX_NAMED = 3

NOT_HAD = (errors.LockNotAvailable, errors.DeadlockDetected, errors.QueryCanceled)
"""What a wait for a lock ends with."""

T = TypeVar("T")


class WaitingError(Exception):
    """A lock is not to be had now; the text says who has it."""


def persistently(
    conn: Connection[Any], deed: Callable[[], T], *, timeout_s: float, tries: int | None = None
) -> T:
    """Do something in a transaction; again after a pause where it did not get a lock in time.

    Args:
        conn: Autocommit, in no transaction.
        deed: Runs once in each of the transactions.
        timeout_s: For each lock.
        tries: How many transactions at most; None: `TRIES`.

    Raises:
        psycopg.Error: that of the last try, or one that has nothing to do with locks.
    """
    for _ in range((tries or TRIES) - 1):
        try:
            return _once(conn, deed, timeout_s)
        except NOT_HAD:
            if conn.broken:
                raise
            time.sleep(random.uniform(MIN_PAUSE_S, MAX_PAUSE_S))  # noqa: S311  # no secret
    return _once(conn, deed, timeout_s)


def lock_exclusively(conn: Connection[Any], names: Sequence[str], *, timeout_s: float) -> None:
    """Lock tables in ACCESS EXCLUSIVE mode, in that order and within one timeout for all of them.

    Raises:
        psycopg.errors.QueryCanceled: in vain.
    """
    tables = sql.SQL(", ").join(sql.SQL("ONLY {}").format(table(name)) for name in names)
    with bounded(conn, timeout_s):
        conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(tables))


def limit(conn: Connection[Any], name: str, seconds: float, *, is_local: bool = True) -> None:
    """Set `lock_timeout` or `statement_timeout`, for the transaction or for the session; 0: off."""
    scalar(conn, "SELECT set_config(%s, %s, %s)", name, f"{seconds * 1000:.0f}ms", is_local)


def preflight(conn: Connection[Any], names: Sequence[str]) -> None:
    """See that no old transaction has a lock on one of the tables.

    Raises:
        WaitingError: one has, and to queue behind it would be in vain.
    """
    if old := [each for each in blockers(conn, names) if each.age > HOPELESS_AGE]:
        raise WaitingError(named(old))


def blockers(
    conn: Connection[Any], names: Sequence[str], *, snapshots: bool = False
) -> list[Blocker]:
    """Return the transactions that have a lock on one of the tables, the oldest first.

    Not those of autovacuum, which gives way, unless it prevents a wraparound.

    Args:
        conn: Of a member of pg_read_all_stats, or other people's have the age 0.
        names: Tables of schema `logstore`.
        snapshots: Also those that see the database as it was, whatever they have locked.
    """
    parameters = {"names": list(names), "snapshots": snapshots}
    with conn.cursor(row_factory=class_row(Blocker)) as cursor:
        return cursor.execute(statement("blockers"), parameters).fetchall()


def named(found: Sequence[Blocker]) -> str:
    """Say who holds something up: by process, application and age, with the remedy."""
    if not found:
        return "whoever held it up has gone: the next run tries again"
    several = "; ".join(map(_named, found[:MAX_NAMED]))
    more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    how = "pg_terminate_backend" if any(each.pid for each in found) else "ROLLBACK PREPARED"
    return f"{several}{more}: let it end, or end it with {how}"


def default_of(conn: Connection[Any], parent: str) -> list[str]:
    """Return the name of a table's DEFAULT partition in schema `logstore`, if it has one."""
    name = scalar(
        conn,
        "SELECT (SELECT c.relname::text FROM pg_partitioned_table AS p"
        " JOIN pg_class AS c ON c.oid = p.partdefid WHERE p.partrelid = to_regclass(%s))",
        f"{SCHEMA}.{parent}",
    )
    return [name] if name else []


def spare_default(conn: Connection[Any], parent: str, *, timeout_s: float) -> None:
    """Bound each statement, where there is a DEFAULT: what is attached locks and scans it.

    In a transaction, and for the rest of it.

    Raises:
        WaitingError: an old transaction has a lock on the DEFAULT.
    """
    if others := default_of(conn, parent):
        preflight(conn, others)
        limit(conn, "statement_timeout", timeout_s)


def table(name: str) -> sql.Identifier:
    """Return a table of schema `logstore`, quoted."""
    return sql.Identifier(SCHEMA, name)


@contextmanager
def bounded(conn: Connection[Any], seconds: float) -> Iterator[None]:
    """Give each statement so long, and as long as it takes afterwards; within a transaction."""
    limit(conn, "statement_timeout", seconds)
    yield
    limit(conn, "statement_timeout", 0)


def _once(conn: Connection[Any], deed: Callable[[], T], timeout_s: float) -> T:
    with conn.transaction():
        limit(conn, "lock_timeout", timeout_s)
        return deed()


def _named(blocker: Blocker) -> str:
    name = blocker.application or blocker.user
    # A prepared transaction has no process.
    who = f"process {blocker.pid} ({name})" if blocker.pid else name
    age = f" for {blocker.age.total_seconds():.0f} s" if blocker.age else ""
    return f"{who} has {blocker.relation}{age}"
