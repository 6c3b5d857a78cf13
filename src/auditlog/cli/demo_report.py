"""The demo's result → what people read, and what machines read.

Figures are printed as measured; where a figure could be taken for more than it is, the line says
what it is.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Literal
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from auditlog.cli.rows import plain_table, table_of
from auditlog.demo.compare import Comparison
from auditlog.demo.drive import Latency
from auditlog.demo.quotas import REFUSED, Decisions
from auditlog.demo.run import AUDITED, Result
from auditlog.postgres.embedded import EmbeddedServer
from auditlog.query.newest import newest
from auditlog.settings import Settings

LAST_ROWS = 16
_NAMED_AT_MOST = 10
_OUTCOMES_SQL = """
SELECT metadata ->> 'audit.outcome', count(*)
FROM logstore.logs
WHERE starts_with(metadata ->> 'audit.request_id', %s)
GROUP BY 1
ORDER BY 2 DESC, 1
"""
_LOOK = SQL(
    "SELECT log_date, request_method, left(request_url, 60) AS url, response_status, user_id,"
    " event_type FROM logstore.logs WHERE instance_id = {} ORDER BY log_id DESC LIMIT 20"
)


def render(result: Result) -> RenderableType:
    """Lay the whole report out."""
    with psycopg.connect(result.database.dsn) as conn:
        return Group(
            table_of(newest(conn, limit=LAST_ROWS), "The last rows of logstore.logs"),
            "",
            _outcomes(conn, result.run_id),
            "",
            _protocols(result.comparison),
            "",
            _quotas(result.decisions),
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
        "protocols": {
            protocol.name.lower(): {"sent": sent, "stored": stored}
            for protocol, sent, stored in comparison.protocols
        },
        "refused": result.refused,
        "quotas": [decisions._asdict() for decisions in result.decisions],
        "dropped": result.stats["dropped"],
        "failed": result.failed,
        "warnings": result.warnings,
        "missing": [request.request_id for request in comparison.missing],
        "repeated": list(comparison.repeated),
        "unknown": list(comparison.unknown),
        "differing": [request.request_id for request, _ in comparison.differing],
        "elapsed_s": round(result.elapsed_s, 3),
        "rows_per_s": round(comparison.stored / result.elapsed_s, 1),
        "latency_ms": {
            name: {"audited": round(audited, 3), "bare": round(bare, 3)}
            for name, (audited, bare) in _percentiles(result.latency).items()
        },
        "kept": None if result.kept is None else str(result.kept),
    }


def look_line(database: EmbeddedServer) -> str:
    """Return the shell line with which to look for oneself, while the database runs."""
    query = _LOOK.format(Literal(Settings.from_environment().instance_id)).as_string()
    return f"  {database.psql_command} -c {shlex.quote(query)}"


def keep_hint() -> str:
    """Tell how to look for oneself, after a run that keeps nothing."""
    return "To look for yourself, run it with --keep: it then serves on, and tells the psql line."


def restart_hint(kept: Path, database: EmbeddedServer) -> str:
    """Tell how to serve the same data again, and look at it."""
    dsn = shlex.quote(f"embedded:{kept}")
    return (
        f"The data stays in {kept}. To serve it again:\n"
        f"  AUDITLOG_DSN={dsn} {shlex.quote(sys.executable)} -m uvicorn --factory {AUDITED}\n"
        f"and meanwhile, to look for yourself:\n{look_line(database)}"
    )


def _outcomes(conn: psycopg.Connection[Any], run_id: str) -> Table:
    rows = conn.execute(_OUTCOMES_SQL, [f"{run_id}-"]).fetchall()
    total = sum(count for _, count in rows) or 1
    table = plain_table("By outcome")
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for outcome, count in rows:
        table.add_row(outcome, str(count), f"{count / total:.1%}")
    return table


def _protocols(comparison: Comparison) -> Table:
    table = plain_table("By protocol")
    table.add_column("protocol")
    table.add_column("sent", justify="right")
    table.add_column("stored", justify="right")
    for protocol, sent, stored in comparison.protocols:
        table.add_row(protocol.name.lower(), str(sent), str(stored))
    return table


def _quotas(decisions: list[Decisions]) -> Table:
    table = plain_table("By quota: rows of logstore.quota_logs")
    table.add_column("quota")
    table.add_column("used", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("told")
    table.add_column("rows", justify="right")
    for each in decisions:
        cells = (each.quota_id, each.current_usage, each.quota_limit, _told(each), each.rows)
        table.add_row(*map(str, cells))
    return table


def _told(decisions: Decisions) -> str:
    if decisions.threshold_exceeded:
        return f"{decisions.current_usage * 100 // decisions.quota_limit} % is used"
    return "allowed" if decisions.allowed else "refused"


def _figures(result: Result) -> Table:
    comparison, latency = result.comparison, result.latency
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_column(overflow="fold")
    grid.add_row("requests sent", str(comparison.sent), "of a batch, every operation counts")
    grid.add_row(
        "rows stored", str(comparison.stored), "joined by the id of the request, one by one"
    )
    reasons = [f"{count} {name}" for name, count in result.stats["dropped_by_reason"].items()]
    note = ", ".join(reasons) or "as the application counts"
    grid.add_row("dropped", str(result.stats["dropped"]), note)
    note = f"answers of {REFUSED}; {result.refusals} refusals in logstore.quota_logs"
    grid.add_row("refused by a quota", str(result.refused), note)
    rate = comparison.stored / result.elapsed_s
    grid.add_row("rows/s", f"{rate:.0f}", f"over {result.elapsed_s:.1f} s; the pace, not the limit")
    for name, (audited, bare) in _percentiles(latency).items():
        note = f"{audited:.2f} ms with the middleware, {bare:.2f} without"
        grid.add_row(f"added latency {name}", f"{audited - bare:+.2f} ms", note)
    note = f"{len(latency.audited)} reads of one order on each, in turn, under the same other load"
    grid.add_row("", "", note)
    return grid


def _percentiles(latency: Latency) -> dict[str, tuple[float, float]]:
    return {"p50": latency.percentiles(0.5), "p99": latency.percentiles(0.99)}


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
        "refused by a quota": _unequal(result),
        "could not be made": result.failed,
        "warnings in the application's log": result.warnings,
    }
    return [
        f"{title} ({len(items)}): {'; '.join(items[:_NAMED_AT_MOST])}"
        + (" …" if len(items) > _NAMED_AT_MOST else "")
        for title, items in found.items()
        if items
    ]


def _unequal(result: Result) -> list[str]:
    if result.refused == result.refusals:
        return []
    return [f"{result.refused} answers of {REFUSED}, {result.refusals} rows of it"]
