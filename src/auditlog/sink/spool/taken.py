"""What the spool hands out: rows to be written, and word of rows that are lost."""

from dataclasses import dataclass, field
from typing import NamedTuple

from auditlog.sink.spool.segment import Segment


class Piece(NamedTuple):
    """Part of a segment."""

    segment: Segment
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Stretch:
    """Rows that were handed out together, and where they stand."""

    since: float
    """When the oldest of them came, as `time.monotonic` tells it."""
    pieces: list[Piece] = field(default_factory=list)
    next_number: int = 0
    rows: int = 0
    settled: int = 0
    valid: bool = True
    """False: put back, so that this handing out counts no more."""

    @property
    def is_done(self) -> bool:
        """Whether all of it is settled."""
        return self.settled >= self.rows

    @property
    def size(self) -> int:
        """How many bytes of segments."""
        return sum(piece.end - piece.start for piece in self.pieces)

    def again(self) -> "Stretch":
        """Return the same for another handing out."""
        return Stretch(self.since, self.pieces, self.next_number, self.rows)


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
    stretch: Stretch
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
