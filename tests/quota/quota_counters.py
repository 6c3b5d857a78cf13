"""Asks the SQL functions of quotas through a connection, with the clock in the test's hand."""

import json
from itertools import count
from typing import Any, NamedTuple

import psycopg
from hypothesis import settings
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

DAY_US = 86_400_000_000
START_US = 1_798_761_600_000_000
"""2027-01-01, in UTC."""
NOON_US = START_US + DAY_US // 2
HOUR_US = 3_600_000_000
FULL = 2**62
"""What a counter never goes above."""
MOST = 2**53 - 1
"""The largest number that may stand in an ask."""

SPEND = "SELECT * FROM logstore.spend_quotas_at(%s, logstore.instant(%s))"
RETURN = "SELECT logstore.return_quotas_at(%s, logstore.instant(%s))"

PATIENT = settings(deadline=None)
"""For properties that ask a server: how long it takes proves nothing."""

_subjects = count(1)


class Answer(NamedTuple):
    """A row of `logstore.spend_quotas`."""

    ask: int
    state: str
    granted: int
    extra: int
    previous: int
    usage: int
    now_us: int
    crossings: list[dict[str, Any]] | None
    free_us: int | None

    @property
    def percents(self) -> list[int]:
        """The thresholds that were crossed."""
        return [crossing["percent"] for crossing in self.crossings or ()]


def asking(subject: str, **changes: Any) -> dict[str, Any]:
    """One unit of ten in a day, of one subject, unless something else is said; None: left out."""
    ask = {"q": "exports", "t": "acme", "s": subject, "n": 1, "a": 1, "limit": 10}
    ask |= {"start": START_US, "end": START_US + DAY_US} | changes
    return {name: value for name, value in ask.items() if value is not None}


def rolling(subject: str, window_us: int = HOUR_US, **changes: Any) -> dict[str, Any]:
    """Likewise, of a rolling window."""
    return asking(subject, start=None, end=None, window=window_us, **changes)


def answers(
    conn: psycopg.Connection[Any], asks: list[dict[str, Any]], at_us: int = NOON_US
) -> list[Answer]:
    """What a batch of asks is answered at an instant, in the order in which it was taken."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return [Answer(*row) for row in cursor.execute(SPEND, [json.dumps(asks), at_us])]


class Subject:
    """One whose counters no other test touches."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.name = f"subject-{next(_subjects)}"

    def spend(self, *, at_us: int = NOON_US, **changes: Any) -> Answer:
        """Ask for something in the day."""
        (answer,) = answers(self.conn, [asking(self.name, **changes)], at_us)
        return answer

    def spend_rolling(self, *, at_us: int = NOON_US, **changes: Any) -> Answer:
        """Ask for something in the hour that ends then."""
        (answer,) = answers(self.conn, [rolling(self.name, **changes)], at_us)
        return answer

    def give_back(self, units: int, **changes: Any) -> int:
        """Return units, at noon; how many returns had a counter."""
        spent = {"q": "exports", "t": "acme", "s": self.name, "units": units, "start": START_US}
        (returned,) = self.conn.execute(RETURN, [json.dumps([spent | changes]), NOON_US])
        return int(returned[0])

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Its rows of `quota_usage`, `quota_windows` or `quota_crossings`."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            query = sql.SQL("SELECT * FROM {} WHERE subject = %s")
            query = query.format(sql.Identifier("logstore", table))
            return cursor.execute(query, [self.name]).fetchall()
