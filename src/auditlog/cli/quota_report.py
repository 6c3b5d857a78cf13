"""Quotas and their usage: for people, in a terminal of 80 columns too, and as JSON.

Names and subjects are chosen by applications and their clients: no control character of theirs
gets to the terminal.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.table import Table

from auditlog.cli.durations import shown
from auditlog.cli.output import cell, plain
from auditlog.cli.partitions_report import moment, span
from auditlog.cli.rows import plain_table
from auditlog.partitions.configuration import sizes
from auditlog.quota.definitions.rows import EVERY_TENANT, document
from auditlog.quota.keeping.store import StoredQuota
from auditlog.quota.keeping.usage import Usage
from auditlog.quota.model import Counts, Quota

_ALL_IF_EMPTY = ("tenant", "routes", "methods")


@dataclass(frozen=True, slots=True)
class Listed:
    """A quota, wherever it is defined."""

    source: str
    """`database` or `file`."""
    values: Mapping[str, Any]
    problem: str | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Name and tenant; one in the database goes before one in a file with the same."""
        return self.values["id"], self.values["tenant"] or EVERY_TENANT


def from_database(found: StoredQuota) -> Listed:
    """Return a quota that is stored."""
    return Listed("database", found.values, found.problem, found.changed_at, found.changed_by)


def from_file(quota: Quota) -> Listed:
    """Return a quota that a file has."""
    return Listed("file", asdict(quota))


def table_of(listed: Iterable[Listed]) -> Table:
    """Lay quotas out, one in a row."""
    table = plain_table()
    table.add_column("quota", overflow="fold", min_width=6)
    table.add_column("tenant", overflow="fold", min_width=6)
    table.add_column("limit", min_width=5, justify="right")
    table.add_column("of", overflow="fold", min_width=8)
    table.add_column("in", min_width=7)
    table.add_column("per", overflow="fold", min_width=6)
    table.add_column("told", overflow="fold", min_width=5)
    table.add_column("mode", overflow="fold", min_width=8)
    table.add_column("from", min_width=8)
    for each in listed:
        table.add_row(*map(cell, _cells(each)))
    return table


def lines_of(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a quota setting by setting."""
    for name, value in document(values).items():
        yield plain(f"{name:15} {_words(name, value, values)}")


def line_of_origin(listed: Listed) -> str:
    """Return who set a quota, and when."""
    when = moment(listed.changed_at) if listed.changed_at else "nobody knows when"
    return plain(f"{'set':15} {when} by {listed.changed_by}")


def usage_table(found: Iterable[Usage]) -> Table:
    """Lay counters out, one in a row."""
    table = plain_table()
    table.add_column("quota", overflow="fold", min_width=8)
    table.add_column("tenant", overflow="fold", min_width=6)
    table.add_column("subject", overflow="fold", min_width=7)
    table.add_column("used", min_width=5, justify="right")
    table.add_column("limit", min_width=5, justify="right")
    table.add_column("%", min_width=4, justify="right")
    table.add_column("left", min_width=4, justify="right")
    table.add_column("told", min_width=4, justify="right")
    table.add_column("resets", min_width=6, justify="right")
    table.add_column("period", overflow="fold", min_width=10)
    for each in found:
        table.add_row(*map(cell, _usage_cells(each)))
    return table


def as_json(listed: Listed) -> dict[str, Any]:
    """Return a quota with where it is from, and who set it."""
    return {
        **document(listed.values),
        "source": listed.source,
        "problem": listed.problem,
        "changed_at": listed.changed_at,
        "changed_by": listed.changed_by,
    }


def usage_as_json(counter: Usage) -> dict[str, Any]:
    """Return a counter with what follows from it."""
    fields = asdict(counter)
    resets_in: timedelta = fields.pop("resets_in")
    utc = {name: at.astimezone(UTC) for name, at in fields.items() if isinstance(at, datetime)}
    return {
        **fields,
        **utc,
        "percent": counter.percent,
        "remaining": counter.remaining,
        "resets_in_s": round(resets_in.total_seconds(), 3),
    }


def _cells(listed: Listed) -> tuple[object, ...]:
    values = listed.values
    rolling = "rolling " if values["rolling"] else ""
    return (
        values["id"],
        values["tenant"] or "all",
        _limit(values),
        values["counts"],
        f"{rolling}{values['period']}",
        ", ".join(map(str, values["per"])),
        ", ".join(f"{each} %" for each in values["thresholds"]),
        _mode(listed),
        listed.source,
    )


def _mode(listed: Listed) -> str:
    if listed.problem:
        return "cannot be used"
    values = listed.values
    words = (
        "enforced" if values["enforced"] else "observed",
        "exact" if values["exact"] else "",
        "closed" if values["on_unavailable"] == "closed" else "",
    )
    return ", ".join(filter(None, words))


def _limit(values: Mapping[str, Any]) -> str:
    limit: int = values["limit"]
    if values["counts"] == Counts.BYTES:
        return sizes.shown(limit)
    # Shorter than a second is not shown.
    if values["counts"] == Counts.EXECUTION_MS and not limit % 1_000:
        return shown(timedelta(milliseconds=limit))
    return f"{limit:,}"


def _words(name: str, value: object, values: Mapping[str, Any]) -> str:
    if name == "limit":
        short = _limit(values)
        return f"{value}" if short == f"{value:,}" else f"{value} ({short})"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or ("all" if name in _ALL_IF_EMPTY else "none")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "all" if name in _ALL_IF_EMPTY else "none"
    return str(value)


def _usage_cells(counter: Usage) -> tuple[object, ...]:
    start, end = (at.astimezone(UTC) for at in (counter.period_start, counter.period_end))
    return (
        counter.quota_id,
        counter.tenant,
        counter.subject,
        f"{counter.used:,}",
        f"{counter.limit:,}",
        "" if counter.percent is None else f"{counter.percent:.1f}",
        f"{counter.remaining:,}",
        f"{counter.told_percent} %" if counter.told_percent else "",
        shown(counter.resets_in),
        f"rolling {shown(end - start)}" if counter.rolling else span(start, end),
    )
