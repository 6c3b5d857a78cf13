"""Counters of periods that ended long ago go, a few at a time. Blocking; for maintenance."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

from psycopg import Connection
from psycopg.rows import class_row, scalar_row

MOST = 10_000
"""Of each table, in one transaction of 0.2 s (two shared cores, 2026-11-28)."""

_CLEAN = b"SELECT * FROM logstore.clean_quotas(%s::text::interval, %s)"
_IS_THERE = b"SELECT to_regprocedure('logstore.clean_quotas(interval, integer)') IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """How many rows went."""

    counters: int = 0
    windows: int = 0
    crossings: int = 0

    def __add__(self, other: "Cleaned") -> "Cleaned":
        """Add up."""
        return Cleaned(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def rows(self) -> int:
        """All of them."""
        return self.counters + self.windows + self.crossings


OnProgress: TypeAlias = Callable[[Cleaned], None]


def clean(
    conn: Connection[Any], keep: str, *, on_progress: OnProgress = lambda _: None
) -> Cleaned | None:
    """Delete counters of periods that ended longer ago, and crossings that were told in them.

    Args:
        conn: Autocommit; each batch of `MOST` is a transaction, and what is done stays done.
        keep: A length of time, as PostgreSQL reads an interval.
        on_progress: Called after each batch with what is done so far.

    Returns:
        None: the schema is older than this deed.

    Raises:
        psycopg.Error: this role may not, or the server is gone.
    """
    with conn.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(_IS_THERE).fetchone():
            return None
    done = Cleaned()
    with conn.cursor(row_factory=class_row(Cleaned)) as cursor:
        while batch := cursor.execute(_CLEAN, [keep, MOST]).fetchone():
            done += batch
            on_progress(done)
            if max(astuple(batch)) < MOST:
                break
    return done
