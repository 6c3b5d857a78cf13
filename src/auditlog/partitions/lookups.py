"""Statements of this package → rows as mappings; used by what looks at the catalog."""

from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from auditlog.partitions.statements import statement


def rows(conn: Connection[Any], name: str, **parameters: object) -> list[dict[str, Any]]:
    """Return all rows of `NAME.sql`."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(name), parameters).fetchall()
