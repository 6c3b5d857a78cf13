"""The CHECK that lets a table be attached without being read: added, proved, found again, removed.

It is added without a look at the rows, in an instant, and proved while they are read and written.
From then on rows from outside its range are refused, so it is there for as short as possible: the
transaction that attaches the table drops it, and so does whatever goes wrong before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection, Error, errors, sql

from auditlog.errors import PartitionError
from auditlog.partitions.conversion.scaffold import asked, execute
from auditlog.partitions.locking import persistently
from auditlog.partitions.locking import table as qualified

LOCK_TIMEOUT_S = 1.5
"""Longer than deadlock_timeout, 1 s, or autovacuum is never cancelled (2026-11-28)."""
_SUFFIX = "_partition_bound"


class Range(NamedTuple):
    """Instants that rows may have."""

    lower: datetime | None
    """None: -infinity."""
    upper: datetime

    @property
    def begin(self) -> str:
        """The lower end as PostgreSQL reads it."""
        return self.lower.isoformat() if self.lower else "-infinity"


def bound_name(relation: str) -> str:
    """Return what the CHECK of a table is called."""
    return f"{relation}{_SUFFIX}"


def bound_of(conn: Connection[Any], relation: str) -> Range | None:
    """Return the range that the CHECK of a table of the schema allows, if it has one."""
    found = asked(conn, _BOUND, f"logstore.{relation}", bound_name(relation))
    return Range(*found) if found else None


def bind(conn: Connection[Any], relation: str, allowed: Range) -> None:
    """Add the CHECK, in place of one that allows another range.

    Raises:
        psycopg.Error: the lock was not to be had, or this role may not.
    """
    if bound_of(conn, relation) == allowed:
        return
    add = _ADD.format(
        qualified(relation),
        sql.Identifier(bound_name(relation)),
        allowed.begin,
        allowed.upper.isoformat(),
    )
    persistently(conn, lambda: execute(conn, dropped(relation), add), timeout_s=LOCK_TIMEOUT_S)


def prove(conn: Connection[Any], relation: str) -> None:
    """Have all rows looked at, while they are read and written.

    Raises:
        PartitionError: there are others.
        psycopg.Error: the lock was not to be had.
    """
    validate = _VALIDATE.format(qualified(relation), sql.Identifier(bound_name(relation)))
    try:
        persistently(conn, lambda: execute(conn, validate), timeout_s=LOCK_TIMEOUT_S)
    except errors.CheckViolation as error:
        raise PartitionError(
            f"logstore.{relation} has rows without a log_date, or of another time than was found"
            " before: run this again"
        ) from error


def unbind(conn: Connection[Any], relation: str) -> None:
    """Remove the CHECK.

    Raises:
        psycopg.Error: the lock was not to be had, or this role may not.
    """
    if bound_of(conn, relation) is not None:
        persistently(conn, lambda: execute(conn, dropped(relation)), timeout_s=LOCK_TIMEOUT_S)


@contextmanager
def undone_on_error(relation: str, undo: Callable[[], None]) -> Iterator[None]:
    """Undo what was begun with a table if what is done in the context fails.

    Where that fails too, the error gets a note of what has to be done.
    """
    try:
        yield
    except BaseException as error:
        try:
            undo()
        except (Error, PartitionError) as obstacle:
            error.add_note(
                f"and constraint {bound_name(relation)} of logstore.{relation} may still be there"
                f" ({obstacle}): run this again, or drop it, or rows will be refused"
            )
        raise


def dropped(relation: str, name: str | None = None) -> sql.Composable:
    """Return the statement that drops the CHECK, of a table that has another name by then."""
    return _DROP.format(qualified(name or relation), sql.Identifier(bound_name(relation)))


_BOUND = r"""
    SELECT nullif(substring(definition FROM 'log_date >= ''([^'']+)'''), '-infinity')::timestamptz,
           substring(definition FROM 'log_date < ''([^'']+)''')::timestamptz
    FROM pg_catalog.pg_constraint, pg_catalog.pg_get_constraintdef(oid) AS definition
    WHERE conrelid = pg_catalog.to_regclass(%s) AND conname = %s AND contype = 'c'
"""
# All of it, or ATTACH does not see that it implies the partition's bounds (2026-11-28).
_ADD = sql.SQL(
    "ALTER TABLE {} ADD CONSTRAINT {} CHECK (log_date IS NOT NULL AND log_date >= {}"
    " AND log_date < {}) NOT VALID"
)
_VALIDATE = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")
_DROP = sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}")
