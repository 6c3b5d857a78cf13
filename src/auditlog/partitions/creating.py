"""Make a partition, and give one what it lacks. The algorithm is migration 0008's, in SQL.

Blocking. Nobody who reads or writes the table waits for either, but what is given to a partition in
use may lock that partition for some milliseconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from psycopg import Connection, errors, sql

from auditlog.errors import PartitionError
from auditlog.partitions.locking import limit
from auditlog.partitions.locking import table as qualified
from auditlog.partitions.lookups import rows
from auditlog.partitions.naming import index_name, oid_of
from auditlog.partitions.reading.drift import INDEX, PRIMARY_KEY, drift
from auditlog.partitions.session import scalar
from auditlog.postgres.causes import explain

PATIENCE_S = 60.0
"""For each of the waits of CREATE INDEX CONCURRENTLY, behind which nobody queues."""

_REFUSALS = (
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.InvalidObjectDefinition,
    errors.CheckViolation,
    errors.UniqueViolation,
    errors.UndefinedFunction,
)
_FREE_THE_NAME = "rename what has the name, or move it to another schema"
_REMEDIES = {
    "42P07": _FREE_THE_NAME,
    "42710": _FREE_THE_NAME,
    "42P17": "`auditlog partitions status` shows all partitions; what was interrupted, the next"
    " `auditlog partitions maintain` finishes",
    "23514": "the DEFAULT partition has rows of that time: `auditlog partitions maintain` makes a"
    " partition of it first",
    "23505": "the partition has rows twice, or another run had the same in hand: look at the rows"
    " that are named if it comes again",
    "42883": "the functions are missing: run `auditlog migrate`",
}
_MAKE = (
    "SELECT logstore.make_partition("
    "format('logstore.%%I', %s::text)::regclass, %s::text, %s::timestamptz, %s::timestamptz)"
)


def create(
    conn: Connection[Any], table: str, name: str, lower: datetime | None, upper: datetime
) -> str:
    """Make and attach a partition of a table of the schema.

    Args:
        conn: Of the table's owner; its lock_timeout bounds the wait for another maker.
        table: A partitioned table.
        name: What the partition is to be called.
        lower: Its first instant; None: -infinity.
        upper: The first instant after it.

    Returns:
        `made`, or `already` where the table has a partition with these bounds.

    Raises:
        PartitionError: something else has the name, a partition overlaps, or the DEFAULT partition
            has rows of that time; says what to do.
        psycopg.Error: the lock was not to be had, or the connection is lost.
    """
    with _explained():
        made: str = scalar(conn, _MAKE, table, name, lower or "-infinity", upper)
    return made


def repair(conn: Connection[Any], table: str, name: str) -> None:
    """Give a partition what it lacks of its table; nothing where it lacks nothing any more.

    Indexes are built while the partition is read and written, which may take long.

    Args:
        conn: Autocommit, in no transaction, of the table's owner.
        table: A partitioned table.
        name: The partition.

    Raises:
        PartitionError: an index cannot be built; says why.
        psycopg.Error: a lock was not to be had, or the connection is lost.
    """
    parent, partition = oid_of(conn, table), oid_of(conn, name)
    lacks = drift(conn, table).get(partition or 0)
    if lacks is None:
        return
    dress = "SELECT logstore.dress_partition(%s::oid::regclass, %s::oid::regclass)"
    with _explained():
        scalar(conn, dress, parent, partition)
        if PRIMARY_KEY in lacks:
            _add_key(conn, name)
        for index in (what.removeprefix(INDEX) for what in lacks if what.startswith(INDEX)):
            _add_index(conn, table, name, index)


def _add_key(conn: Connection[Any], name: str) -> None:
    key = sql.Identifier(f"{name}_pkey")
    _build(conn, name, f"{name}_pkey", sql.SQL("(instance_id, log_id)"), is_unique=True)
    conn.execute(
        sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY USING INDEX {}").format(
            qualified(name), key, key
        )
    )


def _add_index(conn: Connection[Any], table: str, name: str, index: str) -> None:
    """Attach an index of the partition to one of the table; build it first if there is none."""
    parent, partition = oid_of(conn, table), oid_of(conn, name)
    for found in rows(conn, "missing_index", table=parent, partition=partition, index=index):
        own = found["present"] or index_name(index, table, name)
        if not found["present"]:
            # Printed by the server itself, from its catalog.
            method = sql.SQL(found["method"])
            _build(conn, name, own, method, is_unique=found["is_unique"])
        conn.execute(
            sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(qualified(index), qualified(own))
        )


def _build(
    conn: Connection[Any], name: str, index: str, method: sql.SQL, *, is_unique: bool
) -> None:
    """Build an index on a partition in use; what an interrupted build has left goes first."""
    unique = sql.SQL("UNIQUE " if is_unique else "")
    with _patient(conn):
        if scalar(conn, _IS_UNFINISHED, name, index):
            conn.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(qualified(index)))
        conn.execute(
            sql.SQL("CREATE {}INDEX CONCURRENTLY {} ON {} {}").format(
                unique, sql.Identifier(index), qualified(name), method
            )
        )


_IS_UNFINISHED = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index
        WHERE indrelid = to_regclass(format('logstore.%%I', %s::text))
            AND indexrelid = to_regclass(format('logstore.%%I', %s::text))
            AND NOT indisvalid
    )
"""


@contextmanager
def _patient(conn: Connection[Any]) -> Iterator[None]:
    """Wait for as long as CREATE INDEX CONCURRENTLY may have to."""
    before = scalar(conn, "SELECT current_setting('lock_timeout')")
    limit(conn, "lock_timeout", PATIENCE_S, is_local=False)
    try:
        yield
    finally:
        if not conn.broken:
            scalar(conn, "SELECT set_config('lock_timeout', %s, false)", before)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except _REFUSALS as error:
        raise PartitionError(str(explain(error, _REMEDIES))) from error
