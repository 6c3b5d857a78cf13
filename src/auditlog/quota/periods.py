"""Periods: how long one is, and where the one that an instant lies in begins and ends. Pure."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Period:
    """A number of minutes, hours, days, weeks, months or years."""

    count: int
    unit: str


def parse(text: str) -> Period:
    """Read it."""
    raise NotImplementedError


def bounds(period: Period, at_us: int, anchor: datetime | None, time_zone: str) -> tuple[int, int]:
    """Return the first instant of the period and the first one after it."""
    raise NotImplementedError


def fixed_us(period: Period) -> int:
    """Return the length of one that is not of the calendar."""
    raise NotImplementedError


def check_zone(name: str) -> None:
    """See that there is such a time zone."""
    raise NotImplementedError
