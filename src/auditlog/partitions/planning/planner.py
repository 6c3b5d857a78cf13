"""A table's state and what is wanted of it → the plan.

Pure, and made for any state: what cannot be dealt with becomes a finding, never an exception.
Nothing that deletes or detaches is planned while a clock has jumped; what is needed for the rows of
today always is.
"""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime

from auditlog.partitions.model import (
    Finding,
    Operation,
    OperationKind,
    Plan,
    Step,
    TableConfig,
    TableState,
)
from auditlog.partitions.planning.creation import create
from auditlog.partitions.planning.defaults import heal, unhealed
from auditlog.partitions.planning.observations import ESSENTIAL, observe, unread
from auditlog.partitions.planning.ranges import FIRST, as_range, covered_until
from auditlog.partitions.planning.retention import is_too_big, retire
from auditlog.partitions.planning.situation import Part, Situation
from auditlog.partitions.planning.tenants import delete
from auditlog.partitions.planning.unfinished import finalize, go_on

_CHANGES = frozenset({"finalize", "heal", "create", "attach", "detach"})


def plan(state: TableState, config: TableConfig, *, host_now: datetime) -> Plan:
    """Return what one run is to do, in order, and what it leaves to people.

    Args:
        state: As `catalog.read` found it.
        config: What is wanted.
        host_now: The clock of the machine that maintenance runs on, to compare the server's with.
    """
    situation = Situation(state, config, host_now)
    parts = _parts(situation)
    return Plan(
        state.table,
        state.now,
        tuple(operation for part in parts for operation in part.operations),
        tuple(finding for part in parts for finding in part.findings),
        covered_until(situation.attached, state.now) if state.is_partitioned else None,
    )


def _parts(situation: Situation) -> list[Part]:
    state = situation.state
    if (obstacle := _obstacle(situation)) is not None:
        return [Part(findings=(obstacle, *unread(state.unread)))]
    findings = Part(findings=(*unread(state.unread), *observe(situation)))
    if situation.step is None or not ESSENTIAL.isdisjoint(state.unread):
        return [findings, Part(findings=tuple(_no_step(situation)))]
    return [*_operations(situation, situation.step), findings]


def _obstacle(situation: Situation) -> Finding | None:
    """Return why there is nothing to plan."""
    state = situation.state
    if state.standing_down:
        return Finding("standing_down", "note", f"nothing is done here: {state.standing_down}")
    if state.is_partitioned:
        return None
    return Finding(
        "not_partitioned",
        "note",
        f"{state.table} is a plain table",
        f"auditlog partitions enable {state.table}",
    )


def _no_step(situation: Situation) -> Iterator[Finding]:
    table = situation.state.table
    if situation.step is None and "partitioning" not in situation.state.unread:
        yield Finding(
            "no_step",
            "human",
            f"{table} is partitioned and logstore.partitioning does not say by what",
            f"add a row for it there, with a step, or set by for {table} in the settings",
        )


def _operations(situation: Situation, step: Step) -> list[Part]:
    """Return the parts in the order in which they are applied."""
    resumed, healed = go_on(situation), heal(situation, step)
    retired = _retired(situation, begun=len(_of_kind(resumed, "drop")))
    leaving = _of_kind(retired, "detach")
    reserved = [*_of_kind(healed, "heal"), *_of_kind(resumed, "attach")]
    created = create(
        situation,
        step,
        _retired_until(situation.state, leaving),
        [*(as_range(each.lower, each.upper) for each in reserved), *unhealed(situation, healed)],
        is_too_big=is_too_big(situation, leaving),
    )
    names = {operation.partition for operation in leaving}
    parts = [
        finalize(situation),
        healed,
        created,
        _repairs(situation, names),
        resumed,
        Part() if situation.clock_jump else delete(situation, names),
        retired,
    ]
    return [*parts, _analysis(situation.state, parts)]


def _retired(situation: Situation, begun: int) -> Part:
    can_detach = situation.can_detach and not situation.clock_jump
    return retire(situation, begun) if can_detach else Part()


def _retired_until(state: TableState, leaving: Iterable[Operation]) -> datetime | None:
    """Return below what nothing is to be made, once the plan is carried out."""
    uppers = [each.upper for each in leaving if each.upper is not None]
    return max((*uppers, state.retired_until or FIRST), default=None)


def _repairs(situation: Situation, leaving: Collection[str]) -> Part:
    return Part(
        tuple(
            Operation(
                "repair",
                situation.state.table,
                leaf.name,
                f"it lacks {', '.join(leaf.drift)}",
                leaf.lower,
                leaf.upper,
                leaf.oid,
            )
            for leaf in situation.state.leaves
            if leaf.drift and not leaf.is_detaching and leaf.name not in leaving
        )
    )


def _analysis(state: TableState, parts: Iterable[Part]) -> Part:
    """Autovacuum analyses partitions, and never the table that is made of them."""
    changes = {operation.kind for part in parts for operation in part.operations}
    if not changes.isdisjoint(_CHANGES):
        why = "partitions of it come or go"
    elif state.leaves and not state.is_analyzed:
        why = "it was never analysed"
    else:
        return Part()
    return Part((Operation("analyze", state.table, state.table, why, oid=state.oid),))


def _of_kind(part: Part, kind: OperationKind) -> list[Operation]:
    return [operation for operation in part.operations if operation.kind == kind]
