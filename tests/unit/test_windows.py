from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.partitions.windows import name, window, windows

STEPS = ("day", "week", "month")
INSTANTS = st.datetimes(timezones=st.just(UTC)).filter(lambda instant: 1 < instant.year < 9998)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("step", "instant", "lower", "upper"),
    [
        ("day", "2024-02-29T23:59:59.999999", "2024-02-29", "2024-03-01"),
        ("day", "2024-02-29", "2024-02-29", "2024-03-01"),
        ("month", "2024-02-29T12:00", "2024-02-01", "2024-03-01"),
        ("month", "2023-02-28T12:00", "2023-02-01", "2023-03-01"),
        ("month", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        ("month", "2100-02-28T12:00", "2100-02-01", "2100-03-01"),
        ("week", "2026-11-29T23:59", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-30", "2026-11-30", "2026-12-07"),
        ("week", "2027-01-03T12:00", "2026-12-28", "2027-01-04"),
        ("day", "2026-03-29T01:30", "2026-03-29", "2026-03-30"),
    ],
)
def test_window_is_that_of_the_calendar(step: str, instant: str, lower: str, upper: str) -> None:
    """Leap days, ends of years, Mondays; nothing happens when clocks are put forward."""
    assert window(step, _utc(instant)) == (_utc(lower), _utc(upper))


@pytest.mark.parametrize(
    ("step", "lower", "expected"),
    [
        ("month", "2026-12-01", "logs_p202612"),
        ("month", "0999-01-01", "logs_p099901"),
        ("week", "2026-11-30", "logs_p2026w49"),
        ("week", "2026-12-28", "logs_p2026w53"),
        ("week", "2029-12-31", "logs_p2030w01"),
        ("week", "2024-12-30", "logs_p2025w01"),
        ("day", "2026-12-03", "logs_p20261203"),
        ("day", "2026-12-01", "logs_p20261201"),
        ("month", "2026-12-03", "logs_p20261203"),
        ("week", "2026-12-01", "logs_p20261201"),
        ("month", "2026-12-01T12:30", "logs_p20261201t123000000000"),
    ],
)
def test_name_tells_the_window(step: str, lower: str, expected: str) -> None:
    """By the year of the ISO week; what begins elsewhere than a window is called by its day."""
    assert name("logs", step, _utc(lower)) == expected


def test_partition_without_a_beginning_is_the_legacy_one() -> None:
    """It has the rows from before the table was partitioned."""
    assert name("execution_logs", "month", None) == "execution_logs_legacy"


def test_zone_of_an_instant_does_not_matter() -> None:
    """In Kathmandu it is tomorrow already."""
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    instant = datetime(2026, 12, 1, 4, tzinfo=kathmandu)
    assert window("month", instant) == (_utc("2026-11-01"), _utc("2026-12-01"))
    assert name("logs", "day", datetime(2026, 12, 1, 5, 45, tzinfo=kathmandu)) == "logs_p20261201"


@given(st.sampled_from(STEPS), INSTANTS, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_windows_follow_each_other_without_a_gap(
    step: str, start: datetime, length: timedelta
) -> None:
    """From the window of the first instant to that of the last, and none beyond."""
    end = start + length
    found = list(windows(step, start, end))
    assert (found == []) == (start == end)
    assert all(upper == lower for (_, upper), (lower, _) in pairwise(found))
    if found:
        assert found[0] == window(step, start)
        assert found[-1][0] < end <= found[-1][1]


@given(st.sampled_from(STEPS), INSTANTS)
def test_names_of_windows_differ(step: str, instant: datetime) -> None:
    """And sort in the order of time."""
    lower, upper = window(step, instant)
    assert lower <= instant < upper
    assert name("logs", step, lower) < name("logs", step, upper)


@pytest.mark.parametrize("step", STEPS)
def test_windows_end_with_the_calendar(step: str) -> None:
    """The last one is cut off where dates end, and nothing runs for ever."""
    last = datetime.max.replace(tzinfo=UTC)
    found = list(windows(step, last - timedelta(days=3), last))
    assert found[-1][1] == last
