"""Sizes in bytes as people write them: `500 GB`, with PostgreSQL's units, each 1024 of the last."""

import re

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_KILO = 1024
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?) ?([kmgtp]?)i?b", re.ASCII | re.IGNORECASE)
_POWERS = {letter: power for power, letter in enumerate(("", "k", "m", "g", "t", "p"))}


def parse(text: str) -> int:
    """Read a number with its unit: kB, MB, GB, TB or PB.

    Raises:
        ValueError: anything else, with an example of what would do.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _KILO ** _POWERS[match[2].lower()]) if match else 0
    if not size:
        raise ValueError(f"{text!r} is no size: write 500 GB, 1.5 TB")
    return size


def shown(size: float) -> str:
    """Return a size in the largest unit that leaves at least one."""
    unit = 0
    while size >= _KILO and unit < len(_UNITS) - 1:
        size, unit = size / _KILO, unit + 1
    return f"{size:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"
