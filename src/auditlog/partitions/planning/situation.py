"""What all parts of a plan are made from: the state, what is wanted, and whether clocks agree."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from auditlog.partitions.model import (
    Finding,
    Foreign,
    Leaf,
    Operation,
    Retirement,
    Step,
    TableConfig,
    TableState,
)
from auditlog.partitions.planning.ranges import Range, as_range
from auditlog.partitions.spans import Span

DEFAULT_AHEAD = Span(months=3)
"""As in logstore.partitioning: four months are enough for an operator to come back from leave."""
MAX_SKEW = timedelta(hours=1)
MAX_SILENCE = timedelta(days=180)
"""After that, nobody can tell whether maintenance was away or all clocks have jumped."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a plan."""

    operations: tuple[Operation, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """One table at one instant, and what is wanted of it."""

    state: TableState
    config: TableConfig
    host_now: datetime

    @property
    def now(self) -> datetime:
        """The server's clock, by which everything goes."""
        return self.state.now

    @property
    def step(self) -> Step | None:
        """How long a partition that is made is to be; None: nobody ever said."""
        return self.config.by or self.state.step

    @property
    def horizon(self) -> datetime:
        """Until when there are to be partitions."""
        return (self.config.ahead or self.state.ahead or DEFAULT_AHEAD).after(self.now)

    @property
    def clock_jump(self) -> str | None:
        """Why the server's clock cannot be trusted with what is old enough to go; None: it can."""
        if abs(self.host_now - self.now) > MAX_SKEW:
            return f"this machine's clock says {self.host_now:%Y-%m-%d %H:%M} UTC"
        last = self.state.maintained_at
        if last is None or self.config.trust_clock or timedelta(0) <= self.now - last < MAX_SILENCE:
            return None
        return f"the last run ended at {last:%Y-%m-%d %H:%M} UTC"

    @property
    def children(self) -> tuple[Leaf | Foreign, ...]:
        """Everything that has a range."""
        return (*self.state.leaves, *self.state.foreign)

    @property
    def attached(self) -> Iterator[Range]:
        """Ranges that rows find a partition for."""
        for each in self.children:
            if not each.is_detaching:
                yield as_range(each.lower, each.upper)

    @property
    def taken(self) -> Iterator[Range]:
        """Ranges that nothing else is to be attached for.

        What is being detached and still ought to take rows is finalised first, and then replaced.
        """
        for each in self.children:
            is_leaving = isinstance(each, Leaf) and each.is_detaching and each.upper > self.now
            if not is_leaving:
                yield as_range(each.lower, each.upper)

    @property
    def can_detach(self) -> bool:
        """Tell whether PostgreSQL would: one that is being detached keeps all others attached."""
        return not any(each.is_detaching for each in self.state.foreign)

    @property
    def unfinished(self) -> list[Retirement]:
        """Retirements of whole partitions that earlier runs began."""
        return [
            each
            for each in self.state.retirements
            if each.retirement_id is not None and each.instance_id is None
        ]

    @property
    def renumbered(self) -> list[Retirement]:
        """Those of them whose partition has another identity here: a dump was restored."""
        names = {leaf.name for leaf in self.state.leaves}
        names |= {each.partition for each in self.state.retirements if each.exists}
        return [each for each in self.unfinished if not each.exists and each.partition in names]

    @property
    def closed(self) -> list[Leaf]:
        """Leaves that can go, the oldest first: rows come no more, and one remains."""
        return [
            leaf
            for leaf in self.state.leaves[:-1]
            if leaf.upper <= self.now and not leaf.is_detaching
        ]
