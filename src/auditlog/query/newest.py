"""The newest rows of `logstore.logs`, of one tenant or of all.

By identity, which is the order of recording; at a million rows a matter of milliseconds, because
only the ends of the primary key are read. Does not wait for rows that are still to come.
"""

from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from auditlog.query.statements import statement
from auditlog.records import LogRecord


def newest(conn: Connection[Any], *, limit: int, tenant: str | None = None) -> list[LogRecord]:
    """Return the newest rows, the very newest last.

    Args:
        conn: With the right to read `logstore.logs`.
        limit: How many at most.
        tenant: Whose rows; None for everybody's.

    Raises:
        psycopg.Error: the table cannot be read.
    """
    query = statement("newest" if tenant is None else "newest_of_tenant")
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, {"limit": limit, "tenant": tenant}).fetchall()
    return [LogRecord(**row) for row in reversed(rows)]
