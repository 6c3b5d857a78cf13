"""Bounds as PostgreSQL prints them: what is read, and why the rest is none of ours."""

from datetime import UTC, datetime

import pytest

from auditlog.partitions.reading.bounds import Bounds, parse

DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
JANUARY = datetime(2027, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def bound(lower: str, upper: str) -> str:
    return f"FOR VALUES FROM ({lower}) TO ({upper})"


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("'2026-12-01 00:00:00+00'", "'2027-01-01 00:00:00+00'"),
        ("'2026-11-30 19:00:00-05'", "'2026-12-31 19:00:00-05'"),
        ("'2026-12-01 05:45:00+05:45'", "'2027-01-01 05:45:00+05:45'"),
    ],
)
def test_bounds_do_not_depend_on_the_time_zone(lower: str, upper: str) -> None:
    """The offset is part of the text."""
    assert parse(bound(lower, upper)) == Bounds(DECEMBER, JANUARY)


def test_beginning_of_time_has_no_lower_bound() -> None:
    """As the legacy partition of a conversion has it."""
    assert parse(bound("'-infinity'", "'2027-01-01 00:00:00+00'")) == Bounds(None, JANUARY)


def test_fractions_of_a_second_are_read() -> None:
    """Somebody may have cut there."""
    found = parse(bound("'2026-12-01 00:00:00.25+00'", "'2027-01-01 00:00:00+00'"))
    assert found.lower == DECEMBER.replace(microsecond=250_000)


@pytest.mark.parametrize(
    ("lower", "upper", "expected", "named"),
    [
        ("MINVALUE", "'2027-01-01 00:00:00+00'", (None, JANUARY), "MINVALUE"),
        ("'2026-12-01 00:00:00+00'", "MAXVALUE", (DECEMBER, None), "MAXVALUE"),
        ("'2026-12-01 00:00:00+00'", "'infinity'", (DECEMBER, None), "infinity"),
        ("'0044-03-15 00:00:00+00 BC'", "'2027-01-01 00:00:00+00'", (None, JANUARY), "BC"),
        ("'2026-12-01 00:00:00+00'", "'10000-01-01 00:00:00+00'", (DECEMBER, None), "10000"),
        ("'10000-01-01 00:00:00+00'", "MAXVALUE", (LAST, None), "10000"),
        ("MINVALUE", "'0044-03-15 00:00:00+00 BC'", (None, FIRST), "MINVALUE"),
        ("MINVALUE", "MAXVALUE", (None, None), "MINVALUE"),
    ],
)
def test_foreign_ends_are_never_narrower_than_they_are(
    lower: str, upper: str, expected: tuple[datetime | None, datetime | None], named: str
) -> None:
    """So that nobody makes a partition where one is already."""
    found = parse(bound(lower, upper))
    assert (found.lower, found.upper) == expected
    assert named in str(found.why_not)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "DEFAULT",
        "FOR VALUES IN ('a', 'b')",
        "FOR VALUES WITH (modulus 4, remainder 0)",
        bound("'a', '2026-12-01 00:00:00+00'", "'b', MAXVALUE"),
        bound("'01/12/2026 01:00:00 CET'", "'01/01/2027 01:00:00 CET'"),
        bound("'2026-13-01 00:00:00+00'", "'2027-01-01 00:00:00+00'"),
        bound("'0001-01-01 00:00:00+05'", "'2027-01-01 00:00:00+00'"),
    ],
)
def test_what_cannot_be_read_says_so(text: str | None) -> None:
    """Nothing is made of it, and nothing is raised."""
    found = parse(text)
    assert (found.lower, found.upper) == (None, None)
    assert str(text or "none") in str(found.why_not)
