"""What a conversion that was killed has left beside its table: found, used again, or removed.

The dangerous one is the CHECK: once its date has passed it refuses every row. So everything that
comes by takes it away: the next `enable` that cannot use it, `disable`, and `maintain`.
"""

from typing import Any

from psycopg import Connection, sql

from auditlog.errors import PartitionError
from auditlog.partitions.conversion.bounding import bound_of, unbind
from auditlog.partitions.conversion.scaffold import SCAFFOLD_MARK, execute, scaffold, swap
from auditlog.partitions.locking import default_of
from auditlog.partitions.locking import table as qualified
from auditlog.partitions.model import Finding
from auditlog.partitions.naming import oid_of
from auditlog.partitions.session import scalar

_PARTS = """
    SELECT array(SELECT c.relname::text FROM pg_catalog.pg_inherits i
                 JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = %s AND starts_with(
                     coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), ''), %s
                 ) ORDER BY 1)
"""


def find(conn: Connection[Any], table: str) -> list[Finding]:
    """Return what is left of a conversion; `clear` removes it.

    Raises:
        psycopg.Error: the database cannot be asked.
    """
    found = [
        Finding("bound_left", "drift", _BOUND_LEFT.format(name, left.upper), _FINISH[name != table])
        for name in (table, *default_of(conn, table))
        if (left := bound_of(conn, name)) is not None
    ]
    if _scaffold_of(conn, table) is not None:
        detail = f"an interrupted run left logstore.{scaffold(table)}, which nobody uses"
        found.append(Finding("scaffold_left", "drift", detail, _FINISH[False]))
    return found


def clear(conn: Connection[Any], table: str, *, keep_bound: bool = False) -> None:
    """Remove what is left of a conversion; call it as the only run on the table.

    Raises:
        PartitionError: a lock was not to be had, or there are rows where none can be.
        psycopg.Error: this role may not.
    """
    if not keep_bound:
        for name in (table, *default_of(conn, table)):
            unbind(conn, name)
    if (oid := _scaffold_of(conn, table)) is not None:
        _dismantle(conn, scaffold(table), oid)


def drop_empty(conn: Connection[Any], name: str) -> None:
    """Drop a table of which it is certain that nothing was in it.

    Raises:
        PartitionError: there is a row.
    """
    execute(conn, sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(qualified(name)))
    any_row = sql.SQL("SELECT FROM ONLY {} LIMIT 1").format(qualified(name))
    if conn.execute(any_row).fetchone() is not None:
        raise PartitionError(
            f"logstore.{name} has rows, where nobody could write: look at them, put them into the"
            " table that they belong to, then run this again"
        )
    execute(conn, sql.SQL("DROP TABLE {}").format(qualified(name)))


def parts_of(conn: Connection[Any], oid: int, mark: str = "") -> list[str]:
    """Return the names of partitions, or of tables that inherit, whose comment begins so."""
    return list(scalar(conn, _PARTS, oid, mark))


def _scaffold_of(conn: Connection[Any], table: str) -> int | None:
    oid = oid_of(conn, scaffold(table))
    comment = scalar(conn, "SELECT pg_catalog.obj_description(%s, 'pg_class')", oid)
    return oid if str(comment).startswith(SCAFFOLD_MARK) else None


def _dismantle(conn: Connection[Any], name: str, oid: int) -> None:
    """One by one: together, hundreds of partitions need more locks than a server has."""
    for part in parts_of(conn, oid):
        swap(conn, part, lambda part=part: drop_empty(conn, part))  # type: ignore[misc]
    swap(conn, name, lambda: execute(conn, sql.SQL("DROP TABLE {}").format(qualified(name))))


_BOUND_LEFT = (
    "an interrupted run left a constraint on logstore.{0} that refuses rows from"
    " {1:%Y-%m-%d %H:%M} UTC on"
)
_FINISH = {
    False: "run auditlog partitions enable again, or disable to go back",
    True: "auditlog partitions maintain finishes it",
}
