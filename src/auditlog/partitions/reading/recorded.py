"""What the tables of maintenance say of one table: how it is cut, what is held, what has gone.

Without one of them there is no plan, so a role that may not read it is told so, with the grant.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import Connection

from auditlog.errors import PartitionError
from auditlog.partitions.lookups import rows
from auditlog.partitions.model import Hold, Retirement, Step
from auditlog.partitions.session import scalar
from auditlog.partitions.spans import Span
from auditlog.tables import HOLDS, PARTITIONING, RETIREMENTS

_NAMES = tuple(table.name for table in (PARTITIONING, HOLDS, RETIREMENTS))


@dataclass(frozen=True, slots=True)
class Recorded:
    """Each field as `TableState` has it."""

    unread: dict[str, str]
    step: Step | None = None
    ahead: Span | None = None
    maintained_at: datetime | None = None
    holds: tuple[Hold, ...] = ()
    retirements: tuple[Retirement, ...] = ()
    retired_until: datetime | None = None


def read_recorded(conn: Connection[Any], table: str, oid: int) -> Recorded:
    """Read what is recorded of a table.

    Raises:
        PartitionError: the schema is older than this package.
        psycopg.Error: the connection is lost.
    """
    unread = _unread(conn)
    recorded = Recorded(unread)
    if PARTITIONING.name not in unread:
        recorded = _with_partitioning(conn, table, recorded)
    if HOLDS.name not in unread:
        holds = tuple(Hold(**row) for row in rows(conn, "reading/holds", table=table))
        recorded = replace(recorded, holds=holds)
    if RETIREMENTS.name not in unread:
        recorded = _with_retirements(conn, table, oid, recorded)
    return recorded


def _unread(conn: Connection[Any]) -> dict[str, str]:
    found = rows(conn, "reading/rights", names=list(_NAMES))
    if missing := [row["name"] for row in found if not row["is_there"]]:
        raise PartitionError(f"logstore.{missing[0]} is missing: run auditlog migrate first")
    closed = [row["name"] for row in found if not row["may_read"]]
    role = scalar(conn, "SELECT quote_ident(current_user)") if closed else ""
    return {
        name: "run maintenance as the owner of the tables, or"
        f" GRANT USAGE ON SCHEMA logstore TO {role}; GRANT SELECT ON logstore.{name} TO {role};"
        for name in closed
    }


def _with_partitioning(conn: Connection[Any], table: str, recorded: Recorded) -> Recorded:
    for row in rows(conn, "reading/partitioning", table=table):
        ahead = Span(months=row["months"], days=row["days"])
        return replace(recorded, step=row["step"], ahead=ahead, maintained_at=row["maintained_at"])
    return recorded


def _with_retirements(conn: Connection[Any], table: str, oid: int, recorded: Recorded) -> Recorded:
    found = rows(conn, "reading/retirements", table=table, oid=oid)
    (retired,) = rows(conn, "reading/retired", table=table)
    return replace(recorded, retirements=tuple(Retirement(**row) for row in found), **retired)
