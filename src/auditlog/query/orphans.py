"""Requests that have begun and have no end in the trail: the evidence of a crash.

A received row without its complete row is what a killed process leaves behind, and just as much
what a request leaves that is still being served, or whose complete row waits in a queue: the trail
cannot tell these apart. Time is the database's; the age of a row is by its clock, and negative
where the service's is ahead.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from auditlog.query.statements import statement
from auditlog.records import LogRecord


@dataclass(frozen=True, slots=True)
class Orphan:
    """A received row, and how long ago it was recorded."""

    record: LogRecord
    """Its `log_id` is the exchange's id, to which the events of the request refer."""
    age: timedelta


def find_orphans(
    conn: Connection[Any],
    *,
    since: timedelta,
    older_than: timedelta,
    limit: int,
    tenant: str | None = None,
) -> list[Orphan]:
    """Return the newest received rows without a complete row, the very newest last.

    Args:
        conn: With the right to read `logstore.logs`.
        since: How far back to look for received rows.
        older_than: Leave out what is younger: it may well be at work still. A row from the future
            by more than this is not left out.
        limit: How many at most.
        tenant: Whose received rows; None for everybody's. It is the tenant as it was known when
            the request began.

    Raises:
        psycopg.Error: the table cannot be read.
    """
    parameters = {"since": since, "older_than": older_than, "limit": limit, "tenant": tenant}
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement("orphans"), parameters).fetchall()
    return [Orphan(age=row.pop("age"), record=LogRecord(**row)) for row in reversed(rows)]
