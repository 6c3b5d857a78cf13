"""One operation of a plan → done, or why not. Nothing that goes wrong here goes any further.

Only a connection that is lost does, because nothing more can be done over it.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection, errors, sql

from auditlog.errors import AuditLogError
from auditlog.partitions import locking
from auditlog.partitions.archive import archive as _to_archive
from auditlog.partitions.conversion.healing import heal
from auditlog.partitions.creating import create, repair
from auditlog.partitions.identity import RefusedError, require_same
from auditlog.partitions.locking import NOT_HAD, WaitingError, persistently
from auditlog.partitions.model import Operation, OperationKind, Outcome, TableConfig
from auditlog.partitions.retention.deleting import delete
from auditlog.partitions.retention.detaching import detach, finalize
from auditlog.partitions.retention.retiring import Archiver, OnProgress, archive, attach, drop
from auditlog.partitions.session import scalar
from auditlog.postgres.causes import explain
from auditlog.reporting import describe

_Step = Callable[[Connection[Any], Operation, TableConfig], Outcome]

_ANALYZE_ONLY_SINCE = 180_000
_ANALYZE = {True: sql.SQL("ANALYZE ONLY {}"), False: sql.SQL("ANALYZE {}")}
_NOT_OWNER = (
    "maintenance is for the owner of the tables: become it with options='-c role={owner}' in the"
    " DSN, or ALTER TABLE logstore.{table} OWNER TO {role}, and likewise its partitions and"
    " logstore.partitioning, holds, retirements and batches; where row security is forced on the"
    " owner, ALTER TABLE ... NO FORCE ROW LEVEL SECURITY"
)
_OWNER = (
    "SELECT (SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE relname = %s"
    " AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'logstore'))"
)
_REMEDIES = {
    "2BP01": "drop what depends on the partition, such as a view: this package drops nothing else",
    "42P17": "another partition has taken part of the range: see `auditlog partitions status`",
    "53200": "raise max_locks_per_transaction, or make longer partitions",
}


def silent(_done: int, _total: int | None) -> None:
    """Show no progress."""


def apply(
    conn: Connection[Any],
    operation: Operation,
    config: TableConfig,
    *,
    archiver: Archiver = _to_archive,
    on_progress: OnProgress = silent,
) -> Outcome:
    """Do one step of a plan, if it is still what was planned.

    Args:
        conn: As `session.maintenance` gives it.
        operation: The step.
        config: What is wanted of its table.
        archiver: Brings partitions into the archive.
        on_progress: Called while it does.

    Raises:
        psycopg.Error: the connection is lost.
    """
    started = time.monotonic()
    archive_step = partial(archive, archiver=archiver, on_progress=on_progress)
    steps: dict[OperationKind, _Step] = {**_STEPS, "archive": archive_step}
    try:
        outcome = steps[operation.kind](conn, operation, config)
    except Exception as error:  # an archive raises whatever its storage does
        if conn.broken:
            raise psycopg.OperationalError(str(error) or "the connection is lost") from error
        outcome = _outcome_of(conn, operation, error)
    return replace(outcome, seconds=time.monotonic() - started)


def _outcome_of(conn: Connection[Any], operation: Operation, error: Exception) -> Outcome:
    if isinstance(error, RefusedError):
        return Outcome(operation, "refused", str(error))
    if isinstance(error, WaitingError):
        return Outcome(operation, "waiting", str(error))
    if isinstance(error, NOT_HAD):
        return Outcome(operation, "waiting", _who_holds_up(conn, operation))
    return Outcome(operation, "failed", why(conn, operation.table, error))


def _who_holds_up(conn: Connection[Any], operation: Operation) -> str:
    names = [operation.table, operation.partition, *locking.default_of(conn, operation.table)]
    snapshots = operation.kind in ("detach", "finalize")
    return locking.named(locking.blockers(conn, names, snapshots=snapshots))


def why(conn: Connection[Any], table: str, error: Exception) -> str:
    """Say in a line what failed and what mends it."""
    if isinstance(error, errors.InsufficientPrivilege):
        owner = scalar(conn, _OWNER, table) or "OWNER"
        remedy = _NOT_OWNER.format(table=table, owner=owner, role=conn.info.user)
        return str(explain(error, {"42501": remedy}))
    return in_words(error)


def in_words(error: Exception) -> str:
    """Say so of an error that no connection is needed to explain."""
    if isinstance(error, psycopg.Error):
        return str(explain(error, _REMEDIES))
    return str(error) if isinstance(error, AuditLogError | OSError) else describe(error)


def _create(conn: Connection[Any], operation: Operation, config: TableConfig) -> Outcome:
    def deed() -> str:
        if operation.upper is None:
            raise RefusedError(f"{operation.partition} would have no upper bound")
        locking.spare_default(conn, operation.table, timeout_s=config.lock_timeout_s)
        return create(conn, operation.table, operation.partition, operation.lower, operation.upper)

    made = persistently(conn, deed, timeout_s=config.lock_timeout_s)
    return Outcome(operation, "done" if made == "made" else "already")


def _repair(conn: Connection[Any], operation: Operation, _config: TableConfig) -> Outcome:
    require_same(conn, operation)
    repair(conn, operation.table, operation.partition)
    return Outcome(operation, "done")


def _heal(conn: Connection[Any], operation: Operation, _config: TableConfig) -> Outcome:
    heal(conn, operation)
    return Outcome(operation, "done")


def _analyze(conn: Connection[Any], operation: Operation, config: TableConfig) -> Outcome:
    """Give the table itself statistics: autovacuum makes them for partitions only."""
    # Older servers read the partitions once more, each for its own statistics.
    can_only = conn.info.server_version >= _ANALYZE_ONLY_SINCE
    query = _ANALYZE[can_only].format(locking.table(operation.table))
    persistently(conn, lambda: conn.execute(query), timeout_s=config.lock_timeout_s)
    return Outcome(operation, "done")


_STEPS: Mapping[OperationKind, _Step] = {
    "finalize": finalize,
    "heal": _heal,
    "create": _create,
    "repair": _repair,
    "delete": delete,
    "detach": detach,
    "drop": drop,
    "attach": attach,
    "analyze": _analyze,
}
