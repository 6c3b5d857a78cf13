from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.partitions.spans import Span, parse

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("24 months", Span(months=24)),
        ("1 month", Span(months=1)),
        ("7 years", Span(months=84)),
        ("1y", Span(months=12)),
        ("3mon", Span(months=3)),
        ("90 days", Span(days=90)),
        ("90d", Span(days=90)),
        ("26 Weeks", Span(days=182)),
        (" 2w ", Span(days=14)),
        ("99999 days", Span(days=99_999)),
    ],
)
def test_lengths_are_read_with_their_unit(text: str, span: Span) -> None:
    """Months stay months: a year is twelve of them, and no number of days."""
    assert parse(text) == span


@pytest.mark.parametrize(
    "text",
    ["", "90", "0 days", "-1 days", "1.5 months", "3 m", "3 min", "100000 days", "٣ days", "P3M"],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """`m` might be minutes, and a length of nothing would retire everything."""
    with pytest.raises(ValueError, match="write 90 days, 26 weeks, 24 months, 7 years"):
        parse(text)


@given(
    st.builds(Span, months=st.integers(1, 99_999)) | st.builds(Span, days=st.integers(1, 99_999))
)
def test_shown_length_is_read_as_the_same(span: Span) -> None:
    """What a report says can be copied into a settings file."""
    assert parse(str(span)) == span


@pytest.mark.parametrize(
    ("span", "instant", "before", "after"),
    [
        (Span(months=1), "2024-03-31", "2024-02-29", "2024-04-30"),
        (Span(months=1), "2023-03-31", "2023-02-28", "2023-04-30"),
        (Span(months=12), "2024-02-29", "2023-02-28", "2025-02-28"),
        (Span(months=1), "2026-01-15", "2025-12-15", "2026-02-15"),
        (Span(days=1), "2026-03-01", "2026-02-28", "2026-03-02"),
        (Span(days=90), "2026-03-29", "2025-12-29", "2026-06-27"),
    ],
)
def test_months_are_counted_in_the_calendar(
    span: Span, instant: str, before: str, after: str
) -> None:
    """To the last day of a month that has fewer."""
    start = datetime.fromisoformat(instant).replace(tzinfo=UTC)
    assert span.before(start) == datetime.fromisoformat(before).replace(tzinfo=UTC)
    assert span.after(start) == datetime.fromisoformat(after).replace(tzinfo=UTC)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.builds(Span, months=st.integers(0, 99_999), days=st.integers(0, 99_999)),
)
def test_nothing_lies_outside_of_the_calendar(instant: datetime, span: Span) -> None:
    """The first and the last instant that there are stand for what would."""
    assert FIRST <= span.before(instant) <= instant <= span.after(instant) <= LAST
