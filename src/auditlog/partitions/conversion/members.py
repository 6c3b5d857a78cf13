"""What is attached to a table, whoever made it, and the locks that all of it takes at once."""

from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from auditlog.partitions.statements import statement
from auditlog.partitions.windows import MARK


@dataclass(frozen=True, slots=True)
class Member:
    """A partition."""

    oid: int
    name: str
    size_bytes: int
    is_ours: bool
    is_detaching: bool
    indexes: int

    @property
    def locks(self) -> int:
        """How many a statement takes that changes it."""
        return 1 + self.indexes


def members_of(conn: Connection[Any], oid: int) -> list[Member]:
    """Return what is attached to a table, the largest first."""
    with conn.cursor(row_factory=class_row(Member)) as cursor:
        return cursor.execute(
            statement("conversion/members"), {"table": oid, "mark": MARK}
        ).fetchall()
