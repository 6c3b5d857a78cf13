"""A DEFAULT partition that holds rows becomes a normal one, and none of them is moved.

    bound → validate → swap

Its rows are proved to lie in a range that is free, while they are read and written; one transaction
of some milliseconds then detaches it and attaches it again for that range, under its proper name.
From the first of these until the last, rows from outside the range are refused that would have gone
into the DEFAULT: the range reaches beyond tomorrow, and whatever goes wrong opens it again.
"""

from typing import Any

from psycopg import Connection, sql

from auditlog.partitions import evidence
from auditlog.partitions.conversion.bounding import (
    LOCK_TIMEOUT_S,
    Range,
    bind,
    dropped,
    prove,
    unbind,
    undone_on_error,
)
from auditlog.partitions.conversion.scaffold import dressed, execute
from auditlog.partitions.identity import RefusedError
from auditlog.partitions.locking import default_of, persistently
from auditlog.partitions.locking import table as qualified
from auditlog.partitions.model import Operation
from auditlog.partitions.naming import oid_of
from auditlog.partitions.session import scalar
from auditlog.partitions.windows import name as name_of
from auditlog.sink.database.ledger import LOCK_LEDGER


def heal(conn: Connection[Any], operation: Operation) -> None:
    """Make a normal partition of a DEFAULT.

    Args:
        conn: In the state of `session.maintenance`, the table's owner or a member of it.
        operation: Of kind `heal`: the DEFAULT, and the range that is to be its own.

    Raises:
        RefusedError: it is not the DEFAULT that was planned for.
        PartitionError: it has rows from outside the range, which have to be moved first.
        psycopg.Error: the lock was not to be had, or the range is not free.
    """
    if operation.upper is None:
        raise RefusedError(f"{operation.partition} has no range to become a partition of")
    _require_default(conn, operation)
    allowed = Range(operation.lower, operation.upper)
    with undone_on_error(operation.partition, lambda: unbind(conn, operation.partition)):
        bind(conn, operation.partition, allowed)
        prove(conn, operation.partition)
        persistently(conn, lambda: _swap(conn, operation, allowed), timeout_s=LOCK_TIMEOUT_S)


def _swap(conn: Connection[Any], operation: Operation, allowed: Range) -> None:
    table, default = operation.table, operation.partition
    proper = _proper_name(conn, operation)
    # The ledger first, as writers and migrations do.
    conn.execute(LOCK_LEDGER)
    execute(conn, _LOCK.format(qualified(table)))
    _require_default(conn, operation)
    execute(
        conn,
        _DETACH.format(qualified(table), qualified(default)),
        _ATTACH.format(
            qualified(table), qualified(default), allowed.begin, allowed.upper.isoformat()
        ),
        dropped(default),
        dressed(table, default),
    )
    if proper != default:
        execute(conn, _RENAME.format(qualified(default), sql.Identifier(proper)))
    evidence.record(
        conn,
        "audit.partition.healed",
        table,
        f"DEFAULT partition logstore.{default} of {table} is a normal one, logstore.{proper}",
        partition=proper,
        lower=allowed.begin,
        upper=allowed.upper.isoformat(),
    )


def _require_default(conn: Connection[Any], operation: Operation) -> None:
    is_it = default_of(conn, operation.table) == [operation.partition]
    if not is_it or oid_of(conn, operation.partition) != operation.oid:
        raise RefusedError(f"{operation.partition} is not the DEFAULT that was planned for")


def _proper_name(conn: Connection[Any], operation: Operation) -> str:
    """Return what a partition of that range is called, or its own name if that is taken."""
    step = scalar(
        conn,
        "SELECT (SELECT step FROM logstore.partitioning WHERE table_name = %s)",
        operation.table,
    )
    name = name_of(operation.table, step or "day", operation.lower)
    return operation.partition if oid_of(conn, name) else name


_LOCK = sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE")
_DETACH = sql.SQL("ALTER TABLE {} DETACH PARTITION {}")
_ATTACH = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})")
_RENAME = sql.SQL("ALTER TABLE {} RENAME TO {}")
