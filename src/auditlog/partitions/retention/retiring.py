"""A partition that was detached: into the archive, out of the database, or back into its table."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from psycopg import Connection, sql

from auditlog.partitions import evidence, locking
from auditlog.partitions.archive import Archived, fingerprint, verify
from auditlog.partitions.archive.raw import Format
from auditlog.partitions.identity import (
    RefusedError,
    identify,
    names_of,
    require_detached,
    require_same,
)
from auditlog.partitions.model import Operation, Outcome, TableConfig
from auditlog.partitions.retention import retirements
from auditlog.partitions.retention.detaching import count, described, settle
from auditlog.partitions.session import scalar

OnProgress = Callable[[int, int | None], None]
"""Called with the rows that were archived, and with how many there are where that is known."""

_CHECK = "partition_bounds"


class Archiver(Protocol):
    """Brings a partition into an archive, and returns when it was read back and agrees."""

    def __call__(
        self,
        conn: Connection[Any],
        leaf_name: str,
        *,
        table: str,
        lower: datetime | None,
        upper: datetime,
        to: str,
        fmt: Format,
        on_progress: OnProgress,
    ) -> Archived:
        """Do so; safe to repeat."""


def archive(
    conn: Connection[Any],
    operation: Operation,
    config: TableConfig,
    archiver: Archiver,
    on_progress: OnProgress,
) -> Outcome:
    """Bring a detached partition into the archive, and write down where that is.

    Raises:
        RefusedError: it is attached, another one, or nobody began to retire it.
        PartitionError: it cannot be archived; nothing is changed.
    """
    if config.archive is None or operation.upper is None:
        raise RefusedError("no archive is set: name one in the settings of the table")
    settle(conn, operation)
    made = archiver(
        conn,
        operation.partition,
        table=operation.table,
        lower=operation.lower,
        upper=operation.upper,
        to=config.archive,
        fmt=config.archive_format,
        on_progress=on_progress,
    )
    with conn.transaction():
        require_detached(conn, operation)
        entry = retirements.required(conn, operation, "detached", "archived")
        retirements.move(
            conn,
            entry.retirement_id,
            "archived",
            rows=made.fingerprint.rows,
            checksum=made.fingerprint.checksum,
            first_log_date=made.fingerprint.first,
            last_log_date=made.fingerprint.last,
            archive_uri=made.uri,
            manifest_sha256=made.manifest_sha256,
        )
    return Outcome(operation, "done", made.uri, rows=made.fingerprint.rows)


def drop(conn: Connection[Any], operation: Operation, config: TableConfig) -> Outcome:
    """Drop a detached partition, whose rows are those of its archive, and which nobody holds.

    Raises:
        RefusedError: it is another one, attached, held, not archived, or has changed since.
        psycopg.Error: a lock was not to be had, or something depends on it.
    """
    if identify(conn, operation) is None and retirements.was_dropped(conn, operation):
        return Outcome(operation, "already")
    settle(conn, operation)
    try:
        # Read back in this run already, unless an earlier one began.
        if operation.retirement_id is not None:
            _verified(conn, operation)
        rows = locking.persistently(
            conn, lambda: _drop(conn, operation, config), timeout_s=config.lock_timeout_s
        )
    except _ChangedError as error:
        _back_to_detached(conn, operation)
        raise RefusedError(f"{error}: the next run archives it again") from None
    return Outcome(operation, "done", rows=rows)


def attach(conn: Connection[Any], operation: Operation, config: TableConfig) -> Outcome:
    """Put a detached partition back into its table; the table is not locked for its scan.

    Raises:
        RefusedError: it is another one, attached, or has other bounds than it had.
        psycopg.Error: a lock was not to be had, or its range is taken.
    """
    settle(conn, operation)
    locking.persistently(
        conn, lambda: _give_check(conn, operation), timeout_s=config.lock_timeout_s
    )
    rows = locking.persistently(
        conn, lambda: _attach(conn, operation, config), timeout_s=config.lock_timeout_s
    )
    return Outcome(operation, "done", rows=rows)


class _ChangedError(Exception):
    """A partition and its archive are not the same any more."""


def _drop(conn: Connection[Any], operation: Operation, config: TableConfig) -> int:
    locking.lock_exclusively(conn, [operation.partition], timeout_s=config.lock_timeout_s)
    require_detached(conn, operation)
    may_be_lost = config.drop_without_archive and config.archive is None
    states = ("archived", "detached") if may_be_lost else ("archived",)
    entry = retirements.required(conn, operation, *states)
    if entry.state == "archived":
        rows = _compared(conn, operation, entry)
    else:
        rows = count(conn, operation, entry.retirement_id)
    # After the scan, so that a hold that is being placed does not wait for that.
    retirements.lock_holds(conn)
    retirements.refuse_if_held(conn, operation)
    conn.execute(sql.SQL("DROP TABLE {}").format(locking.table(operation.partition)))
    retirements.move(conn, entry.retirement_id, "dropped")
    evidence.record(
        conn,
        "audit.partition.dropped",
        operation.table,
        f"partition {operation.partition} was dropped: {operation.why}",
        **described(operation, rows),
        archive=entry.archive_uri,
        checksum=entry.checksum,
    )
    return rows


def _verified(conn: Connection[Any], operation: Operation) -> None:
    """Read the archive that an earlier run made: who knows what has happened to it since."""
    with conn.transaction():
        entry = retirements.opened(conn, operation)
    if entry is None or entry.state != "archived" or not entry.archive_uri:
        return
    problem = verify(entry.archive_uri, known=[entry.manifest_sha256 or b""]).problem
    if problem is not None:
        raise _ChangedError(f"{entry.archive_uri} is not whole any more ({problem})")


def _compared(conn: Connection[Any], operation: Operation, entry: retirements.Entry) -> int:
    found = fingerprint(conn, operation.partition)
    if (found.rows, found.checksum) != (entry.rows, entry.checksum):
        raise _ChangedError(
            f"{operation.partition} has {found.rows} rows and is not what went to"
            f" {entry.archive_uri} with {entry.rows}"
        )
    return found.rows


def _back_to_detached(conn: Connection[Any], operation: Operation) -> None:
    with conn.transaction():
        entry = retirements.required(conn, operation, "archived")
        retirements.move(
            conn,
            entry.retirement_id,
            "detached",
            checksum=None,
            archive_uri=None,
            manifest_sha256=None,
        )


def _give_check(conn: Connection[Any], operation: Operation) -> None:
    """Give a partition the CHECK that saves ATTACH a scan, as DETACH CONCURRENTLY leaves it."""
    require_detached(conn, operation)
    bounds = sql.SQL(
        "log_date IS NOT NULL AND log_date >= {}::timestamptz AND log_date < {}::timestamptz"
    ).format(*_bounds(operation))
    if not _has_check(conn, operation):
        conn.execute(
            sql.SQL(
                "ALTER TABLE {0} DROP CONSTRAINT IF EXISTS {1}, ADD CONSTRAINT {1} CHECK ({2})"
            ).format(locking.table(operation.partition), sql.Identifier(_CHECK), bounds)
        )


def _has_check(conn: Connection[Any], operation: Operation) -> bool:
    return bool(
        scalar(
            conn,
            "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = %s::oid AND convalidated"
            " AND pg_get_constraintdef(oid) = format('CHECK (((log_date IS NOT NULL)"
            " AND (log_date >= %%L::timestamp with time zone)"
            " AND (log_date < %%L::timestamp with time zone)))',"
            " %s::timestamptz, %s::timestamptz))",
            operation.oid,
            *(names_of(operation)[name] for name in ("lower", "upper")),
        )
    )


def _attach(conn: Connection[Any], operation: Operation, config: TableConfig) -> int | None:
    locking.spare_default(conn, operation.table, timeout_s=config.lock_timeout_s)
    require_detached(conn, operation)
    entry = retirements.required(conn, operation, "detached", "archived")
    conn.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            locking.table(operation.table),
            locking.table(operation.partition),
            *_bounds(operation),
        )
    )
    # Locked by name: is it still the one that was looked at?
    require_same(conn, operation)
    retirements.move(conn, entry.retirement_id, "attached")
    evidence.record(
        conn,
        "audit.partition.attached",
        operation.table,
        f"partition {operation.partition} was attached again: {operation.why}",
        **described(operation, entry.rows),
    )
    return entry.rows


def _bounds(operation: Operation) -> list[sql.Literal]:
    return [sql.Literal(operation.lower or "-infinity"), sql.Literal(operation.upper)]
