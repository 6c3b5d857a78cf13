"""Lengths of time as they are typed and as they are shown."""

from datetime import timedelta

import pytest
import typer

from auditlog.cli.durations import LONGEST, duration, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        (" 0s ", timedelta(0)),
        ("36500d", LONGEST),
    ],
)
def test_number_and_unit_are_read(text: str, expected: timedelta) -> None:
    """Whole numbers of one unit."""
    assert duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1.5h", "-1s", "5 s", "1h30m", "5S", "5min", "٣s", "1e3s", "5s\n5s"]
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    """A number without a unit is a guess that nobody should have to make."""
    with pytest.raises(typer.BadParameter, match="90s, 15m, 24h, 7d"):
        duration(text)


@pytest.mark.parametrize("text", ["36501d", "9999999999d", "9999999999s"])
def test_more_than_a_database_can_subtract_is_refused(text: str) -> None:
    """Here, and not as an error of the server."""
    with pytest.raises(typer.BadParameter, match="at most 36500d"):
        duration(text)


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=900), "0s"),
        (timedelta(milliseconds=-900), "0s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=125), "2m 5s"),
        (timedelta(hours=24), "1d"),
        (timedelta(days=3, hours=4, minutes=5), "3d 4h"),
        (timedelta(seconds=-125), "-2m 5s"),
    ],
)
def test_two_largest_units_are_shown(length: timedelta, expected: str) -> None:
    """Enough for people; machines get seconds."""
    assert shown(length) == expected
