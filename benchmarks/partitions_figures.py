"""How the benchmarks of partitions show what the rounds differ by."""

import math
from collections.abc import Iterable

from benchmarks.rounds import interval


def lies(values: Iterable[float], form: str = ".2f") -> str:
    """Show where the median lies with 95 % certainty; empty where the rounds are too few."""
    low, high = interval(values)
    return f"{low:{form}} to {high:{form}}" if math.isfinite(low) else ""
