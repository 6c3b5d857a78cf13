"""What turning a table into a partitioned one, and back, have in common: names, locks, leftovers.

While `logstore.logs` is being turned, there are beside it

    logs_partitioned     the partitioned table before it takes the name, and after it gave it back
    logs_legacy          the partition of all rows from before
    logs_partition_bound the CHECK that spares the legacy partition a scan under lock

Each step finds by these names, and by the comment, what an earlier run that was killed has left.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from psycopg import Connection, errors, sql
from psycopg.rows import tuple_row

from auditlog.errors import PartitionError
from auditlog.partitions.statements import statement
from auditlog.sink.database.ledger import LOCK_LEDGER

Stage: TypeAlias = Literal["examine", "prepare", "bound", "validate", "swap", "move", "clear"]
"""`examine` the table, `prepare` the partitioned one, `bound` the rows and `validate` that, `swap`
the names; or, on the way back, `swap`, `move` the rows and `clear` what is empty."""
OnStage: TypeAlias = Callable[[Stage, str], None]
"""Called before each with what it is about, for whoever watches."""

SCAFFOLD_MARK = "auditlog scaffold"
"""The comment of `logs_partitioned` begins with it."""

LOCK_TIMEOUT_MS = 1_500
"""Longer than deadlock_timeout, 1 s, or autovacuum is never cancelled (2026-11-28)."""
_ATTEMPTS = 20
_PAUSE_S = 2.0
_MAX_NAME = 63
_DIGEST = 8


def scaffold(table: str) -> str:
    """Return the name of the partitioned table while it is not in use."""
    return f"{table}_partitioned"


def legacy(table: str) -> str:
    """Return the name of the partition of the rows from before."""
    return f"{table}_legacy"


def bound(table: str) -> str:
    """Return the name of the CHECK that every row lies below the end of the legacy partition."""
    return f"{table}_partition_bound"


def index_name(name: str, table: str, other: str) -> str:
    """Return what an index of a table is called where it is another table's."""
    prefix = f"{table}_"
    moved = f"{other}_{name.removeprefix(prefix)}"
    if len(moved.encode()) <= _MAX_NAME:
        return moved
    digest = sha256(moved.encode()).hexdigest()[:_DIGEST]
    head = moved.encode()[: _MAX_NAME - _DIGEST - 1].decode(errors="ignore")
    return f"{head}_{digest}"


def qualified(name: str) -> sql.Identifier:
    """Return the quoted name of a table of the schema."""
    return sql.Identifier("logstore", name)


def execute(conn: Connection[Any], *statements: sql.Composable | str) -> None:
    """Execute statements without parameters, in one round trip."""
    parts = [part if isinstance(part, sql.Composable) else _vouched(part) for part in statements]
    if parts:
        conn.execute(sql.SQL(";\n").join(parts))


def rows(conn: Connection[Any], query: str, **parameters: object) -> list[tuple[Any, ...]]:
    """Return the rows of the statement in a file."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement(query), parameters).fetchall()


def asked(conn: Connection[Any], query: str, *parameters: object) -> tuple[Any, ...]:
    """Return the only row of a query, or an empty one."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchone() or ()


def oid_of(conn: Connection[Any], name: str) -> int | None:
    """Return the identity of a table of the schema."""
    found = asked(
        conn,
        "SELECT oid FROM pg_catalog.pg_class WHERE relname = %s"
        " AND relnamespace = 'logstore'::regnamespace AND relkind IN ('r', 'p')",
        name,
    )
    return found[0] if found else None


def attempts(what: str) -> Iterator[Callable[[], Any]]:
    """Yield contexts, each an attempt at what needs a lock, until one ends without a time-out.

    Raises:
        PartitionError: the lock was not to be had.
    """
    refused: list[Exception] = []

    @contextmanager
    def attempt() -> Iterator[None]:
        try:
            yield
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            refused.append(error)

    for number in range(1, _ATTEMPTS + 1):
        yield attempt
        if len(refused) < number:
            return
        time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311  # no secret, only out of step
    raise PartitionError(
        f"{what}: the lock was not to be had in {_ATTEMPTS} attempts, another transaction has the"
        " table for long: see pg_stat_activity, end it, and run this again"
    ) from refused[-1]


@contextmanager
def short_transaction(conn: Connection[Any]) -> Iterator[None]:
    """Be in a transaction that waits for no lock longer than it may hold up others."""
    with conn.transaction():
        conn.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}".encode())
        # The order of writers and of migrations.
        conn.execute(LOCK_LEDGER)
        yield


def traits(
    conn: Connection[Any], source: int, target: str, kinds: Iterable[str]
) -> list[sql.Composable]:
    """Return the statements that give a table what another one has of some kinds."""
    wanted = set(kinds)
    found = rows(conn, "traits", source=source, target=f"logstore.{target}")
    return [_vouched(text) for kind, text in found if kind in wanted]


def _vouched(text: str) -> sql.Composable:
    """Take a statement that the catalog's own functions have quoted."""
    return sql.SQL(text)  # type: ignore[arg-type]
