"""Bounds of a partition, from the text that PostgreSQL prints of them.

The offset is read from the text, so the session's time zone does not matter; its DateStyle must be
ISO. An end that Python's dates cannot be becomes one that is farther out: a range may look wider
than it is, so that nobody reaches into it, and never narrower.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

_RANGE = re.compile(r"FOR VALUES FROM \(([^,]*)\) TO \(([^,]*)\)")
_INSTANT = re.compile(r"'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?[+-]\d[\d:]+)'", re.ASCII)
_EARLIER = re.compile(r"MINVALUE|'-infinity'|'\d{4,}-[^']+ BC'", re.ASCII)
_LATER = re.compile(r"MAXVALUE|'infinity'|'\d{5,}-[^']+'", re.ASCII)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of instants in UTC."""

    lower: datetime | None
    """None: -infinity."""
    upper: datetime | None
    """None: infinity."""
    why_not: str | None = None
    """Why no partition of this package has such bounds; None: one can have."""


def parse(text: str | None) -> Bounds:
    """Read what `pg_get_expr(relpartbound, 0)` returns for a partition; it never raises."""
    match = _RANGE.fullmatch(text or "")
    if match is None:
        return Bounds(None, None, f"its bounds are {text or 'none'}")
    try:
        lower, upper = _instant(match[1], None, _LAST), _instant(match[2], _FIRST, None)
    except (ValueError, OverflowError):
        return Bounds(None, None, f"its bounds cannot be read: {text}")
    return Bounds(lower, upper, _objection(match[1], match[2]))


def _instant(text: str, if_earlier: datetime | None, if_later: datetime | None) -> datetime | None:
    """Return an end; two others stand for what comes before and after Python's dates."""
    if _EARLIER.fullmatch(text):
        return if_earlier
    if _LATER.fullmatch(text):
        return if_later
    if match := _INSTANT.fullmatch(text):
        return datetime.fromisoformat(match[1]).astimezone(UTC)
    raise ValueError(text)


def _objection(lower: str, upper: str) -> str | None:
    if not _INSTANT.fullmatch(lower) and lower != "'-infinity'":
        return f"its lower bound is {lower}"
    if not _INSTANT.fullmatch(upper):
        return f"its upper bound is {upper}"
    return None
