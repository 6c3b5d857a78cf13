"""The state of partitions: a table to look at, what is behind it, and one document."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from rich.table import Table

from auditlog.cli.durations import shown
from auditlog.cli.output import cell
from auditlog.cli.partitions_report import (
    finding_fields,
    lines_of_findings,
    moment,
    operation_fields,
    span,
)
from auditlog.cli.rows import plain_table
from auditlog.partitions.configuration import sizes
from auditlog.partitions.model import Hold, Leaf, TableState
from auditlog.partitions.status import TableStatus, gaps


def table_of(statuses: Iterable[TableStatus]) -> Table:
    """Lay out a line for each table."""
    table = plain_table()
    table.add_column("table", min_width=10)
    table.add_column("covered until", min_width=10)
    table.add_column("runway", justify="right", min_width=5)
    table.add_column("partitions", justify="right")
    table.add_column("by", min_width=3)
    table.add_column("size", justify="right", min_width=5)
    table.add_column("rows", justify="right", min_width=4)
    table.add_column("locks", justify="right", min_width=5)
    table.add_column("last run", min_width=10)
    for status in statuses:
        style = "red" if status.needs_somebody else None
        table.add_row(*map(cell, _cells(status)), style=style)
    return table


def leaves_of(state: TableState) -> Table:
    """Lay out the partitions of one table."""
    table = plain_table()
    table.add_column("partition", min_width=14)
    table.add_column("from", min_width=10)
    table.add_column("to", min_width=10)
    table.add_column("size", justify="right", min_width=5)
    table.add_column("rows", justify="right", min_width=4)
    table.add_column("remarks", overflow="fold")
    for leaf in state.leaves:
        lower = moment(leaf.lower) if leaf.lower else "ever"
        size, rows = sizes.shown(leaf.size_bytes), _estimate(leaf.rows)
        cells = (leaf.name, lower, moment(leaf.upper), size, rows, _remarks(leaf))
        table.add_row(*map(cell, cells))
    return table


def lines_of(status: TableStatus) -> Iterator[str]:
    """Yield what is behind a table's line: what left it, what is held, what there is to know."""
    if status.state is None:
        yield f"{status.table}: cannot be looked at: {status.error}"
        return
    lines = [
        *(f"detached: {each.partition}, {each.state}" for each in status.orphans),
        *(f"hold: {_held(hold)}" for hold in status.state.holds),
        *lines_of_findings(status.findings),
    ]
    if lines:
        yield f"{status.table}:"
        yield from (f"  {line}" for line in lines)


def as_json(statuses: Iterable[TableStatus]) -> dict[str, Any]:
    """Return one document with everything."""
    tables = list(statuses)
    return {
        "well": not any(each.needs_somebody for each in tables),
        "tables": [_fields(each) for each in tables],
    }


def _cells(status: TableStatus) -> tuple[object, ...]:
    state, until = status.state, status.covered_until
    if state is None:
        return (status.table, "unknown")
    return (
        status.table,
        moment(until) if until else "not even now",
        f"{status.runway.days}d" if status.runway.days else shown(status.runway),
        len(state.leaves) + len(state.foreign),
        state.step,
        sizes.shown(state.size_bytes),
        _estimate(_rows(state)),
        f"{state.locks_needed:,}/{state.locks_available:,}",
        moment(state.maintained_at) if state.maintained_at else "never",
    )


def _rows(state: TableState) -> int:
    """Return the planner's estimate, -1 where it has none at all."""
    known = [leaf.rows for leaf in state.leaves if leaf.rows >= 0]
    return sum(known) if known else -1


def _estimate(rows: int) -> str:
    return "?" if rows < 0 else f"{rows:,}"


def _remarks(leaf: Leaf) -> str:
    remarks = ["detach pending"] if leaf.is_detaching else []
    return ", ".join([*remarks, *(f"lacks {each}" for each in leaf.drift)])


def _held(hold: Hold) -> str:
    whose = f"tenant {hold.instance_id}" if hold.instance_id is not None else "everybody"
    return f"{whose}, {span(hold.start, hold.end)}: {hold.reason} ({hold.hold_id})"


def _fields(status: TableStatus) -> dict[str, Any]:
    head = {
        "table": status.table,
        "well": not status.needs_somebody,
        "error": status.error,
        "covered_until": status.covered_until,
        "runway_s": status.runway.total_seconds(),
        "runway_is_short": status.is_runway_short,
        "ahead": str(status.ahead) if status.ahead else None,
        "findings": finding_fields(status.findings),
        "steps": [operation_fields(each) for each in status.plan.operations] if status.plan else [],
    }
    return head | (_state_fields(status.state, status) if status.state else {})


def _state_fields(state: TableState, status: TableStatus) -> dict[str, Any]:
    rows = _rows(state)
    return {
        "at": state.now,
        "by": state.step,
        "size_bytes": state.size_bytes,
        "rows": None if rows < 0 else rows,
        "partitions": [_leaf_fields(leaf) for leaf in state.leaves],
        "foreign": [dataclasses.asdict(each) for each in state.foreign],
        "default": dataclasses.asdict(state.default) if state.default else None,
        "gaps": [{"lower": lower, "upper": upper} for lower, upper in gaps(state)],
        "pending_detach": [leaf.name for leaf in status.pending],
        "orphans": [dataclasses.asdict(each) for each in status.orphans],
        "holds": [dataclasses.asdict(each) for each in state.holds],
        "blockers": [
            {**dataclasses.asdict(each), "age": each.age.total_seconds()} for each in state.blockers
        ],
        "locks": {"needed": state.locks_needed, "available": state.locks_available},
        "retired_until": state.retired_until,
        "last_run": state.maintained_at,
        "standing_down": state.standing_down,
    }


def _leaf_fields(leaf: Leaf) -> dict[str, Any]:
    return {**dataclasses.asdict(leaf), "rows": None if leaf.rows < 0 else leaf.rows}
