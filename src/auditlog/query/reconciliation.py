"""What reconciling finds: the figures, and the arithmetic between them; no connection.

Instants are texts as PostgreSQL writes them in UTC: it knows some that Python does not, such as
`infinity`, and a clock that was wrong leaves them in the trail.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

LifeState: TypeAlias = Literal[
    "running", "silent", "replaced", "stopped", "unbalanced", "overdrawn"
]
KILLED: tuple[LifeState, ...] = ("silent", "replaced")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that no batch reaches across: its rows, by the ledger and by the table."""

    start: str | None
    """None: since ever, before the first batch."""
    end: str | None
    """None: without an end."""
    at_least: int
    """Rows that the ledger has within it; of batches at the border of the range, none."""
    at_most: int
    """Of batches at the border of the range, all."""
    stored: int
    retired: int = 0
    """Rows that retention took away again; of retirements at the border of the range, none."""
    retired_at_most: int = 0
    """Of those, all."""
    uncounted: int = 0
    """Retirements of which nobody knows yet how many rows they took."""

    @property
    def missing(self) -> int:
        """Rows that the ledger has and the table has not, though nothing took them away."""
        if self.uncounted:
            return 0
        return max(0, self.at_least - self.retired_at_most - self.stored)

    @property
    def unexplained(self) -> int:
        """Rows that the table has, or a retirement took, and the ledger has not."""
        return max(0, self.stored + self.retired - self.at_most)


@dataclass(frozen=True, slots=True)
class TableCount:
    """A table against the ledger, span by span: one does not make up for another."""

    table: str
    spans: tuple[Span, ...]

    @property
    def at_least(self) -> int:
        """Rows by the ledger, without the batches at the border of the range."""
        return sum(span.at_least for span in self.spans)

    @property
    def at_most(self) -> int:
        """Rows by the ledger, with all rows of those batches."""
        return sum(span.at_most for span in self.spans)

    @property
    def stored(self) -> int:
        """Rows in the table."""
        return sum(span.stored for span in self.spans)

    @property
    def retired(self) -> int:
        """Rows that retention took away again; of retirements at the border of the range, none."""
        return sum(span.retired for span in self.spans)

    @property
    def retired_at_most(self) -> int:
        """The same, with all rows of those retirements."""
        return sum(span.retired_at_most for span in self.spans)

    @property
    def uncounted(self) -> int:
        """Retirements of which nobody knows yet how many rows they took."""
        return sum(span.uncounted for span in self.spans)

    @property
    def missing(self) -> int:
        """Rows that the ledger has and the table has not, though nothing took them away."""
        return sum(span.missing for span in self.spans)

    @property
    def unexplained(self) -> int:
        """Rows that the table has, or a retirement took, and the ledger has not."""
        return sum(span.unexplained for span in self.spans)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger by itself."""

    entries: int
    first_sequence: int | None
    last_sequence: int | None
    first_committed_at: str | None
    impossible: int
    """Entries that no batch can have left."""
    holes: int
    """Numbers missing between the first and the last: rolled back batches, crashes of the server,
    or entries that somebody deleted; the ledger cannot tell them apart."""


@dataclass(frozen=True, slots=True)
class Life:
    """One life of one log in one process; `query/lives.sql` explains the states."""

    state: LifeState
    run_id: str
    tenant: str
    writer: str
    durability: str
    spool_dir: str | None
    started: str
    last_batch: str | None
    """None: it committed nothing, or somebody else with its name did."""
    figure: int
    """Of `unbalanced` and `overdrawn`: how many rows."""


@dataclass(frozen=True, slots=True)
class Lives:
    """The lives of the logs, counted, and the newest of each state that is odd."""

    counts: dict[LifeState, int]
    rows: dict[LifeState, int]
    """Of `unbalanced` and `overdrawn`: how many rows, of all lives."""
    memories_lost: int
    """Lives that were killed with records in memory: how many records, nobody knows."""
    odd: tuple[Life, ...]
    living_since: str | None
    """When the first of those began that are running; None if none is."""

    @property
    def total(self) -> int:
        """All lives in the range."""
        return sum(self.counts.values())

    @property
    def killed(self) -> int:
        """Those that ended without telling."""
        return sum(self.counts.get(state, 0) for state in KILLED)


@dataclass(frozen=True, slots=True)
class GapSum:
    """What the library told of its losses: so many records of a tenant, for a reason."""

    tenant: str
    reason: str
    count: int
    exact: bool
    """False: at least so many."""
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Open:
    """Received rows without a complete row."""

    ended: int
    """Their process no longer lives: no log that runs had begun by then."""
    perhaps: int
    """They may be served still."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """What a spool folder holds."""

    waiting: int
    """Records that are not in the database yet, as far as the spool knows."""
    damaged: int
    """Places that cannot be read, each of a record at least."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Everything that was compared, of one instant of the database."""

    at: datetime
    since: datetime | None
    until: datetime | None
    tenant: str | None
    """Of lives, gaps and open requests; the ledger does not know tenants."""
    tables: tuple[TableCount, ...]
    ledger: Ledger
    lives: Lives
    gaps: tuple[GapSum, ...]
    open: Open
    dead_letters: int | None
    """Waiting for somebody; None: there is no such table in this schema."""
    spooled: Spooled | None = None
    """None: nobody looked there."""

    @property
    def unaccounted(self) -> int:
        """Records of which nobody can say what became of them, as far as they can be counted."""
        tables = sum(table.missing + table.unexplained for table in self.tables)
        lives = sum(self.lives.rows.values())
        damaged = self.spooled.damaged if self.spooled else 0
        return tables + lives + self.open.ended + damaged
