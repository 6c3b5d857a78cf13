"""The state of partitions as Prometheus reads it: the text format, version 0.0.4.

For the textfile collector of the node exporter, so it needs no library. Every table and severity
has its sample, at 0 too, for an alert on an increase needs a first one. Format:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import get_args

from auditlog.partitions.model import Outcome, Severity
from auditlog.partitions.status import TableStatus

PREFIX = "auditlog_partition"

_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(slots=True)
class Family:
    """A metric: its samples, by their labels."""

    name: str
    """Without `PREFIX`."""
    text: str
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        """Add a sample; None stands for no sample."""
        if value is not None:
            self.samples.append((labels, value))

    def lines(self) -> Iterator[str]:
        """Yield the lines of the format."""
        name = PREFIX + self.name
        yield f"# HELP {name} {self.text}"
        yield f"# TYPE {name} gauge"
        for labels, value in self.samples:
            yield f"{name}{{{_written(labels)}}} {value!r}"


def exposition(statuses: Iterable[TableStatus], outcomes: Iterable[Outcome] | None = None) -> str:
    """Return the text: how the tables are, and what a run did, if there was one."""
    told = list(statuses)
    families = [*_of_tables([each for each in told if _is_known(each)]), _findings(told)]
    if outcomes is not None:
        families.append(_of_run(outcomes))
    return "".join(f"{line}\n" for family in families for line in family.lines())


def _is_known(status: TableStatus) -> bool:
    return status.state is not None and status.state.is_partitioned


def _of_tables(statuses: list[TableStatus]) -> Iterator[Family]:
    covered = Family("_covered_until_timestamp_seconds", "Rows have a partition until then.")
    runway = Family("_runway_seconds", "From now until then; 0 if there is none even now.")
    count = Family("s", "Attached partitions.")
    size = Family("_bytes", "Size of partitions with their indexes.")
    default = Family("_default_rows", "Rows in a DEFAULT partition.")
    pending = Family("_pending_detach", "Partitions whose detach was begun and has not ended.")
    orphans = Family("_orphans", "Partitions that were detached and still exist.")
    last = Family("_last_run_timestamp_seconds", "End of the last run of maintenance.")
    for each in statuses:
        assert each.state is not None  # noqa: S101  # see _is_known
        of_default = each.state.default
        covered.add(_seconds(each.covered_until), table=each.table)
        runway.add(each.runway.total_seconds(), table=each.table)
        count.add(len(each.state.leaves) + len(each.state.foreign), table=each.table)
        size.add(each.state.size_bytes, table=each.table)
        default.add(of_default.rows if of_default else 0, table=each.table)
        pending.add(len(each.pending), table=each.table)
        orphans.add(len(each.orphans), table=each.table)
        last.add(_seconds(each.state.maintained_at), table=each.table)
    yield from (covered, runway, count, size, default, pending, orphans, last)


def _findings(statuses: Iterable[TableStatus]) -> Family:
    family = Family("_findings", "Things to know, by how much they need somebody.")
    for each in statuses:
        counts = Counter(finding.severity for finding in each.findings)
        counts["human"] += each.error is not None
        for severity in get_args(Severity):
            family.add(counts[severity], table=each.table, severity=severity)
    return family


def _of_run(outcomes: Iterable[Outcome]) -> Family:
    family = Family("_steps", "Steps of this run, by what became of them.")
    kinds = ((each.operation.table, each.operation.kind, each.result) for each in outcomes)
    for (table, kind, result), number in sorted(Counter(kinds).items()):
        family.add(number, table=table, kind=kind, result=result)
    return family


def _seconds(when: datetime | None) -> float | None:
    return when.timestamp() if when else None


def _written(labels: Mapping[str, str]) -> str:
    return ",".join(f'{key}="{text.translate(_LABEL_ESCAPES)}"' for key, text in labels.items())
