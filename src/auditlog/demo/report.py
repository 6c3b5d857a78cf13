"""The demo's result → what people read, and what machines read.

Figures are printed as measured; where a figure could be taken for more than it is, the line says
what it is.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from auditlog.demo.compare import Comparison
from auditlog.demo.run import AUDITED, Result
from auditlog.records import LogLevel

LAST_ROWS = 16
LOOK = (
    "SELECT log_date, request_method, request_url, response_status, user_id, metadata"
    " FROM logstore.logs ORDER BY log_date DESC LIMIT 20"
)
_NAMED_AT_MOST = 10
_LEVEL_STYLES = {LogLevel.WARN: "yellow", LogLevel.ERROR: "red"}
_LAST_ROWS_SQL = """
SELECT occurrence_date, request_method, request_url, response_status, response_time_ms, user_id,
       metadata ->> 'audit.outcome', log_level
FROM (SELECT * FROM logstore.logs ORDER BY log_date DESC, log_id DESC LIMIT %s) AS newest
ORDER BY occurrence_date
"""
_OUTCOMES_SQL = """
SELECT metadata ->> 'audit.outcome', count(*)
FROM logstore.logs
WHERE starts_with(metadata ->> 'audit.request_id', %s)
GROUP BY 1
ORDER BY 2 DESC, 1
"""


def render(result: Result) -> RenderableType:
    """Lay the whole report out."""
    with psycopg.connect(result.database.dsn) as conn:
        return Group(
            _last_rows(conn),
            "",
            _outcomes(conn, result.run_id),
            "",
            _figures(result),
            "",
            *_verdict(result),
        )


def as_json(result: Result) -> dict[str, Any]:
    """Return the figures, in plain types."""
    comparison = result.comparison
    return {
        "well": result.well,
        "sent": comparison.sent,
        "stored": comparison.stored,
        "dropped": result.stats["dropped"],
        "failed": result.failed,
        "missing": [request.request_id for request in comparison.missing],
        "repeated": list(comparison.repeated),
        "unknown": list(comparison.unknown),
        "differing": [request.request_id for request, _ in comparison.differing],
        "elapsed_s": round(result.elapsed_s, 3),
        "rows_per_s": round(comparison.stored / result.elapsed_s, 1),
        "latency_ms": {
            f"p{share * 100:.0f}": dict(
                zip(("audited", "bare"), result.latency.percentiles(share), strict=True)
            )
            for share in (0.5, 0.99)
        },
        "kept": None if result.kept is None else str(result.kept),
    }


def look_hint(result: Result) -> str:
    """Return the line with which to look for oneself."""
    when = "while it serves" if result.kept else "run again with --keep, and while it serves"
    return f"To look for yourself, {when}:\n  {result.database.psql_command} -c {shlex.quote(LOOK)}"


def restart_hint(kept: Path) -> str:
    """Return the line that serves the same data again."""
    dsn = shlex.quote(f"embedded:{kept}")
    return (
        f"The data stays in {kept}. To serve it again:\n"
        f"  AUDITLOG_DSN={dsn} {shlex.quote(sys.executable)} -m uvicorn --factory {AUDITED}"
    )


def _last_rows(conn: psycopg.Connection[Any]) -> Table:
    table = Table(title="The last rows of logstore.logs", title_justify="left", expand=False)
    table.add_column("time", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("url", overflow="ellipsis", no_wrap=True, max_width=38)
    table.add_column("status", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("user")
    table.add_column("outcome", no_wrap=True)
    table.add_column("level")
    rows = conn.execute(_LAST_ROWS_SQL, [LAST_ROWS]).fetchall()
    for when, method, url, status, duration_ms, user, outcome, number in rows:
        level = LogLevel(number)
        cells = (method, url, status, duration_ms, user, outcome, level.name.lower())
        table.add_row(
            f"{when:%H:%M:%S.%f}"[:-3],
            # Text, not markup: a URL may hold brackets.
            *(Text("" if cell is None else str(cell)) for cell in cells),
            style=_LEVEL_STYLES.get(level),
        )
    return table


def _outcomes(conn: psycopg.Connection[Any], run_id: str) -> Table:
    rows = conn.execute(_OUTCOMES_SQL, [f"{run_id}-"]).fetchall()
    total = sum(count for _, count in rows) or 1
    table = Table(title="By outcome", title_justify="left")
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for outcome, count in rows:
        table.add_row(outcome, str(count), f"{count / total:.1%}")
    return table


def _figures(result: Result) -> Table:
    comparison, latency = result.comparison, result.latency
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    grid.add_row("requests sent", str(comparison.sent), "each with an id of its own")
    grid.add_row("rows stored", str(comparison.stored), "joined with those ids, one by one")
    grid.add_row("dropped", str(result.stats["dropped"]), "as the application counts")
    rate = comparison.stored / result.elapsed_s
    grid.add_row("rows/s", f"{rate:.0f}", f"over {result.elapsed_s:.1f} s; the pace, not the limit")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        audited, bare = latency.percentiles(share)
        note = f"{audited:.2f} ms with the middleware, {bare:.2f} without"
        grid.add_row(f"added latency {name}", f"{audited - bare:+.2f} ms", note)
    note = f"{len(latency.audited)} reads of one order on each server, in turn, under equal load"
    grid.add_row("", "", note)
    return grid


def _verdict(result: Result) -> list[RenderableType]:
    comparison = result.comparison
    if result.well:
        good = f"Every one of the {comparison.sent} requests sent has exactly its row."
        return [Text(good, style="bold green")]
    lines = [Text("Not every request sent has exactly its row.", style="bold red")]
    return [*lines, *(Text(line) for line in _complaints(comparison, result))]


def _complaints(comparison: Comparison, result: Result) -> list[str]:
    found = {
        "missing": [f"{request.request_id} ({request.scenario})" for request in comparison.missing],
        "stored more than once": list(comparison.repeated),
        "stored, never sent": list(comparison.unknown),
        "stored with another status": [
            f"{request.request_id} ({request.scenario}): {request.status}, stored {status}"
            for request, status in comparison.differing
        ],
        "could not be made": result.failed,
    }
    return [
        f"{len(items)} {title}: {'; '.join(items[:_NAMED_AT_MOST])}"
        + (" …" if len(items) > _NAMED_AT_MOST else "")
        for title, items in found.items()
        if items
    ]
