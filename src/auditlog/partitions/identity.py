"""Whether a partition is still what was planned for: the same table, where it was, with its bounds.

Asked again in the transaction that does the deed, because a plan is as old as its snapshot.
"""

from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from auditlog.partitions.locking import SCHEMA
from auditlog.partitions.model import Operation
from auditlog.partitions.statements import statement
from auditlog.partitions.windows import MARK


class RefusedError(Exception):
    """What was planned is not to be done any more; the text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the catalog has under the name of an operation's partition."""

    oid: int
    is_attached: bool
    """To the operation's table."""
    is_detaching: bool
    is_partition: bool
    """Of whatever table."""
    is_ours: bool
    """Does it bear our mark?"""
    has_bounds: bool
    """Exactly those of the operation; False where it has none."""
    is_closed: bool
    """Is the operation's range over, by the server's clock?"""


def identify(conn: Connection[Any], operation: Operation) -> Identity | None:
    """Return what there is under the name of the operation's partition; None: no table."""
    with conn.cursor(row_factory=class_row(Identity)) as cursor:
        return cursor.execute(
            statement("identity"), {"mark": f"{MARK}{operation.table}", **names_of(operation)}
        ).fetchone()


def names_of(operation: Operation) -> dict[str, Any]:
    """Return an operation's names and bounds as parameters of a statement."""
    return {
        "table": operation.table,
        "parent": f"{SCHEMA}.{operation.table}",
        "partition": operation.partition,
        "oid": operation.oid,
        "lower": operation.lower or "-infinity",
        "upper": operation.upper,
        "tenant": operation.tenant,
    }


def require_same(conn: Connection[Any], operation: Operation) -> Identity:
    """Return what there is, which is the partition that was planned for and has our mark.

    Raises:
        RefusedError: it is not.
    """
    found = identify(conn, operation)
    if found is None:
        raise RefusedError(f"there is no table {operation.partition} any more")
    if found.oid != operation.oid:
        raise RefusedError(f"{operation.partition} is another table than the one that was seen")
    if not found.is_ours:
        raise RefusedError(f"{operation.partition} has lost its mark, so it is somebody else's")
    return found


def require_attached(conn: Connection[Any], operation: Operation) -> None:
    """See that the partition is the one that was planned for, is attached and lies in the past.

    Raises:
        RefusedError: it is not.
    """
    found = require_same(conn, operation)
    if not found.is_attached or found.is_detaching:
        raise RefusedError(f"{operation.partition} is not attached to {operation.table} any more")
    if not found.has_bounds:
        raise RefusedError(f"{operation.partition} has other bounds than it had")
    if not found.is_closed:
        raise RefusedError(f"{operation.partition} still takes rows, by the server's clock")


def require_detached(conn: Connection[Any], operation: Operation) -> None:
    """See that the partition is the one that was planned for and is attached to nothing.

    Raises:
        RefusedError: it is not.
    """
    if require_same(conn, operation).is_partition:
        raise RefusedError(f"{operation.partition} is attached to a table")
