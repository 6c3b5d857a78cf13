"""Legal holds: what nothing deletes, and who said so. Placing and releasing one leaves evidence.

A hold that is being placed and a deletion that is under way wait for each other: whichever commits
first is seen by the other.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import uuid_utils
from psycopg import Connection
from psycopg.rows import class_row

from auditlog.errors import PartitionError
from auditlog.partitions import evidence
from auditlog.partitions.locking import persistently
from auditlog.partitions.model import Hold
from auditlog.partitions.statements import statement
from auditlog.tables import TABLES

_EVERYTHING = "*"
_LOCK_TIMEOUT_S = 1.5
_REMEDY = "`auditlog hold list` shows those that are"


@dataclass(frozen=True, slots=True)
class ListedHold:
    """A hold with its whole story."""

    hold_id: str
    table: str | None
    """None: all tables."""
    instance_id: str | None
    """None: all tenants."""
    start: datetime | None
    """None: since ever."""
    end: datetime | None
    """None: for ever."""
    reason: str
    placed_at: datetime
    placed_by: str
    released_at: datetime | None
    """None: it holds."""
    released_by: str | None
    release_reason: str | None


def place(
    conn: Connection[Any],
    *,
    table: str | None = None,
    instance_id: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    reason: str,
    by: str | None = None,
) -> Hold:
    """Hold rows from now on; waits for a deletion that is under way, and no longer.

    Args:
        conn: Autocommit, of an owner of the tables.
        table: One of `TABLES`; None: all of them.
        instance_id: The tenant; None: all. A partition has rows of all tenants, and is held whole.
        start: First `log_date` that is held; None: since ever.
        end: First `log_date` after it that is not; None: for ever.
        reason: The matter, as its file names it.
        by: The person; None: the login.

    Raises:
        PartitionError: no reason, no such table, or a range that holds nothing.
        psycopg.Error: the hold is not placed.
    """
    _require_text(reason, "a hold needs a reason, such as the file number of the matter")
    _require_table(table)
    _require_range(start, end)
    hold = Hold(str(uuid_utils.uuid7()), table, instance_id, start, end, reason.strip())
    parameters = {
        "hold_id": hold.hold_id,
        "table": table,
        "instance_id": instance_id,
        "start": start or "-infinity",
        "end": end or "infinity",
        "reason": hold.reason,
        "by": by,
    }

    def deed() -> None:
        conn.execute(statement("retention/hold_placed"), parameters)
        _record(conn, "placed", hold, hold.reason, by)

    persistently(conn, deed, timeout_s=_LOCK_TIMEOUT_S)
    return hold


def release(
    conn: Connection[Any], hold_id: str, *, reason: str, by: str | None = None
) -> ListedHold:
    """End a hold; it stays listed among those that were released.

    Args:
        conn: Autocommit, of an owner of the tables.
        hold_id: As `listed` shows it.
        reason: Why what was held may be deleted.
        by: The person; None: the login.

    Raises:
        PartitionError: no reason, no such hold, or it was released before.
        psycopg.Error: the hold is not released.
    """
    _require_text(reason, "a release needs a reason, such as who ended the matter and when")
    parameters = {"hold_id": _identity(hold_id), "reason": reason.strip(), "by": by}

    def deed() -> ListedHold:
        with conn.cursor(row_factory=class_row(ListedHold)) as cursor:
            released = cursor.execute(statement("retention/hold_released"), parameters).fetchone()
        if released is None:
            raise PartitionError(f"no hold {hold_id} is in force: {_REMEDY}")
        _record(conn, "released", released, reason.strip(), by)
        return released

    return persistently(conn, deed, timeout_s=_LOCK_TIMEOUT_S)


def listed(conn: Connection[Any], *, released: bool = False) -> list[ListedHold]:
    """Return the holds in force, the oldest first; with `released`, also those that were.

    Raises:
        psycopg.Error: they cannot be read.
    """
    with conn.cursor(row_factory=class_row(ListedHold)) as cursor:
        return cursor.execute(statement("retention/holds"), {"released": released}).fetchall()


def _record(
    conn: Connection[Any], what: str, hold: Hold | ListedHold, reason: str, by: str | None
) -> None:
    evidence.record(
        conn,
        f"audit.hold.{what}",
        hold.table or _EVERYTHING,
        f"a legal hold was {what}: {reason}",
        hold_id=hold.hold_id,
        tenant=hold.instance_id,
        lower=hold.start.isoformat() if hold.start else "-infinity",
        upper=hold.end.isoformat() if hold.end else "infinity",
        by=by,
    )


def _require_text(text: str, otherwise: str) -> None:
    if not text.strip():
        raise PartitionError(otherwise)


def _require_table(table: str | None) -> None:
    names = [known.name for known in TABLES]
    if table is not None and table not in names:
        raise PartitionError(f"there is no table {table}: it is one of {', '.join(names)}")


def _require_range(start: datetime | None, end: datetime | None) -> None:
    for instant in (start, end):
        if instant is not None and instant.utcoffset() is None:
            raise PartitionError(f"{instant} has no time zone: write {instant}+00:00 for UTC")
    if start is not None and end is not None and start >= end:
        raise PartitionError(f"a hold from {start} until {end} holds nothing: swap the two")


def _identity(hold_id: str) -> UUID:
    try:
        return UUID(hold_id)
    except ValueError:
        raise PartitionError(f"{hold_id!r} is no identity of a hold: {_REMEDY}") from None
