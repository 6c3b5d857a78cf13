"""Ranges of instants that a table's partitions take up, and what is between them.

A range includes its lower end and excludes the upper one; -infinity and infinity are the ends of
Python's calendar here.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeAlias

Range: TypeAlias = tuple[datetime, datetime]

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def as_range(lower: datetime | None, upper: datetime | None) -> Range:
    """Return the range of bounds that may be open."""
    return lower or FIRST, upper or LAST


def is_free(wanted: Range, taken: Iterable[Range]) -> bool:
    """Tell whether a range overlaps none of others."""
    lower, upper = wanted
    return not any(lower < end and start < upper for start, end in taken)


def gaps(taken: Iterable[Range], start: datetime, end: datetime) -> Iterator[Range]:
    """Yield what is free between two instants, in order."""
    reached = start
    for lower, upper in sorted(taken):
        if lower >= end:
            break
        if lower > reached:
            yield reached, lower
        reached = max(reached, upper)
    if reached < end:
        yield reached, end


def covered_until(taken: Iterable[Range], start: datetime) -> datetime | None:
    """Return how far ranges reach from an instant on without a gap; None: it is in none."""
    reached = start
    for lower, upper in sorted(taken):
        if lower > reached:
            break
        reached = max(reached, upper)
    return reached if reached > start else None
