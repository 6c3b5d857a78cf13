"""What is told of partitions without a database: the metrics, the runway, the gaps."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from auditlog.partitions.exposition import exposition
from auditlog.partitions.model import (
    Default,
    Finding,
    Foreign,
    Leaf,
    Operation,
    Outcome,
    Plan,
    Retirement,
    TableState,
)
from auditlog.partitions.spans import Span
from auditlog.partitions.status import TableStatus, gaps

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[2] / "docs" / "partitions.md"


def month(year: int, number: int) -> datetime:
    return datetime(year, number, 1, tzinfo=UTC)


UNTIL = month(2027, 3)


def leaf(lower: datetime | None, upper: datetime) -> Leaf:
    return Leaf(name=f"logs_p{upper:%Y%m}", oid=1, lower=lower, upper=upper, size_bytes=0, rows=-1)


LEAVES = (leaf(None, month(2026, 11)), leaf(month(2026, 11), month(2026, 12)))
STATE = TableState(
    table="logs", oid=1, is_partitioned=True, now=NOW, step="month", ahead=Span(months=3)
)


def status_of(
    *findings: Finding, covered_until: datetime | None = UNTIL, **changes: Any
) -> TableStatus:
    state = replace(STATE, **{"leaves": LEAVES, **changes})
    plan = Plan(state.table, NOW, (), findings, covered_until)
    return TableStatus(state.table, state, plan, state.ahead)


def samples(text: str) -> dict[tuple[str, ...], float]:
    """The samples as Prometheus reads them, by name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_is_written() -> None:
    """Each metric with its help, its type and its value."""
    gone = Retirement("r", "logs_p202401", 7, None, month(2024, 2), "detached", False, True)
    status = status_of(
        Finding("default_rows", "human", "..."),
        Finding("blocked", "note", "..."),
        leaves=(LEAVES[0], replace(LEAVES[1], is_detaching=True)),
        foreign=(Foreign("by_hand", 3, "..."),),
        default=Default("logs_default", 9, 8192, rows=41),
        retirements=(gone, replace(gone, exists=False), replace(gone, is_attached=True)),
        size_bytes=123456789012345678,
        maintained_at=NOW - timedelta(hours=1),
    )
    step = Operation("create", "logs", "logs_p202703", "ahead")
    outcomes = [Outcome(step, "done"), Outcome(step, "done"), Outcome(step, "failed")]
    text = exposition([status], outcomes)
    assert samples(text) == {
        ("auditlog_partition_covered_until_timestamp_seconds", "logs"): (
            month(2027, 3).timestamp()
        ),
        ("auditlog_partition_runway_seconds", "logs"): (month(2027, 3) - NOW).total_seconds(),
        ("auditlog_partitions", "logs"): 3,
        ("auditlog_partition_bytes", "logs"): 123456789012345678,
        ("auditlog_partition_default_rows", "logs"): 41,
        ("auditlog_partition_pending_detach", "logs"): 1,
        ("auditlog_partition_orphans", "logs"): 1,
        ("auditlog_partition_findings", "logs", "note"): 1,
        ("auditlog_partition_findings", "logs", "drift"): 0,
        ("auditlog_partition_findings", "logs", "human"): 1,
        ("auditlog_partition_last_run_timestamp_seconds", "logs"): NOW.timestamp() - 3600,
        ("auditlog_partition_steps", "logs", "create", "done"): 2,
        ("auditlog_partition_steps", "logs", "create", "failed"): 1,
    }
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} == {"gauge"}
    assert all(family.documentation for family in families)
    assert text.endswith("\n")


def test_what_is_not_known_has_no_sample() -> None:
    """An instant that is not there is left out: 0 would be 1970."""
    found = samples(exposition([status_of(covered_until=None)]))
    assert found["auditlog_partition_runway_seconds", "logs"] == 0
    names = {name for name, *_ in found}
    assert "auditlog_partition_covered_until_timestamp_seconds" not in names
    assert "auditlog_partition_last_run_timestamp_seconds" not in names
    assert "auditlog_partition_steps" not in names
    assert found["auditlog_partition_default_rows", "logs"] == 0
    unreadable = Default("logs_default", 9, 8192, rows=None)
    found = samples(exposition([status_of(default=unreadable)]))
    assert ("auditlog_partition_default_rows", "logs") not in found


def test_a_table_that_cannot_be_looked_at_needs_somebody() -> None:
    """An alert on findings rings for it; nothing else is claimed."""
    found = samples(exposition([TableStatus("logs", error="permission denied")]))
    assert found == {
        ("auditlog_partition_findings", "logs", "note"): 0,
        ("auditlog_partition_findings", "logs", "drift"): 0,
        ("auditlog_partition_findings", "logs", "human"): 1,
    }


@given(st.text())
def test_any_label_is_read_as_it_was(label: str) -> None:
    """Quotes, backslashes and line breaks do not end a label."""
    step = Operation("create", label, "logs_p202703", "ahead")
    text = exposition([], [Outcome(step, "done")])
    assert samples(text) == {("auditlog_partition_steps", label, "create", "done"): 1}


def test_every_metric_is_documented() -> None:
    """With its labels, in docs/partitions.md, and nothing that is none."""
    step = Operation("create", "logs", "logs_p202703", "ahead")
    text = exposition([status_of(maintained_at=NOW)], [Outcome(step, "done")])
    listed = re.findall(
        r"^\| `(auditlog_partition\w*)\{([a-z,]+)\}`", DOCUMENT.read_text(), re.MULTILINE
    )
    written = {
        (sample.name, ",".join(sample.labels))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert set(listed) == written


def test_a_runway_of_less_than_half_needs_somebody() -> None:
    """Three months are wanted from 28 November on: 90 days; 45 are enough, less is not."""
    enough = status_of(covered_until=NOW + timedelta(days=46))
    assert (enough.is_runway_short, enough.needs_somebody) == (False, False)
    short = status_of(covered_until=NOW + timedelta(days=44))
    assert (short.is_runway_short, short.needs_somebody) == (True, True)
    assert status_of(covered_until=None).is_runway_short
    assert status_of(covered_until=NOW - timedelta(days=1)).runway == timedelta(0)
    plain = status_of(covered_until=None, is_partitioned=False)
    assert not plain.is_runway_short


def test_only_what_a_run_does_not_mend_needs_somebody() -> None:
    """Notes and drift do not."""
    assert not status_of(Finding("a", "note", ""), Finding("b", "drift", "")).needs_somebody
    assert status_of(Finding("c", "human", "")).needs_somebody
    assert TableStatus("logs", error="...").needs_somebody


def test_gaps_are_between_partitions() -> None:
    """What a foreign one covers is no gap; nor is what nobody can read."""
    first, last = leaf(None, month(2026, 1)), leaf(month(2026, 6), month(2026, 7))
    state = replace(STATE, leaves=(first, last))
    assert gaps(state) == [(month(2026, 1), month(2026, 6))]
    other = Foreign("by_hand", 3, "...", lower=month(2026, 2), upper=month(2026, 6))
    unreadable = Foreign("odd", 4, "...")
    assert gaps(replace(state, foreign=(other, unreadable))) == [(month(2026, 1), month(2026, 2))]
    assert gaps(replace(state, leaves=LEAVES)) == gaps(STATE) == []
