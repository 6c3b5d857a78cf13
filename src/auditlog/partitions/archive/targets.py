"""The table that an archive is loaded into: one of its own, or a partition that is made for it."""

from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import scalar_row

from auditlog.errors import PartitionError
from auditlog.partitions.archive.fingerprints import SCHEMA
from auditlog.partitions.archive.manifest import Content
from auditlog.partitions.archive.statements import statement
from auditlog.partitions.session import scalar

_MAKE = "SELECT logstore.make_partition(%s::regclass, %s, %s::timestamptz, %s::timestamptz)"


def is_taken(conn: Connection[Any], name: str) -> bool:
    """Tell whether the schema has something of that name."""
    return bool(scalar(conn, "SELECT to_regclass(%s) IS NOT NULL", _regclass(name)))


def make_table(conn: Connection[Any], content: Content, name: str) -> None:
    """Make a table for nobody but its owner, append-only like the one it is of."""
    table = sql.Identifier(SCHEMA, name)
    parent = sql.Identifier(SCHEMA, content.table)
    conn.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(table, parent))
    # A plain table gives it its key, and a partitioned one has none to give.
    if not scalar(
        conn,
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p')",
        _regclass(name),
    ):
        conn.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (instance_id, log_id)").format(table))
    conn.execute(
        sql.SQL(
            "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {}"
            " FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change()"
        ).format(table)
    )
    _revoke(conn, name)


def make_partition(conn: Connection[Any], content: Content, name: str) -> None:
    """Attach it while it is empty: that is quick, or refused before anything was loaded."""
    bounds = {"table": content.table, "lower": _lower(content), "upper": content.upper}
    with conn.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(statement("attachable"), bounds).fetchone():
            raise PartitionError(
                f"retention took {content.partition}, and would again: place a hold that covers"
                " it with `auditlog hold add`, or restore it without --attach"
            )
    parent = f"{SCHEMA}.{content.table}"
    if not scalar(conn, "SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", parent):
        raise PartitionError(
            f"{parent} is not partitioned: restore it without --attach, or make the table a"
            f" partitioned one with `auditlog partitions enable {content.table}`"
        )
    try:
        result = scalar(conn, _MAKE, parent, name, _lower(content), content.upper)
    except psycopg.errors.InvalidObjectDefinition as error:
        raise _not_free(content, str(error.diag.message_detail or "")) from error
    if result != "made":
        raise _not_free(content, "A partition with the same bounds is attached.")


def bound(conn: Connection[Any], content: Content, name: str) -> None:
    """Keep the bounds as data: with them the table can be attached without being read."""
    try:
        conn.execute(
            sql.SQL(
                "ALTER TABLE {} ADD CONSTRAINT restored_bounds CHECK (log_date IS NOT NULL"
                " AND log_date >= {}::timestamptz AND log_date < {}::timestamptz)"
            ).format(
                sql.Identifier(SCHEMA, name),
                sql.Literal(_lower(content)),
                sql.Literal(content.upper.isoformat()),
            )
        )
    except psycopg.errors.CheckViolation:
        raise PartitionError(
            "the archive has rows outside of the bounds of its partition: nothing was restored"
        ) from None


def _not_free(content: Content, detail: str) -> PartitionError:
    return PartitionError(
        f"the range of {content.partition} is not free in {SCHEMA}.{content.table}: {detail}"
        " Restore it without --attach"
    )


def _revoke(conn: Connection[Any], name: str) -> None:
    """Take away what ALTER DEFAULT PRIVILEGES gave."""
    table = sql.Identifier(SCHEMA, name)
    conn.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC").format(table))
    with conn.cursor(row_factory=scalar_row) as cursor:
        grantees = cursor.execute(statement("grantees"), {"name": name}).fetchall()
    for grantee in grantees:
        conn.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(table, sql.Identifier(grantee)))


def _lower(content: Content) -> str:
    return "-infinity" if content.lower is None else content.lower.isoformat()


def _regclass(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'{SCHEMA}."{escaped}"'
