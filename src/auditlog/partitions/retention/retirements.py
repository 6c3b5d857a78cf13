"""The rows of `logstore.retirements`: how far the retirement of a partition has come.

    detaching → detached → archived → dropped        deleting → deleted
             ↘          ↘           ↘ attached

Each change is committed with the deed that it tells of, but for `detaching`, which is there before
a DETACH CONCURRENTLY begins: that commits by itself, halfway and at its end.
"""

from dataclasses import dataclass
from typing import Any, Literal

import uuid_utils
from psycopg import Connection, sql
from psycopg.rows import class_row

from auditlog.partitions.identity import RefusedError, names_of
from auditlog.partitions.model import Operation
from auditlog.partitions.session import scalar, unfiltered
from auditlog.partitions.statements import statement
from auditlog.postgres.files import package_version

_OVER = sql.SQL("ended_at = clock_timestamp()").format()


@dataclass(frozen=True, slots=True)
class Entry:
    """A retirement that is not over."""

    retirement_id: str
    state: Literal["detaching", "detached", "archived", "deleting"]
    rows: int | None
    checksum: str | None
    archive_uri: str | None
    manifest_sha256: bytes | None
    has_bounds: bool
    """Those of the operation that it was looked up for, and of its rows: holds go by them."""


def opened(conn: Connection[Any], operation: Operation) -> Entry | None:
    """Return and lock the entry of the operation's partition, and tenant, that is not over."""
    with conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(
            statement("retention/retirement_open"), names_of(operation)
        ).fetchone()


def required(conn: Connection[Any], operation: Operation, *states: str) -> Entry:
    """Return and lock that entry, which has one of some states and the operation's bounds.

    Raises:
        RefusedError: there is none, or it is in another state or about other rows.
    """
    entry = opened(conn, operation)
    if entry is None:
        raise RefusedError(f"{operation.partition} has no entry in logstore.retirements")
    if not entry.has_bounds:
        raise RefusedError(
            f"{operation.partition} has an entry in logstore.retirements whose bounds are not those"
            " of its rows, or of what was planned: set them right there"
        )
    if entry.state not in states:
        raise RefusedError(f"{operation.partition} is {entry.state}, not {' or '.join(states)}")
    return entry


def begin(
    conn: Connection[Any], operation: Operation, state: Literal["detaching", "deleting"]
) -> str:
    """Add an entry, or find the one that an earlier run left; return its identity.

    One in another state or about other bounds is over: somebody has attached the partition since.

    Args:
        conn: In a transaction that has seen that the partition is attached.
        operation: What is to be done.
        state: What the entry tells.
    """
    entry = opened(conn, operation)
    if entry is not None and entry.has_bounds and entry.state == state:
        return entry.retirement_id
    if entry is not None:
        move(conn, entry.retirement_id, "deleted" if state == "deleting" else "attached")
    retirement_id = str(uuid_utils.uuid7())
    entered = {"retirement_id": retirement_id, "state": state, "version": package_version()}
    conn.execute(statement("retention/retirement_begun"), {**names_of(operation), **entered})
    return retirement_id


def move(conn: Connection[Any], retirement_id: str, state: str, **columns: object) -> None:
    """Bring an entry to another state, and set columns of it; those that are over have an end."""
    changed = {"state": state, **columns}
    settings = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in changed]
    if state in ("dropped", "attached", "deleted"):
        settings.append(_OVER)
    conn.execute(
        sql.SQL("UPDATE logstore.retirements SET {} WHERE retirement_id = %s").format(
            sql.SQL(", ").join(settings)
        ),
        [*changed.values(), retirement_id],
    )


def refuse_if_held(conn: Connection[Any], operation: Operation, *, until: object = None) -> None:
    """See that no hold is on the operation's range and tenant.

    In a transaction that deletes, `lock_holds` comes before it.

    Args:
        conn: In a transaction.
        operation: What is to be done.
        until: End of the range; None: that of the partition.

    Raises:
        RefusedError: a hold is.
    """
    parameters = {**names_of(operation), "until": until or operation.upper}
    with unfiltered(conn):
        found = conn.execute(statement("retention/held"), parameters).fetchone()
    if found is not None:
        raise RefusedError(f"hold {found[0]} covers rows of {operation.partition}")


def lock_holds(conn: Connection[Any]) -> None:
    """Let no hold be placed until the transaction ends; wait for one that is being placed."""
    conn.execute(b"LOCK TABLE logstore.holds IN SHARE MODE")


def was_dropped(conn: Connection[Any], operation: Operation) -> bool:
    """Tell whether retention has dropped the partition before."""
    return bool(
        scalar(
            conn,
            "SELECT EXISTS (SELECT FROM logstore.retirements WHERE partition_oid = %s"
            " AND partition_name = %s AND table_name = %s AND state = 'dropped')",
            operation.oid,
            operation.partition,
            operation.table,
        )
    )
