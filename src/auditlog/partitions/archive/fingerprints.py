"""What a partition holds, as one number that no order of rows and no server's settings change.

Blocking; reads the whole partition. The checksum stands on the text of each row, which is the same
in PostgreSQL 14 to 18: what sessions may print in different ways is pinned while it is taken.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import class_row

from auditlog.errors import PartitionError
from auditlog.partitions.archive.statements import statement

SCHEMA = "logstore"

# A policy must not hide rows from an archive: with row_security off the server refuses instead.
_PINNED = b"""
    SET LOCAL timezone = 'UTC';
    SET LOCAL datestyle = 'ISO, YMD';
    SET LOCAL intervalstyle = 'postgres';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL row_security = off
"""
# "C": the hash of a text under another collation may be that of its sort key.
CHECKSUM = 'sum(hashtextextended(t::text COLLATE "C", 0)::numeric)'
"""Of rows `t`; 1.5 s for a million rows of 490 bytes (2026-11-28)."""
_FINGERPRINT = sql.SQL(
    "SELECT count(*) AS rows, coalesce({checksum}, 0)::text AS checksum,"
    " min(log_date)::text AS first, max(log_date)::text AS last"
    " FROM (SELECT {columns} FROM {table}) AS t"
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Number of rows, checksum of their content, first and last `log_date` as text in UTC."""

    rows: int
    checksum: str
    first: str | None
    last: str | None
    """None: no rows. `infinity` and years that Python's dates do not know are texts, too."""


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """A column as the catalog has it; `is_required`: neither null nor a default will do."""

    name: str
    type: str
    is_required: bool = False


def fingerprint(
    conn: Connection[Any], name: str, columns: Sequence[str] | None = None
) -> Fingerprint:
    """Read a partition of schema `logstore` and return what it holds.

    Inside a transaction of the caller it sees what that sees, and changes none of its settings.

    Args:
        conn: Of a role that may read the partition itself.
        name: The partition; itself, never its parent.
        columns: Those that count, in order; None: all of them, in the order of the catalog.

    Raises:
        PartitionError: there is no such table.
        psycopg.Error: it cannot be read, or a policy hides rows of it.
    """
    names = columns or [column.name for column in columns_of(conn, name)]
    with pinned(conn), conn.cursor(row_factory=class_row(Fingerprint)) as cursor:
        cursor.execute(
            _FINGERPRINT.format(
                checksum=sql.SQL(CHECKSUM),
                columns=column_list(names),
                table=sql.Identifier(SCHEMA, name),
            )
        )
        return next(cursor)


def columns_of(conn: Connection[Any], name: str) -> list[StoredColumn]:
    """Return a table's columns, but for those that are generated, in the catalog's order."""
    with conn.cursor(row_factory=class_row(StoredColumn)) as cursor:
        columns = cursor.execute(statement("columns"), {"name": name}).fetchall()
    if not columns:
        raise PartitionError(f"there is no table {name} in schema {SCHEMA}: see partitions status")
    return columns


@contextmanager
def pinned(conn: Connection[Any]) -> Iterator[None]:
    """Print values as every server does, for the length of the context; only for reading."""
    # Rolled back, or the settings would stay for the rest of a transaction around this one.
    with conn.transaction(force_rollback=True):
        conn.execute(_PINNED)
        yield


def column_list(names: Sequence[str]) -> sql.Composed:
    """Return the names, quoted, with commas between them."""
    return sql.SQL(", ").join(map(sql.Identifier, names))
