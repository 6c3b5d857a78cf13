"""A row whose date has no partition: whether one is made for it; and how far partitions reach.

`logstore.ensure_partition` makes the partition that is missing, where this role may call it. It
takes locks and changes the schema, so it is not asked again at once when it was in vain. Where
retention has been, and beyond what a right clock says, it makes none: such a row is refused like
any other bad one. State and words only; the connection is the target's.
"""

import operator
import time
from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

from auditlog.sink.database.faults import RowError
from auditlog.sink.database.merge import Array, array_of
from auditlog.sink.encoding.tuples import log_date_of, raw_log_date
from auditlog.tables import TABLES

ENSURE: LiteralString = "SELECT logstore.ensure_partition(%s, %b::timestamptz)"
"""Its parameters are those of `ensuring`."""
ALIKE: LiteralString = """
    SELECT number::integer - 1 FROM unnest(%b::timestamptz[]) WITH ORDINALITY AS sent (at, number)
    WHERE logstore.ensure_partition(%s, at) = %s
"""
"""Which of several rows are refused as another one is; its parameters are those of `resembling`."""
COVERED: LiteralString = """
    SELECT name, CASE
        WHEN covered IS NULL THEN 0
        WHEN isfinite(covered) THEN greatest(0, extract(epoch FROM covered - now())::float8)
    END
    FROM unnest(%s::text[]) AS name, LATERAL logstore.covered_until(name) AS covered
"""
"""For how many seconds from now each table has partitions; null for one that needs none."""
TABLE_NAMES = [table.name for table in TABLES]

PAUSE_S = 1.0
"""After a question that was in vain: attempts begin with `retry_min_s`, and writers are many."""
REMEMBERED_S = 10.0
"""For how long a refusal is one of other rows too: a clock that is wrong dates all of them."""
MAX_ALIKE = 100
"""Rows that are set aside at once. A clock that is a year ahead costs a service 0.25 ms of its loop
for each row, and 6.4 ms where rows go one by one (2026-11-28)."""
LOOK_EVERY_S = 600.0
"""Between two looks at how far partitions reach, of which days count."""
LOOK_AGAIN_S = 60.0
"""The same, where the connection was made anew: nobody knows what is behind it."""
LOOK_TIMEOUT_S = 2.0
STALE_S = 3600.0
"""What was seen longer ago is not told: nobody wrote since, and maintenance may have run."""

LOCKED = "55P03"
_IMPOSSIBLE = "22008"  # its window would end where the calendar has
_MISSING = "the table has no partition for the rows' date"
_REFUSALS = {
    "retired": "retention took the partition for its date: where that was archived, `auditlog"
    " archive restore` with --attach brings it back",
    "too_far": "its date is too far ahead of the server's clock: one of the two clocks is wrong",
}
_REMEDIES = {
    "detaching": f"{_MISSING}, because a detach of it was interrupted: `auditlog partitions"
    " maintain` ends that",
    "not_partitioned": f"{_MISSING}: create it",
    "42501": f"{_MISSING}, and the writer may not have it made: GRANT EXECUTE ON FUNCTION"
    " logstore.ensure_partition(text, timestamptz) to its role, or run `auditlog partitions"
    " maintain`",
    "42883": f"{_MISSING}, and the schema is older than the package: run `auditlog migrate`",
    LOCKED: f"{_MISSING}, and a lock keeps it from being made: look for it in pg_stat_activity",
}
_UNKNOWN = f"{_MISSING}, and it could not be made: run `auditlog partitions maintain`"
MORE_FOLLOW = f"{_MISSING}, nor for others: the next attempts make them"
REFUSED_AGAIN = f"{_MISSING}, though it is said to be there: see `auditlog partitions status`"


class DateError(RowError):
    """Rows are refused for nothing but their dates, which their smallest forms have as well."""

    def __init__(self, table: int, rows: Sequence[int], answer: str) -> None:
        """Name the rows, of one table, and what was answered: `retired` or `too_far`."""
        super().__init__("23514", table, rows[0], _REFUSALS[answer])
        self.table = table
        self.rows = rows


class Ensuring:
    """When a writer may ask for a partition, and what it was answered."""

    def __init__(self) -> None:
        self._pause_ends_at = 0.0
        self._why = ""
        self._refused: dict[tuple[str, int], tuple[int, float]] = {}

    def refusal(self, table: int, row: bytes) -> str | None:
        """Return the answer that a row was refused with, or one nearer to now, a moment ago."""
        date, now = log_date_of(table, row), time.monotonic()
        for answer, is_beyond in _BEYOND.items():
            known = self._refused.get((answer, table))
            if known is not None and now < known[1] and is_beyond(date, known[0]):
                return answer
        return None

    def pause(self) -> str | None:
        """Return what mends it if the last question was in vain just now; else it may be asked."""
        return self._why if time.monotonic() < self._pause_ends_at else None

    def answered(self, table: int, row: bytes, answer: str) -> str | None:
        """Note an answer about a row; return it if the row is refused.

        Args:
            table: Index into `TABLES`.
            row: The tuple.
            answer: The function's, or the SQLSTATE with which it failed.
        """
        if (refusal := refusal_of(answer)) is not None:
            until = time.monotonic() + REMEMBERED_S
            self._refused[refusal, table] = log_date_of(table, row), until
        elif (why := obstacle_of(answer)) is not None:
            self._begin_pause(why)
        return refusal

    def refused_again(self) -> str:
        """Note that a row was refused though its partition is there; return what to look at."""
        return self._begin_pause(REFUSED_AGAIN)

    def _begin_pause(self, why: str) -> str:
        self._pause_ends_at, self._why = time.monotonic() + PAUSE_S, why
        return why


class Runway:
    """For how long there are partitions, as of the last look; read from any thread."""

    def __init__(self) -> None:
        self._seen: tuple[float, dict[str, float]] = (0.0, {})

    def note(self, rows: Iterable[tuple[str, float | None]]) -> None:
        """Keep the rows of `COVERED`; none where nothing could be learned."""
        left = {name: seconds for name, seconds in rows if seconds is not None}
        self._seen = (time.monotonic(), left)

    def seconds(self) -> dict[str, float]:
        """Return the seconds that are left, by table; without those that need no partitions."""
        seen_at, left = self._seen
        age = time.monotonic() - seen_at
        return {} if age > STALE_S else {name: max(0.0, s - age) for name, s in left.items()}


def refusal_of(answer: str) -> str | None:
    """Return `retired` or `too_far`, if the answer or the code of a failure is about the row."""
    answer = "too_far" if answer == _IMPOSSIBLE else answer
    return answer if answer in _REFUSALS else None


def obstacle_of(answer: str) -> str | None:
    """Return what mends it, if it says that there is no partition; rows wait meanwhile."""
    return None if answer in _DONE else _REMEDIES.get(answer, _UNKNOWN)


def ensuring(table: int, row: bytes) -> tuple[Any, ...]:
    """Return the parameters of `ENSURE` for a row; its date is never decoded."""
    return (TABLE_NAMES[table], Array(raw_log_date(table, row)))


def resembling(table: int, rows: Sequence[bytes], answer: str) -> tuple[Any, ...]:
    """Return the parameters of `ALIKE`."""
    dates = [raw_log_date(table, row) for row in rows]
    return (array_of("timestamptz", dates), TABLE_NAMES[table], answer)


_DONE = ("made", "already")
_BEYOND = {"retired": operator.le, "too_far": operator.ge}
