"""What maintenance did with a table, as rows of the trail: committed with the deed itself."""

from typing import Any

from psycopg import Connection

from auditlog import evidence
from auditlog.errors import PartitionError

AGGREGATE = "auditlog.table"


def require_rights(conn: Connection[Any]) -> None:
    """Find out before a deed begins whether it can be told when it is done.

    Raises:
        PartitionError: this role may not.
    """
    if not evidence.may_record(conn):
        raise PartitionError(f"this role may not record what it does: {evidence.RIGHTS}")


def record(
    conn: Connection[Any], event_type: str, table: str, message: str, **metadata: Any
) -> None:
    """Do as `auditlog.evidence.record`, about a table; "*" for all of them."""
    evidence.record(conn, event_type, (AGGREGATE, table), message, **metadata)
