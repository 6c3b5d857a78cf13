"""What a person should know of a partitioned table, whatever a run is going to do with it."""

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from auditlog.partitions.model import Finding, Severity, Step
from auditlog.partitions.planning.ranges import covered_until
from auditlog.partitions.planning.situation import MAX_SKEW, Situation
from auditlog.partitions.planning.wording import listed, shown
from auditlog.partitions.windows import MARK, name

ESSENTIAL = frozenset({"partitioning", "holds", "retirements"})
"""What no plan can do without."""
FEW_QUERIES = 4
"""As many queries without a date at once are to find their locks: what comes then fails, whatever
it is (53200)."""


def observe(situation: Situation) -> list[Finding]:
    """Return what is to be said, the most urgent first."""
    return [finding for look in _LOOKS for finding in look(situation)]


def unread(unread: Mapping[str, str]) -> Iterator[Finding]:
    """Say what could not be read; a size is only less exact then."""
    for what, remedy in unread.items():
        severity: Severity = "note" if what == "sizes" else "human"
        yield Finding("unread", severity, f"{what} could not be read", remedy)


def _clock(situation: Situation) -> Iterator[Finding]:
    if jump := situation.clock_jump:
        yield Finding(
            "clock",
            "human",
            f"the server's clock says {shown(situation.now)} UTC, and {jump}: nothing is detached"
            " or deleted",
            f"set the clocks to within {MAX_SKEW.total_seconds() / 3600:.0f} h of each other, by"
            " NTP; if they are right, and it is the last run that was long ago or at a wrong time,"
            " run `auditlog partitions maintain --trust-clock` once",
        )


def _runway(situation: Situation) -> Iterator[Finding]:
    now, until = situation.now, covered_until(situation.attached, situation.now)
    if until is None:
        yield Finding(
            "runway",
            "drift",
            "rows of today have no partition: none is stored",
            "the next run makes one; see that maintenance is scheduled",
        )
    elif until - now < (situation.horizon - now) / 2:
        yield Finding(
            "runway",
            "drift",
            f"there are partitions until {shown(until)}, less than half of the time ahead",
            "the next run makes more; see that maintenance is scheduled and does not fail",
        )


def _pending(situation: Situation) -> Iterator[Finding]:
    for leaf in situation.state.leaves:
        if leaf.is_detaching:
            yield Finding(
                "pending_detach",
                "drift",
                f"the detach of {leaf.name} was interrupted: its rows are out of sight",
                "the next run ends it",
                leaf.name,
            )
    for foreign in situation.state.foreign:
        if foreign.is_detaching:
            yield Finding(
                "pending_detach",
                "human",
                f"somebody's detach of {foreign.name} was interrupted: nothing can be detached",
                f"ALTER TABLE logstore.{situation.state.table} DETACH PARTITION {foreign.name}"
                " FINALIZE",
                foreign.name,
            )


def _orphans(situation: Situation) -> Iterator[Finding]:
    table = situation.state.table
    told = {each.partition for each in situation.renumbered}
    for entry in situation.state.retirements:
        if entry.retirement_id is None and entry.partition not in told:
            yield Finding(
                "orphan",
                "human",
                f"{entry.partition} was a partition of {table}, and is none any more: no run of"
                " maintenance detached it, and nobody sees its rows",
                f"ALTER TABLE logstore.{table} ATTACH PARTITION logstore.{entry.partition} FOR"
                " VALUES FROM (...) TO (...), or drop it once its rows are kept elsewhere",
                entry.partition,
            )


def _foreign(situation: Situation) -> Iterator[Finding]:
    table = situation.state.table
    names: dict[tuple[str, bool], list[str]] = {}
    for foreign in situation.state.foreign:
        own_names = [name(table, step, foreign.lower) for step in get_args(Step)]
        is_like_ours = foreign.name in own_names
        names.setdefault((foreign.why, is_like_ours), []).append(foreign.name)
    for (why, is_like_ours), several in names.items():
        yield Finding(
            "foreign",
            "human" if is_like_ours else "note",
            f"{listed(several)} is none of ours and is left alone: {why}",
            f"if it was made by this package: COMMENT ON TABLE ... IS '{MARK}{table}'"
            if is_like_ours
            else "nothing, if that is meant; retention does not take it",
            several[0] if len(several) == 1 else None,
        )


def _drift(situation: Situation) -> Iterator[Finding]:
    for leaf in situation.state.leaves:
        if leaf.drift:
            yield Finding(
                "drift",
                "drift",
                f"{leaf.name} lacks what its table has: {', '.join(leaf.drift)}",
                "the next run adds it",
                leaf.name,
            )


def _locks(situation: Situation) -> Iterator[Finding]:
    state = situation.state
    if not state.locks_needed or not state.locks_available:
        return
    queries = state.locks_available // state.locks_needed
    if queries < max(FEW_QUERIES, state.connections):
        yield Finding(
            "locks",
            "human" if queries < FEW_QUERIES else "note",
            f"a query without a date takes {state.locks_needed} locks, so {queries} at once find"
            f" theirs, and {state.connections} clients are connected",
            "make longer partitions, keep fewer, or raise max_locks_per_transaction",
        )


def _lock_timeout(situation: Situation) -> Iterator[Finding]:
    wait, needed = situation.config.lock_timeout_s, situation.state.deadlock_timeout_s
    if wait <= needed:
        yield Finding(
            "lock_timeout",
            "note",
            f"lock_timeout = {wait:g} s is not longer than the server's deadlock_timeout,"
            f" {needed:g} s: an autovacuum that is at work is never made to give way",
            f"set lock_timeout to {needed + 0.5:g} s",
        )


def _blockers(situation: Situation) -> Iterator[Finding]:
    for each in situation.state.blockers:
        yield Finding(
            "blocker",
            "note",
            f"process {each.pid} ({each.application or each.user}) has had a lock on"
            f" {each.relation} for {each.age.total_seconds():.0f} s: {each.query}",
            "steps that need a lock there wait for it, each no longer than its lock_timeout",
            each.relation,
        )


_LOOKS: tuple[Callable[[Situation], Iterator[Finding]], ...] = (
    _clock,
    _runway,
    _pending,
    _orphans,
    _drift,
    _locks,
    _lock_timeout,
    _foreign,
    _blockers,
)
