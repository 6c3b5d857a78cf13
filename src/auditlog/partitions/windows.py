"""Windows of a step: the days, weeks and months of the calendar in UTC, and what they are called.

Pure. Migration 0008 has the same in SQL, for those who make partitions without Python; a test
compares the two.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta

from auditlog.partitions.model import Step
from auditlog.partitions.spans import Span

MARK = "auditlog partition of "
"""With the table's name behind it, how the comment of each partition begins. A comment survives
pg_dump, and no partition without it is ever touched."""

_LENGTHS: Mapping[Step, Span] = {
    "day": Span(days=1),
    "week": Span(days=7),
    "month": Span(months=1),
}


def window(step: Step, instant: datetime) -> tuple[datetime, datetime]:
    """Return the beginning and the end of the window that an instant lies in.

    The end of the calendar is the last instant that Python knows.
    """
    lower = _beginning(step, instant.astimezone(UTC))
    return lower, _LENGTHS[step].after(lower)


def windows(step: Step, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield, in order, the windows that a range of time touches; `end` is not part of it."""
    at = start
    while at < end:
        lower, at = window(step, at)
        yield lower, at


def name(table: str, step: Step, lower: datetime | None) -> str:
    """Return what the partition of a table is called that begins at `lower`; None: -infinity.

    One that begins elsewhere than a window of its step, because another partition ends there, is
    called by the day, and if that is not midnight by the time as well.
    """
    if lower is None:
        return f"{table}_legacy"
    lower = lower.astimezone(UTC)
    is_regular = lower == _beginning(step, lower)
    return f"{table}_p{_called(step if is_regular else 'day', lower)}"


def _beginning(step: Step, instant: datetime) -> datetime:
    day = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    if step == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if step == "month" else day


def _called(step: Step, lower: datetime) -> str:
    if step == "week":
        year, week, _ = lower.isocalendar()
        return f"{year:04}w{week:02}"
    if step == "month":
        return f"{lower.year:04}{lower.month:02}"
    of_day = "" if lower.time() == time() else f"t{lower:%H%M%S%f}"
    return f"{lower.year:04}{lower.month:02}{lower.day:02}{of_day}"
