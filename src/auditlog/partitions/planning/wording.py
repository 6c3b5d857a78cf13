"""How a plan speaks of instants and names."""

from collections.abc import Sequence
from datetime import datetime

from auditlog.partitions.planning.ranges import FIRST

_NAMED = 3


def shown(instant: datetime | None) -> str:
    """Show an instant in UTC: as a day, unless it lies within one."""
    if instant is None or instant == FIRST:
        return "-infinity"
    return instant.strftime("%Y-%m-%d %H:%M:%S").removesuffix(" 00:00:00")


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    first = ", ".join(names[:_NAMED])
    return first if len(names) <= _NAMED else f"{first} and {len(names) - _NAMED} more"
