"""Periods: how long one is, and where the one that an instant lies in begins and ends. Pure.

Minutes and hours are time that elapses. Days, weeks, months and years are those of the calendar in
a time zone, so that a day has 23 or 25 hours where the clocks change.
"""

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

from auditlog.errors import QuotaError

_MINUTE_US = 60_000_000
_HOUR_US = 60 * _MINUTE_US
_DAY_US = 24 * _HOUR_US
_LENGTHS_US = {
    "minute": _MINUTE_US,
    "hour": _HOUR_US,
    "day": _DAY_US,
    "week": 7 * _DAY_US,
    "month": 30 * _DAY_US,
    "year": 365 * _DAY_US,
}
_LONGEST_US = 100 * _LENGTHS_US["year"]
_ELAPSING = ("minute", "hour")
_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}
_PERIOD = re.compile(
    r"(?:(\d{1,8}) ?)?(min|minutes?|h|hours?|d|days?|w|weeks?|mon|months?|y|years?)", re.ASCII
)
_LETTERS = {"mi": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MONDAY = datetime(2001, 1, 1)  # noqa: DTZ001  # of whichever time zone is asked for
_BEYOND = (
    "the period is not within the years 1 to 9999, where the calendar ends: take a shorter period,"
    " or an anchor nearer to the present"
)


@dataclass(frozen=True, slots=True)
class Period:
    """A number of minutes, hours, days, weeks, months or years."""

    count: int
    unit: str
    """`minute` to `year`."""

    def __str__(self) -> str:
        """Show it as `parse` reads it."""
        return f"{self.count} {self.unit}{'' if self.count == 1 else 's'}"


def parse(text: str) -> Period:
    """Read a unit, or a number with its unit: minutes, hours, days, weeks, months or years.

    Raises:
        QuotaError: anything else, or more than 100 years, with an example of what would do.
    """
    match = _PERIOD.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    if match is None:
        raise QuotaError(f"{text!r} is no period: write 15 minutes, hour, 7 days, month, 3 months")
    period = Period(int(match[1] or 1), _unit(match[2]))
    if not 0 < period.count * _LENGTHS_US[period.unit] <= _LONGEST_US:
        raise QuotaError(f"{text!r} is no period: it must be from a minute to 100 years long")
    return period


def bounds(period: Period, at_us: int, anchor: datetime | None, time_zone: str) -> tuple[int, int]:
    """Return the first instant of the period that an instant lies in, and the first one after it.

    The bounds of the calendar are the anchor's day and time of day, moved by whole periods. Where
    the clocks leave that time out, it is as much later as they are put on; where it comes twice,
    it is the first. In a month that has no such day it is the last one.

    Args:
        period: How long it is.
        at_us: Microseconds since 1970, UTC, as are the two returned.
        anchor: When a period begins, past or future; naive means the time zone's. None: 2001-01-01.
        time_zone: Name in the IANA database.

    Raises:
        QuotaError: there is no such time zone, or the period is not within the years 1 to 9999.
    """
    zone = _zone(time_zone)
    try:
        first = instant(anchor or _MONDAY, time_zone).astimezone(zone)
        if period.unit in _ELAPSING:
            start_us, end_us = _elapsing(fixed_us(period), at_us, first)
        else:
            start_us, end_us = _of_calendar(period, at_us, first)
    except (OverflowError, ValueError):
        raise QuotaError(_BEYOND) from None
    if start_us < _FIRST_US or end_us > _LAST_US:
        raise QuotaError(_BEYOND)
    return start_us, end_us


def fixed_us(period: Period) -> int:
    """Return the length of minutes, hours, days of 24 hours or weeks, in microseconds.

    Raises:
        QuotaError: months and years are of different lengths.
    """
    length_us = period.count * _LENGTHS_US[period.unit]
    if period.unit in _MONTHS:
        better = Period(length_us // _DAY_US, "day")
        raise QuotaError(f"{period} has no fixed length, as a rolling window must: write {better}")
    return length_us


def check_zone(name: str) -> None:
    """See that there is such a time zone.

    Raises:
        QuotaError: there is none; says what would do.
    """
    _zone(name)


def instant(anchor: datetime, time_zone: str) -> datetime:
    """Return an anchor in UTC; what a naive one says is the time of day in the time zone.

    Raises:
        QuotaError: there is no such time zone, or the anchor is not within the years 1 to 9999.
    """
    if anchor.utcoffset() is None:
        anchor = anchor.replace(tzinfo=_zone(time_zone))
    try:
        return anchor.astimezone(UTC)
    except (OverflowError, ValueError):
        raise QuotaError(_BEYOND) from None


def _unit(word: str) -> str:
    return _LETTERS[word[:2] if word[0] == "m" else word[0]]


def _elapsing(length_us: int, at_us: int, first: datetime) -> tuple[int, int]:
    start_us = at_us - (at_us - _us(first)) % length_us
    return start_us, start_us + length_us


def _of_calendar(period: Period, at_us: int, first: datetime) -> tuple[int, int]:
    """Clocks are changed by a day at most, so that the first guess is off by very few periods."""
    at = (_EPOCH + timedelta(microseconds=at_us)).astimezone(first.tzinfo)
    number = _guess(period, at, first) + 2
    start_us = end_us = _start_us(period, number, first)
    while start_us > at_us:
        number -= 1
        start_us, end_us = _start_us(period, number, first), start_us
    return start_us, end_us


def _guess(period: Period, at: datetime, first: datetime) -> int:
    if period.unit in _DAYS:
        # Of two instants in one time zone, Python subtracts what the clocks show.
        return (at - first).days // (period.count * _DAYS[period.unit])
    months = (at.year - first.year) * 12 + at.month - first.month
    return months // (period.count * _MONTHS[period.unit])


def _start_us(period: Period, number: int, first: datetime) -> int:
    """Each is counted from the anchor, so that the 31st comes back after a shorter month."""
    if not number:
        return _us(first)
    if period.unit in _DAYS:
        days = number * period.count * _DAYS[period.unit]
        return _us(first + timedelta(days=days))
    month = first.year * 12 + first.month - 1 + number * period.count * _MONTHS[period.unit]
    year, month0 = divmod(month, 12)
    # Both raise where the calendar ends.
    day = min(first.day, calendar.monthrange(year, month0 + 1)[1])
    return _us(first.replace(year=year, month=month0 + 1, day=day, fold=0))


def _us(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


# There are a few hundred names, and what is no name is not kept.
@cache
def _zone(name: str) -> tzinfo:
    # Not every machine has the database, which UTC does not need.
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, TypeError, ValueError):
        raise QuotaError(f"there is no time zone {name!r}: {_remedy(str(name))}") from None


@lru_cache(64)
def _remedy(name: str) -> str:
    zones = available_timezones()
    if not zones:
        return "this machine has no database of them: install the package tzdata"
    near = get_close_matches(name, sorted(zones), 1, 0.6)
    return f"did you mean {near[0]!r}?" if near else "write a name like 'Europe/Berlin'"
