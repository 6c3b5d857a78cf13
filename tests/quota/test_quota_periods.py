"""Periods: how they are written, where they begin and end, in every time zone."""

import calendar
import subprocess
import sys
from bisect import bisect_right
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from auditlog.errors import QuotaError
from auditlog.quota.limits.periods import Period, bounds, check_zone, fixed_us, instant, parse

# Time zones are read from disk by whichever example is the first to need one.
UNTIMED = settings(deadline=None)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR_US = 3_600_000_000
# Half an hour of daylight saving, clocks changed at midnight, days left out and days that come
# twice, offsets of 45 minutes and of 44 minutes and 30 seconds, daylight saving in winter.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/Havana",
    "America/Juneau",
    "America/Sao_Paulo",
    "Africa/Monrovia",
    "Asia/Kathmandu",
    "Asia/Manila",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Kwajalein",
)
CHANGES = (
    "1844-12-31T16:00",  # Asia/Manila leaves a day out
    "1867-10-19T00:30",  # America/Juneau has one twice
    "1969-09-30T13:00",  # Pacific/Kwajalein has 23 hours twice
    "1972-01-07T00:44:30",
    "1993-08-21T12:00",  # Pacific/Kwajalein leaves a day out
    "2011-12-30T10:00",  # Pacific/Apia leaves a day out
    "2026-03-29T01:00",
    "2026-10-25T01:00",
    "2026-11-01T05:00",  # America/Havana has midnight twice
)

UNITS = ("minute", "hour", "day", "week", "month", "year")
PERIODS = st.builds(Period, st.integers(1, 40), st.sampled_from(UNITS))
CALENDAR_PERIODS = PERIODS.filter(lambda period: period.unit not in ("minute", "hour"))
ANY_TIME = st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001  # see ANCHORS
NEAR_A_CHANGE = st.builds(
    lambda text, near: datetime.fromisoformat(text) + near,
    st.sampled_from(CHANGES),
    st.timedeltas(timedelta(hours=-30), timedelta(hours=30)),
)
INSTANTS = st.one_of(ANY_TIME, NEAR_A_CHANGE).map(
    lambda at: (at.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
)
ANCHORS = st.one_of(
    st.none(),
    st.builds(
        lambda at, zone, fold: at.replace(tzinfo=zone and ZoneInfo(zone), fold=fold),
        st.one_of(ANY_TIME, NEAR_A_CHANGE),
        st.none() | st.sampled_from(ZONES),
        st.sampled_from((0, 1)),
    ),
)


def us(text: str) -> int:
    """Read an instant in UTC."""
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // MICROSECOND


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("minute", Period(1, "minute")),
        ("15 minutes", Period(15, "minute")),
        ("15min", Period(15, "minute")),
        ("hour", Period(1, "hour")),
        ("6 h", Period(6, "hour")),
        ("day", Period(1, "day")),
        ("7d", Period(7, "day")),
        (" 2 Weeks ", Period(2, "week")),
        ("1w", Period(1, "week")),
        ("month", Period(1, "month")),
        ("3mon", Period(3, "month")),
        ("1 year", Period(1, "year")),
        ("100 y", Period(100, "year")),
    ],
)
def test_periods_are_read_with_their_unit(text: str, period: Period) -> None:
    """A unit alone is one of it."""
    assert parse(text) == period


@pytest.mark.parametrize(
    "text",
    ["", "15", "0 days", "-1 days", "1.5 hours", "3 m", "second", "30 seconds", "٣ days", "P1M",
     "101 years", "99999999 minutes", "1 month 2 days", "decade", None, 5, ["month"]],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    """`m` might be minutes or months, and nothing is shorter than a minute."""
    with pytest.raises(QuotaError, match=r"is no period: (write 15 minutes, hour|it must be from)"):
        parse(text)


@UNTIMED
@given(PERIODS)
def test_shown_period_is_read_as_the_same(period: Period) -> None:
    """What a list says can be copied into a file."""
    assert parse(str(period)) == period


@pytest.mark.parametrize(
    ("period", "zone", "anchor", "at", "expected"),
    [
        ("month", "UTC", None, "2024-02-29T23:59:59.999999", ("2024-02-01", "2024-03-01")),
        ("month", "UTC", None, "2024-03-01", ("2024-03-01", "2024-04-01")),
        ("month", "UTC", "2026-01-31", "2026-01-31", ("2026-01-31", "2026-02-28")),
        ("month", "UTC", "2026-01-31", "2026-03-30T12:00", ("2026-02-28", "2026-03-31")),
        ("month", "UTC", "2026-01-31", "2026-03-31T12:00", ("2026-03-31", "2026-04-30")),
        ("month", "UTC", "2024-01-30T06:30", "2024-02-29T06:29",
         ("2024-01-30T06:30", "2024-02-29T06:30")),
        ("3 months", "UTC", None, "2026-12-31T12:00", ("2026-10-01", "2027-01-01")),
        ("year", "UTC", "2024-02-29", "2026-02-28", ("2026-02-28", "2027-02-28")),
        ("year", "UTC", "2024-02-29", "2028-02-28", ("2027-02-28", "2028-02-29")),
        ("year", "UTC", "2096-02-29", "2026-11-28", ("2026-02-28", "2027-02-28")),
        ("week", "UTC", None, "2026-11-29T23:59", ("2026-11-23", "2026-11-30")),
        ("2 weeks", "UTC", "2030-01-02", "2026-11-28", ("2026-11-25", "2026-12-09")),
        ("day", "Europe/Berlin", None, "2026-03-29T12:00",
         ("2026-03-28T23:00", "2026-03-29T22:00")),
        ("day", "Europe/Berlin", None, "2026-10-25T12:00",
         ("2026-10-24T22:00", "2026-10-25T23:00")),
        ("hour", "Europe/Berlin", None, "2026-03-29T01:59",
         ("2026-03-29T01:00", "2026-03-29T02:00")),
        ("6 hours", "Europe/Berlin", None, "2026-07-01", ("2026-06-30T23:00", "2026-07-01T05:00")),
        ("hour", "Asia/Kolkata", None, "2026-07-01", ("2026-06-30T23:30", "2026-07-01T00:30")),
        ("15 minutes", "UTC", "2026-07-01T00:10", "2026-07-01",
         ("2026-06-30T23:55", "2026-07-01T00:10")),
        ("month", "Europe/Berlin", None, "2026-03-31T21:59",
         ("2026-02-28T23:00", "2026-03-31T22:00")),
        ("day", "Europe/Berlin", "2026-01-01T01:30", "2026-03-29T01:00",
         ("2026-03-28T01:30", "2026-03-29T01:30")),
        ("day", "Pacific/Apia", None, "2011-12-30T09:59", ("2011-12-29T10:00", "2011-12-30T10:00")),
        ("day", "Pacific/Apia", None, "2011-12-30T10:00", ("2011-12-30T10:00", "2011-12-31T10:00")),
        ("day", "America/Havana", None, "2026-11-01T05:30",
         ("2026-11-01T04:00", "2026-11-02T05:00")),
        ("day", "Europe/Berlin", "2026-10-25T01:30", "2026-10-25T01:30",
         ("2026-10-25T01:30", "2026-10-26T01:30")),
        ("day", "Europe/Berlin", "2026-10-25T01:30", "2026-10-25T01:29",
         ("2026-10-24T00:30", "2026-10-25T01:30")),
        ("day", "Europe/Berlin", "2026-01-01T01:30", "2026-10-25T01:10",
         ("2026-10-25T00:30", "2026-10-26T01:30")),
        ("year", "Europe/Berlin", "2020-10-25T01:30", "2026-10-25T00:45",
         ("2026-10-25T00:30", "2027-10-25T00:30")),
        ("day", "America/Sao_Paulo", None, "2018-11-04T12:00",
         ("2018-11-04T03:00", "2018-11-05T02:00")),
    ],
)  # fmt: skip
def test_bounds_are_those_of_the_calendar(
    period: str, zone: str, anchor: str | None, at: str, expected: tuple[str, str]
) -> None:
    """Short months, leap days, anchors to come, clocks that are put forward and back."""
    first = None if anchor is None else datetime.fromisoformat(anchor).replace(tzinfo=UTC)
    assert bounds(parse(period), us(at), first, zone) == tuple(map(us, expected))


@example(Period(1, "day"), us("2011-12-30T10:00"), None, "Pacific/Apia")
@example(Period(1, "day"), us("2011-12-30T22:00"), datetime(2011, 1, 1, 12), "Pacific/Apia")  # noqa: DTZ001  # of the zone
@example(Period(1, "day"), us("1867-10-19T00:31"), None, "America/Juneau")
@UNTIMED
@given(PERIODS, INSTANTS, ANCHORS, st.sampled_from(ZONES))
def test_periods_follow_each_other_without_gap_or_overlap(
    period: Period, at_us: int, anchor: datetime | None, zone: str
) -> None:
    """So that each instant lies in exactly one, and no unit is counted twice or nowhere."""
    start, end = bounds(period, at_us, anchor, zone)
    assert start <= at_us < end
    assert bounds(period, start, anchor, zone) == (start, end)
    assert bounds(period, end - 1, anchor, zone) == (start, end)
    assert bounds(period, start - 1, anchor, zone)[1] == start
    assert bounds(period, end, anchor, zone)[0] == end


@UNTIMED
@given(PERIODS, ANCHORS.filter(bool), st.sampled_from(ZONES))
def test_a_period_begins_at_the_anchor(period: Period, anchor: datetime, zone: str) -> None:
    """To the microsecond, also where a time of day comes twice and it is the second one."""
    first = instant(anchor, zone)
    at_us = (first - EPOCH) // MICROSECOND
    assert bounds(period, at_us, anchor, zone)[0] == at_us


@UNTIMED
@given(CALENDAR_PERIODS, INSTANTS, ANCHORS.filter(bool), st.sampled_from(ZONES))
def test_bounds_are_found_as_by_trying_all(
    period: Period, at_us: int, anchor: datetime, zone: str
) -> None:
    """Counted from the anchor one after the other, which is slow, and plainly right."""
    starts = [start_us(period, number, anchor, zone) for number in near(period, at_us, anchor)]
    index = bisect_right(starts, at_us)
    assert bounds(period, at_us, anchor, zone) == (starts[index - 1], starts[index])


def near(period: Period, at_us: int, anchor: datetime) -> range:
    """Return numbers of periods of which one is certainly the right one."""
    days = (EPOCH + timedelta(microseconds=at_us) - anchor.replace(tzinfo=UTC)).days
    length = {"day": 1, "week": 7, "month": 30.436875, "year": 365.2425}[period.unit]
    number = int(days / (length * period.count))
    return range(number - 5, number + 6)


def start_us(period: Period, number: int, anchor: datetime, zone: str) -> int:
    first = instant(anchor, zone).astimezone(ZoneInfo(zone))
    count = number * period.count
    if not count:
        start = first
    elif period.unit in ("day", "week"):
        start = first + timedelta(**{f"{period.unit}s": count})
    else:
        months = first.month - 1 + count * (12 if period.unit == "year" else 1)
        year, month = first.year + months // 12, months % 12 + 1
        day = min(first.day, calendar.monthrange(year, month)[1])
        start = first.replace(year=year, month=month, day=day, fold=0)
    return (start - EPOCH) // MICROSECOND


@UNTIMED
@given(
    st.integers(1, 500), st.sampled_from(["minute", "hour"]), INSTANTS, ANCHORS,
    st.sampled_from(ZONES),
)  # fmt: skip
def test_minutes_and_hours_elapse_whatever_the_clocks_do(
    count: int, unit: str, at_us: int, anchor: datetime | None, zone: str
) -> None:
    """An hour has 60 minutes on every day of the year."""
    period = Period(count, unit)
    start, end = bounds(period, at_us, anchor, zone)
    assert end - start == fixed_us(period)


def test_a_naive_anchor_is_the_time_of_day_in_the_zone() -> None:
    """A date in a file is midnight where the quota's days are."""
    anchor = datetime(2026, 7, 15)  # noqa: DTZ001  # of the zone
    assert instant(anchor, "Europe/Berlin") == datetime(2026, 7, 14, 22, tzinfo=UTC)
    at_us = us("2026-11-28")
    start, end = bounds(parse("month"), at_us, anchor, "Europe/Berlin")
    assert (start, end) == (us("2026-11-14T23:00"), us("2026-12-14T23:00"))


@pytest.mark.parametrize(
    ("period", "zone", "anchor", "at"),
    [
        ("day", "Asia/Kathmandu", None, "0001-01-01"),
        ("day", "America/Havana", None, "9999-12-31T23:59"),
        ("month", "UTC", None, "9999-12-31T23:59"),
        ("year", "UTC", "2001-02-01", "0001-01-01"),
        ("minute", "UTC", None, "9999-12-31T23:59:30"),
        ("hour", "Asia/Kathmandu", None, "0001-01-01"),
        ("month", "America/Havana", "9999-12-31T23:59", "2026-11-28"),
        ("month", "Asia/Kathmandu", "0001-01-01", "2026-11-28"),
    ],
)
def test_ends_of_the_calendar_are_told(period: str, zone: str, anchor: str | None, at: str) -> None:
    """Rather than to stop at an instant at which no period ends."""
    first = None if anchor is None else datetime.fromisoformat(anchor)
    with pytest.raises(QuotaError, match="within the years 1 to 9999"):
        bounds(parse(period), us(at), first, zone)


@UNTIMED
@given(PERIODS, st.integers(-(2**80), 2**80), st.datetimes() | st.none(), st.sampled_from(ZONES))
def test_every_instant_has_a_period_or_is_told(
    period: Period, at_us: int, anchor: datetime | None, zone: str
) -> None:
    """There is no other error, and no bound that is no date."""
    with suppress(QuotaError):
        start, end = bounds(period, at_us, anchor, zone)
        assert EPOCH + timedelta(microseconds=start) < EPOCH + timedelta(microseconds=end)


@pytest.mark.parametrize(
    ("text", "hours"), [("minute", 1 / 60), ("90 minutes", 1.5), ("day", 24), ("2 weeks", 336)]
)
def test_fixed_lengths(text: str, hours: float) -> None:
    """Of a rolling window a day is 24 hours."""
    assert fixed_us(parse(text)) == hours * HOUR_US


@pytest.mark.parametrize(
    ("text", "better"), [("month", "30 days"), ("3 months", "90 days"), ("year", "365 days")]
)
def test_months_have_no_fixed_length(text: str, better: str) -> None:
    """The error says what can be written instead."""
    with pytest.raises(QuotaError, match=f"write {better}"):
        fixed_us(parse(text))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Berlin", "did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("Europe", "did you mean 'Europe/"),
        ("qqqqq", "write a name like 'Europe/Berlin'"),
        ("", "write a name like"),
        ("/etc/passwd", "write a name like"),
        ("../../etc/passwd", "write a name like"),
        ("a\0b", "write a name like"),
    ],
)
def test_unknown_zone_is_told_with_what_is_meant(name: str, remedy: str) -> None:
    """A directory, a path and a NUL are no names either."""
    with pytest.raises(QuotaError) as caught:
        check_zone(name)
    assert str(caught.value).startswith(f"there is no time zone {name!r}: {remedy}")


WITHOUT_ZONES = """
import sys
sys.modules["tzdata"] = None
from auditlog.quota.model import Quota
print(Quota("requests", 1).of_instant(0))
Quota("requests", 1, time_zone="Europe/Berlin")
"""


def test_machine_without_time_zones_has_utc() -> None:
    """Small containers come without the database; the error says what to install."""
    command = [sys.executable, "-c", WITHOUT_ZONES]
    done = subprocess.run(
        command, env={"PYTHONTZPATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(0, 2678400000000)\n"
    assert done.stderr.rstrip().endswith("install the package tzdata")
