"""Lengths of time on the command line: `90s`, `15m`, `24h`, `7d` → and back for people."""

import re
from datetime import timedelta

import typer

LONGEST = timedelta(days=36_500)
"""A hundred years: what is longer leaves the range of the database's timestamps."""

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(\d{1,10})([smhd])", re.ASCII)


def duration(text: str) -> timedelta:
    """Read a number with its unit.

    Raises:
        typer.BadParameter: anything else, with an example of what would do.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no length of time; write a number and s, m, h or d: 90s, 15m, 24h, 7d"
        )
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > LONGEST.total_seconds():
        raise typer.BadParameter(f"{text!r} is too long; at most {LONGEST.days}d")
    return timedelta(seconds=seconds)


def shown(length: timedelta) -> str:
    """Return a length in its two largest units: `3d 4h`, `2m 5s`; of less than a second, `0s`."""
    left = int(abs(length).total_seconds())
    parts = []
    for unit, seconds in _SECONDS.items():
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count}{unit}")
    sign = "-" if parts and length < timedelta(0) else ""
    return sign + (" ".join(parts[:2]) or "0s")
