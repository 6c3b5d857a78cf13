"""The dead letters of `logstore.dead_letters`: which there are, and why they died.

What is in a row is never part of it: a list may be shown to anybody who keeps the service running.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from auditlog.query.statements import statement


@dataclass(frozen=True, slots=True)
class LetterSummary:
    """What is known of a dead letter from outside."""

    letter_id: UUID
    died_at: datetime
    writer: str
    table_name: str
    instance_id: bytes | None
    """The tenant in the bytes of the row, which need not be a text."""
    log_id: bytes | None
    sqlstate: str
    reason: str
    attempts: int
    """How often it was replayed in vain."""
    size: int
    """Bytes of the row."""


def find_letters(
    conn: Connection[Any], *, limit: int, tenant: str | None = None
) -> list[LetterSummary]:
    """Return the newest letters, the very newest last.

    Args:
        conn: With the right to read `logstore.dead_letters`.
        limit: How many at most.
        tenant: Whose letters; None for everybody's. Rows that are no tuples are nobody's.

    Raises:
        psycopg.Error: the table cannot be read.
    """
    named = None if tenant is None else tenant.encode()
    with conn.cursor(row_factory=class_row(LetterSummary)) as cursor:
        query = cursor.execute(statement("dead_letters"), {"limit": limit, "tenant": named})
        return query.fetchall()[::-1]


def letters_named(conn: Connection[Any], beginning: str) -> list[UUID]:
    """Return the identities that begin so, in lower case with hyphens; two at most.

    Raises:
        psycopg.Error: the table cannot be read.
    """
    rows = conn.execute(statement("dead_letters_named"), {"beginning": beginning})
    return [letter_id for (letter_id,) in rows]
