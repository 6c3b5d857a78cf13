"""The words of partitioning: what there is, what is wanted, what is to be done, what was done.

Pure data, no connection. Instants are aware datetimes in UTC; a lower bound of None is
`-infinity`. Bounds include the lower end and exclude the upper, as PostgreSQL's do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from auditlog.partitions.spans import Span

Step: TypeAlias = Literal["day", "week", "month"]
ArchiveFormat: TypeAlias = Literal["copy", "csv", "parquet"]

_A_WEEK = Span(days=7)

OperationKind: TypeAlias = Literal[
    "finalize",  # end a DETACH CONCURRENTLY that was interrupted
    "heal",  # make a normal partition of a DEFAULT that holds rows
    "create",
    "repair",  # grants, guards, row security, indexes that a partition lacks
    "delete",  # rows of one tenant, in batches, out of a partition that is closed
    "detach",
    "archive",
    "drop",
    "attach",  # put back a partition that was detached, and is held since
    "analyze",
]

Severity: TypeAlias = Literal["note", "drift", "human"]


@dataclass(frozen=True, slots=True)
class TableConfig:
    """What is wanted of one table."""

    table: str
    by: Step | None = None
    """None: as the table was enabled."""
    ahead: Span | None = None
    """None: likewise."""
    retain: Span | None = None
    """Older partitions are retired; None: none for their age."""
    retain_bytes: int | None = None
    """The oldest are retired until the rest has no more bytes; None: none for their size."""
    min_retain: Span = _A_WEEK
    """Nothing younger is retired or deleted, whatever the rest says: a typing error costs less."""
    tenants: Mapping[str, Span] = field(default_factory=dict)
    """Tenants whose rows are kept for less long."""
    archive: str | None = None
    """Folder or URL that partitions go to before they are dropped."""
    archive_format: ArchiveFormat = "copy"
    drop_without_archive: bool = False
    """Without it a retention needs an `archive`."""
    max_retire: int = 3
    """Partitions that one run retires: a clock that jumps does not empty a table."""
    trust_clock: bool = False
    """Somebody has looked: the clocks are right, however long ago the last run was."""
    lock_timeout_s: float = 1.5
    """Longer than the server's deadlock_timeout, or autovacuum is never cancelled."""

    def cutoff(self, now: datetime) -> datetime | None:
        """Return the instant below which everything is old enough to go; None: nothing ever."""
        return self._not_too_young(self.retain, now) if self.retain else None

    def tenant_cutoff(self, tenant: str, now: datetime) -> datetime:
        """Return the same for the rows of one of `tenants`."""
        return self._not_too_young(self.tenants[tenant], now)

    def _not_too_young(self, span: Span, now: datetime) -> datetime:
        return min(span.before(now), self.min_retain.before(now))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A partition that this package made or took over, with bounds that it can read."""

    name: str
    oid: int
    lower: datetime | None
    upper: datetime
    size_bytes: int
    rows: int
    """The planner's estimate; -1: none yet."""
    is_detaching: bool = False
    """A DETACH CONCURRENTLY was begun and has not ended."""
    drift: tuple[str, ...] = ()
    """What it lacks of its parent: `guard`, `owner`, `grants`, `row security`, `index NAME`."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something attached that is reported and never touched."""

    name: str
    oid: int
    why: str
    lower: datetime | None = None
    upper: datetime | None = None
    """As far as they can be read; both None: not at all. Its range is nobody else's."""
    is_detaching: bool = False


@dataclass(frozen=True, slots=True)
class Default:
    """A DEFAULT partition; this package makes none."""

    name: str
    oid: int
    size_bytes: int
    rows: int | None
    """Counted up to a limit; None: may not be read."""
    first: datetime | None = None
    last: datetime | None = None
    """Of its rows' `log_date`; None: no rows, or outside of what Python's dates can be."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold that was not released."""

    hold_id: str
    table: str | None
    instance_id: str | None
    start: datetime | None
    """None: since ever."""
    end: datetime | None
    """None: for ever."""
    reason: str

    def covers(self, table: str, lower: datetime | None, upper: datetime | None) -> bool:
        """Tell whether rows of that table in that range may be held."""
        return (
            self.table in (None, table)
            and (self.start is None or upper is None or self.start < upper)
            and (self.end is None or lower is None or self.end > lower)
        )


@dataclass(frozen=True, slots=True)
class Retirement:
    """A retirement that is not over, or a detached partition with our mark and no entry."""

    retirement_id: str | None
    partition: str
    oid: int
    lower: datetime | None
    upper: datetime
    state: Literal["detaching", "detached", "archived", "deleting"]
    is_attached: bool
    exists: bool
    """Is there still a table of that identity?"""
    instance_id: str | None = None
    archive_uri: str | None = None


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session whose old transaction a step would wait for."""

    pid: int
    relation: str
    application: str
    user: str
    age: timedelta
    query: str
    """Its first words, no literal of it."""


@dataclass(frozen=True, slots=True)
class TableState:
    """One table, as the catalog has it at one instant."""

    table: str
    oid: int
    is_partitioned: bool
    now: datetime
    """The server's clock."""
    step: Step | None = None
    ahead: Span | None = None
    leaves: tuple[Leaf, ...] = ()
    """In the order of their bounds."""
    foreign: tuple[Foreign, ...] = ()
    default: Default | None = None
    retirements: tuple[Retirement, ...] = ()
    taken_names: Mapping[str, str] = field(default_factory=dict)
    """Names that partitions would have, and what has them: `table`, `foreign table`, ..."""
    holds: tuple[Hold, ...] = ()
    tenants_present: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Partition → those of the configured tenants that have rows in it."""
    blockers: tuple[Blocker, ...] = ()
    retired_until: datetime | None = None
    """Upper bound of what retention has taken: nothing is made below it."""
    maintained_at: datetime | None = None
    standing_down: str | None = None
    """Why nothing is to be done here at all, such as an extension that has the table."""
    locks_needed: int = 0
    """By a query without a date: the partitions and their indexes."""
    locks_available: int = 0
    connections: int = 0
    """Of clients, to this database, at that instant."""
    size_bytes: int = 0
    is_analyzed: bool = True
    """Has the table itself statistics? Autovacuum makes none for a partitioned table."""
    deadlock_timeout_s: float = 1.0
    """The server's: who waits less long for a lock never makes autovacuum give way."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """What this role could not read, and what would help: the plan is then without it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a plan: one transaction, or one of the kinds that cannot be in one."""

    kind: OperationKind
    table: str
    partition: str
    why: str
    lower: datetime | None = None
    upper: datetime | None = None
    oid: int | None = None
    """Of the partition; it must be the same when the step is made."""
    tenant: str | None = None
    before: datetime | None = None
    """Of `delete`: rows with an older `log_date` go."""
    retirement_id: str | None = None
    """Of a retirement that an earlier run began."""
    rows: int | None = None
    """About how many it is about, where that is known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know of."""

    code: str
    severity: Severity
    """`note`: as it should be. `drift`: the next run mends it. `human`: somebody has to."""
    detail: str
    remedy: str = ""
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run will do with one table, and what it will leave to people."""

    table: str
    at: datetime
    operations: tuple[Operation, ...]
    findings: tuple[Finding, ...]
    covered_until: datetime | None
    """Rows have a partition up to then, from now on; None: not even now, or not partitioned."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step."""

    operation: Operation
    result: Literal["done", "already", "refused", "waiting", "failed"]
    """`already`: somebody else had done it. `refused`: it is not what was planned for any more.
    `waiting`: a lock was not to be had, the next run tries again."""
    detail: str = ""
    seconds: float = 0.0
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class TableReport:
    """What one run did with one table."""

    table: str
    plan: Plan | None
    outcomes: tuple[Outcome, ...] = ()
    covered_until: datetime | None = None
    """Afterwards."""
    error: str | None = None
    """What kept the table from being looked at, or ended its run."""
    is_busy: bool = False
    """Another run has it."""
