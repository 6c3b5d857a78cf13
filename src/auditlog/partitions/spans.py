"""Lengths of time in the calendar: `24 months`, `90 days`; a month is not a number of days."""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(\d{1,5}) ?(d|days?|w|weeks?|mon|months?|y|years?)", re.ASCII)
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"m": 1, "y": 12}
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """A number of months and of days."""

    months: int = 0
    days: int = 0

    def after(self, instant: datetime) -> datetime:
        """Return the instant so long after another, at most the last that Python knows."""
        return _moved(instant, self.months, self.days)

    def before(self, instant: datetime) -> datetime:
        """Return the instant so long before another, at least the first that Python knows."""
        return _moved(instant, -self.months, -self.days)

    def __str__(self) -> str:
        """Show it as `parse` reads it."""
        return _words(self.months, "month") if self.months else _words(self.days, "day")


def parse(text: str) -> Span:
    """Read a number with its unit: days, weeks, months or years, also as d, w, mon, y.

    Raises:
        ValueError: anything else, with an example of what would do.
    """
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None or not int(match[1]):
        raise ValueError(
            f"{text!r} is no length of time: write 90 days, 26 weeks, 24 months, 7 years"
        )
    count, unit = int(match[1]), match[2][0]
    return Span(days=count * _DAYS[unit]) if unit in _DAYS else Span(months=count * _MONTHS[unit])


def _moved(instant: datetime, months: int, days: int) -> datetime:
    """Move by months, to the last day of a month that has fewer, then by days."""
    year, month0 = divmod(instant.year * 12 + instant.month - 1 + months, 12)
    try:
        # Both raise where the calendar ends.
        day = min(instant.day, calendar.monthrange(year, month0 + 1)[1])
        return instant.replace(year=year, month=month0 + 1, day=day) + timedelta(days=days)
    except (ValueError, OverflowError):
        return _FIRST if months < 0 or days < 0 else _LAST


def _words(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
