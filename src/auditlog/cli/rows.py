"""Rows of `logstore.logs` → a table that people read, in a terminal of 80 columns too.

It shows what a row is about; `--json` is for whoever needs all of it.
"""

from collections.abc import Iterable
from datetime import datetime

from rich import box
from rich.table import Table

from auditlog.cli.output import cell
from auditlog.records import LogLevel, LogRecord

_STYLES = {LogLevel.WARN: "yellow", LogLevel.ERROR: "red"}


def table_of(records: Iterable[LogRecord], title: str | None = None) -> Table:
    """Lay rows out, each in the colour of its level."""
    table = plain_table(title)
    # All but the URL are as wide as they need to be.
    table.add_column("time", min_width=14)
    table.add_column("method", min_width=6)
    table.add_column("url or event", overflow="ellipsis", min_width=8, max_width=60)
    table.add_column("status", min_width=6, justify="right")
    table.add_column("ms", min_width=4, justify="right")
    table.add_column("user", min_width=5)
    table.add_column("outcome", min_width=17)
    table.add_column("level", min_width=5)
    for record in records:
        table.add_row(*map(cell, _cells(record)), style=_STYLES.get(LogLevel(record.log_level)))
    return table


def plain_table(title: str | None = None) -> Table:
    """Return an empty table without a frame."""
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


def _cells(record: LogRecord) -> tuple[object, ...]:
    when = record.occurrence_date
    return (
        f"{when:%m-%d %H:%M:%S}" if isinstance(when, datetime) else when,
        record.request_method,
        record.request_url or _event(record),
        record.response_status,
        record.response_time_ms,
        record.user_id,
        (record.metadata or {}).get("audit.outcome"),
        LogLevel(record.log_level).name.lower(),
    )


def _event(record: LogRecord) -> str:
    """Say in one line what a row without a request is about."""
    target = (record.aggregate_type, record.aggregate_id)
    words = (record.event_type, *target) if any((record.event_type, *target)) else (record.message,)
    return " ".join(word for word in words if word)
