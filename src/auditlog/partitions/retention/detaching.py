"""A partition leaves its table: without holding anybody up where the server can do that.

DETACH CONCURRENTLY commits halfway and waits for the transactions that still see the partition. A
wait that ends before they do leaves it pending, and its rows out of sight, until FINALIZE; so
whatever went wrong, what is pending is finalised at once, and if need be by the next run.
"""

from typing import Any

import psycopg
from psycopg import Connection, sql

from auditlog.partitions import evidence, locking
from auditlog.partitions.identity import require_attached, require_detached, require_same
from auditlog.partitions.model import Operation, Outcome, TableConfig
from auditlog.partitions.retention import retirements
from auditlog.partitions.session import unfiltered
from auditlog.partitions.statements import statement

CONCURRENT_WAIT_S = 10.0
"""For transactions that see the partition; those that are older are not waited for at all."""

# A DEFAULT partition is there; the server, or an extension that has the table, cannot do it.
_NOT_CONCURRENTLY = frozenset({"55000", "0A000", "XX000"})

_HOW = {how: sql.SQL(how) for how in ("", " CONCURRENTLY", " FINALIZE")}
_COUNT = sql.SQL(
    "UPDATE logstore.retirements AS entry"
    " SET rows = found.rows, first_log_date = found.first, last_log_date = found.last"
    " FROM (SELECT count(*) AS rows, min(log_date) AS first, max(log_date) AS last FROM {})"
    " AS found WHERE retirement_id = {} RETURNING entry.rows"
)


def detach(conn: Connection[Any], operation: Operation, config: TableConfig) -> Outcome:
    """Take a partition off its table and away from everybody but its owner.

    Raises:
        RefusedError: it is another one, has other bounds, still takes rows or is held.
        WaitingError: a transaction sees it that will not end soon.
        PartitionError: this role may not record what it does.
        psycopg.Error: a lock was not to be had, or the server refuses.
    """
    found = require_same(conn, operation)
    if found.is_detaching:
        return finalize(conn, operation, config)
    if not found.is_partition:
        return settle(conn, operation)
    evidence.require_rights(conn)
    with conn.transaction():
        require_attached(conn, operation)
        retirements.refuse_if_held(conn, operation)
        # Committed before it begins: a kill from here on finds an entry to go on from.
        retirements.begin(conn, operation, "detaching")
    _leave(conn, operation, config)
    return settle(conn, operation)


def finalize(conn: Connection[Any], operation: Operation, config: TableConfig) -> Outcome:
    """End a DETACH CONCURRENTLY that was broken off.

    What this package had begun is taken further; what somebody else had, is left at that.

    Raises:
        RefusedError: it is another one, or is attached.
        psycopg.Error: a lock was not to be had: somebody's snapshot still sees the partition.
    """
    if require_same(conn, operation).is_detaching:
        _finalize(conn, operation, config)
    with conn.transaction():
        require_detached(conn, operation)
        is_ours = retirements.opened(conn, operation) is not None
    if is_ours:
        return settle(conn, operation)
    return Outcome(operation, "done", "somebody had it detached by hand, and it stays as it is")


def settle(conn: Connection[Any], operation: Operation) -> Outcome:
    """Write down that a partition is detached, with its rows, and take everybody's rights to it.

    Raises:
        RefusedError: it is attached, another one, or nobody began to retire it.
    """
    with conn.transaction():
        require_detached(conn, operation)
        entry = retirements.required(conn, operation, "detaching", "detached", "archived")
        if entry.state != "detaching":
            return Outcome(operation, "already", rows=entry.rows)
        _revoke(conn, operation)
        rows = count(conn, operation, entry.retirement_id)
        retirements.move(conn, entry.retirement_id, "detached")
        evidence.record(
            conn,
            "audit.partition.detached",
            operation.table,
            f"partition {operation.partition} was detached: {operation.why}",
            **described(operation, rows),
        )
    return Outcome(operation, "done", rows=rows)


def count(conn: Connection[Any], operation: Operation, retirement_id: str) -> int:
    """Count a partition's rows into its entry, with their first and last `log_date`."""
    # By the server alone, since Python has no infinity and no year 10000.
    query = _COUNT.format(locking.table(operation.partition), retirement_id)
    with unfiltered(conn):
        (rows,) = conn.execute(query).fetchone() or (0,)
    return int(rows)


def described(operation: Operation, rows: int | None) -> dict[str, Any]:
    """Return what evidence about a partition says, as metadata."""
    return {
        "partition": operation.partition,
        "lower": operation.lower.isoformat() if operation.lower else "-infinity",
        "upper": operation.upper.isoformat() if operation.upper else "infinity",
        "rows": rows,
    }


def _leave(conn: Connection[Any], operation: Operation, config: TableConfig) -> None:
    try:
        _concurrently(conn, operation, config)
    except psycopg.Error as error:
        if conn.broken:
            raise
        if require_same(conn, operation).is_detaching:
            _finalize(conn, operation, config)
        elif error.sqlstate in _NOT_CONCURRENTLY:
            _plainly(conn, operation, config)
        else:
            raise


def _concurrently(conn: Connection[Any], operation: Operation, config: TableConfig) -> None:
    locking.preflight(conn, [operation.table, operation.partition])
    # lock_timeout would end the wait for other transactions too, and so leave it pending.
    locking.limit(conn, "lock_timeout", 0, is_local=False)
    locking.limit(conn, "statement_timeout", CONCURRENT_WAIT_S, is_local=False)
    try:
        conn.execute(_detach(operation, " CONCURRENTLY"))
    finally:
        if not conn.broken:
            locking.limit(conn, "statement_timeout", 0, is_local=False)
            locking.limit(conn, "lock_timeout", config.lock_timeout_s, is_local=False)


def _finalize(conn: Connection[Any], operation: Operation, config: TableConfig) -> None:
    locking.persistently(
        conn,
        lambda: conn.execute(_detach(operation, " FINALIZE")),
        timeout_s=config.lock_timeout_s,
    )


def _plainly(conn: Connection[Any], operation: Operation, config: TableConfig) -> None:
    def deed() -> None:
        others = locking.default_of(conn, operation.table)
        names = [operation.table, *others, operation.partition]
        locking.preflight(conn, names)
        locking.lock_exclusively(conn, names, timeout_s=config.lock_timeout_s)
        require_attached(conn, operation)
        retirements.refuse_if_held(conn, operation)
        conn.execute(_detach(operation))

    locking.persistently(conn, deed, timeout_s=config.lock_timeout_s)


def _detach(operation: Operation, how: str = "") -> sql.Composed:
    return sql.SQL("ALTER TABLE {} DETACH PARTITION {}{}").format(
        locking.table(operation.table), locking.table(operation.partition), _HOW[how]
    )


def _revoke(conn: Connection[Any], operation: Operation) -> None:
    for (grantee,) in conn.execute(statement("retention/grantees"), [operation.oid]).fetchall():
        conn.execute(
            sql.SQL("REVOKE ALL ON {} FROM {} CASCADE").format(
                locking.table(operation.partition),
                sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC"),
            )
        )
