"""How the partitions of each table are: what there is, what is wrong, for how long it will do.

Reads the catalog and settings, changes nothing, and takes no lock on the tables. What the next run
would do is part of it, for that is what is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import scalar_row

from auditlog.errors import PartitionError
from auditlog.partitions.applying import why
from auditlog.partitions.model import (
    Finding,
    Foreign,
    Leaf,
    Plan,
    Retirement,
    TableConfig,
    TableState,
)
from auditlog.partitions.planning import DEFAULT_AHEAD, plan
from auditlog.partitions.planning.ranges import as_range
from auditlog.partitions.planning.ranges import gaps as ranges_between
from auditlog.partitions.reading.catalog import read
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.statements import statement
from auditlog.tables import TABLES

_NONE = timedelta(0)


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table: what was seen, and what the next run would do."""

    table: str
    state: TableState | None = None
    plan: Plan | None = None
    ahead: Span | None = None
    """For how long there are to be partitions."""
    error: str | None = None
    """What kept the table from being looked at; the rest is None then."""

    @property
    def covered_until(self) -> datetime | None:
        """Rows have a partition from now until then; None: not even now."""
        return self.plan.covered_until if self.plan else None

    @property
    def runway(self) -> timedelta:
        """How long rows will find a partition, if nobody makes any."""
        if self.state is None or self.covered_until is None:
            return _NONE
        return max(self.covered_until - self.state.now, _NONE)

    @property
    def is_runway_short(self) -> bool:
        """Tell whether it is less than half of what is wanted: maintenance does not run."""
        if self.state is None or not self.state.is_partitioned or self.ahead is None:
            return False
        wanted = self.ahead.after(self.state.now) - self.state.now
        return self.runway < wanted / 2

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a person should know of."""
        return self.plan.findings if self.plan else ()

    @property
    def needs_somebody(self) -> bool:
        """Tell whether the next run will not mend everything by itself."""
        is_found = any(finding.severity == "human" for finding in self.findings)
        return self.error is not None or self.is_runway_short or is_found

    @property
    def pending(self) -> list[Leaf]:
        """Partitions whose detach was begun and has not ended."""
        return [leaf for leaf in self.state.leaves if leaf.is_detaching] if self.state else []

    @property
    def orphans(self) -> list[Retirement]:
        """Partitions that have left their table and still exist."""
        retirements = self.state.retirements if self.state else ()
        return [each for each in retirements if each.exists and not each.is_attached]


def status(
    dsn: str, configs: Mapping[str, TableConfig], *, host_now: datetime | None = None
) -> list[TableStatus]:
    """Look at tables, one after the other; that one cannot be read hides no other.

    Args:
        dsn: Of the primary, as an owner of the tables.
        configs: What is wanted of each.
        host_now: This machine's clock; None: now.

    Raises:
        PartitionError: the DSN leads to a standby, or through a pooler.
        psycopg.Error: nothing answers, or the connection was lost.
    """
    now = host_now or datetime.now(UTC)
    with maintenance(dsn) as conn:
        return [_looked_at(conn, config, now) for config in configs.values()]


def partitioned(conn: Connection[Any]) -> list[str]:
    """Return which of `TABLES` are partitioned, or left half-way there, in their order.

    Raises:
        psycopg.Error: the schema is missing.
    """
    names = [table.name for table in TABLES]
    with conn.cursor(row_factory=scalar_row) as cursor:
        found = set(cursor.execute(statement("partitioned"), [names]))
    return [name for name in names if name in found]


def gaps(state: TableState) -> list[tuple[datetime, datetime]]:
    """Return the ranges between the first partition and the last that none of them covers."""
    parts: list[Leaf | Foreign] = [*state.leaves, *state.foreign]
    taken = [as_range(each.lower, each.upper) for each in parts if each.upper is not None]
    if not taken:
        return []
    return list(ranges_between(taken, min(taken)[0], max(upper for _, upper in taken)))


def _looked_at(conn: Connection[Any], config: TableConfig, host_now: datetime) -> TableStatus:
    try:
        state = read(conn, config)
        planned = plan(state, config, host_now=host_now)
    except (psycopg.Error, PartitionError) as error:
        if conn.broken:
            raise
        return TableStatus(config.table, error=why(conn, config.table, error))
    ahead = config.ahead or state.ahead or DEFAULT_AHEAD
    return TableStatus(config.table, state, planned, ahead)
