"""Tables as a plan sees them: a state to vary, and the state after a plan was carried out."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

from auditlog.partitions.model import Leaf, Operation, OperationKind, Plan, TableConfig, TableState
from auditlog.partitions.planning import plan
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name, window, windows

NOW = datetime(2026, 12, 15, 13, 37, tzinfo=UTC)
GB = 1024**3
KEPT = TableConfig("logs", retain=Span(months=3), archive="/archive", max_retire=99)
"""A retention that takes whatever is older than three months."""

_oids = count(1000)


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def leaf(lower: str | None, upper: str, **more: Any) -> Leaf:
    start, end = day(lower) if lower else None, day(upper)
    defaults = {"size_bytes": GB, "rows": 1_000_000}
    return Leaf(name("logs", "month", start), next(_oids), start, end, **{**defaults, **more})


def months(first: str, last: str) -> tuple[Leaf, ...]:
    """A leaf for each month from the one of a day to the one of another."""
    spans = windows("month", day(first), window("month", day(last))[1])
    return tuple(leaf(f"{lower:%Y-%m-%d}", f"{upper:%Y-%m-%d}") for lower, upper in spans)


def table(leaves: Iterable[Leaf] = (), **more: Any) -> TableState:
    """A table of months, as its server has it at NOW."""
    defaults = {"step": "month", "ahead": Span(months=3), "locks_available": 6400}
    return TableState(
        "logs", 1, True, more.pop("now", NOW), leaves=tuple(leaves), **defaults | more
    )


def planned(state: TableState, config: TableConfig = KEPT, **more: Any) -> Plan:
    return plan(state, replace(config, **more), host_now=state.now)


def of_kind(result: Plan, *kinds: OperationKind) -> list[Operation]:
    return [operation for operation in result.operations if operation.kind in kinds]


def partitions(result: Plan, *kinds: OperationKind) -> list[str]:
    return [operation.partition for operation in of_kind(result, *kinds)]


def codes(result: Plan) -> list[str]:
    return [finding.code for finding in result.findings]


def applied(state: TableState, result: Plan) -> TableState:
    """The state after a run that made and retired what the plan says."""
    leaves = {each.oid: each for each in state.leaves}
    retired_until = state.retired_until
    for operation in result.operations:
        if operation.kind == "create":
            assert operation.upper is not None
            oid = next(_oids)
            leaves[oid] = Leaf(operation.partition, oid, operation.lower, operation.upper, 0, -1)
        elif operation.kind in ("detach", "finalize"):
            assert operation.oid is not None
            gone = leaves.pop(operation.oid)
            if gone.upper <= state.now:
                retired_until = max(gone.upper, retired_until or gone.upper)
    ordered = sorted(leaves.values(), key=lambda each: each.upper)
    return replace(state, leaves=tuple(ordered), retired_until=retired_until)
