"""What the spool hands out: rows to be written, and word of rows that are lost."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditlog.sink.spool.backlog import Stretch


@dataclass(slots=True)
class Taken:
    """Rows that were handed out, until they are settled."""

    rows: list[list[bytes]]
    """Tuples by table, in the order of `TABLES`."""
    lane: str
    own: bool
    """Of this process's lane; else of one whose owner is dead."""
    size: int
    """How many rows."""
    stretch: "Stretch"
    """Where they stand; the spool's own."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that were in the spool and cannot be read."""

    count: int
    first_us: int | None
    """`log_date` of the last good record before them, in microseconds since 1970."""
    last_us: int | None
    """Likewise of the first good record behind them."""
    lane: str
    own: bool
    """Of this process's lane; else of one whose owner is dead."""
    exact: bool = True
    """False: at least so many; behind them nothing is left that tells."""
