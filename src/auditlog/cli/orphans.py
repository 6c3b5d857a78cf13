"""`auditlog orphans`: requests that have begun and have no end in the trail."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from auditlog.cli.durations import duration, shown
from auditlog.cli.failures import Exit
from auditlog.cli.options import Dsn, required
from auditlog.cli.output import cell, put_json_lines, say, stdout
from auditlog.cli.rows import plain_table
from auditlog.postgres.causes import connect
from auditlog.query.orphans import Orphan, find_orphans
from auditlog.tables import LOGS

_UUID_CHARS = 36


def orphans(
    dsn: Dsn = None,
    *,
    since: Annotated[
        timedelta,
        typer.Option(parser=duration, metavar="DURATION", help="How far back to look: 90s, 24h."),
    ] = "24h",  # type: ignore[assignment]  # the parser reads the default too
    older_than: Annotated[
        timedelta,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="Leave out what began more recently: it may well be at work still.",
        ),
    ] = "60s",  # type: ignore[assignment]  # likewise
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's rows.", show_default=False)
    ] = None,
    rows: Annotated[
        int, typer.Option("-n", "--rows", min=1, max=100_000, help="How many rows.")
    ] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each row as one line of JSON, whole.")
    ] = False,
) -> None:
    """Print received rows without a complete row, the very newest last; exit 1 if there are any.

    Their process died, or they are being served still: the trail cannot tell which.
    """
    if older_than >= since:
        raise typer.BadParameter(
            "--since must be longer than --older-than, or nothing is looked at"
        )
    with connect(required(dsn)) as conn:
        # One more than is shown tells that there are more.
        found = find_orphans(
            conn, since=since, older_than=older_than, tenant=tenant, limit=rows + 1
        )
    if not found:
        say(f"Every request received within {shown(since)} has its end.")
        return
    newest = found[-rows:]
    if as_json:
        put_json_lines(map(_fields, newest))
    else:
        stdout().print(_table(newest))
    more = f" There are more than these {rows}; -n shows them." if len(found) > rows else ""
    say(f"Without an end: {len(newest)}. The process died, or the request is still open.{more}")
    raise typer.Exit(Exit.NOT_WELL)


def _fields(orphan: Orphan) -> dict[str, Any]:
    columns = {column.name: getattr(orphan.record, column.name) for column in LOGS.columns}
    return {**columns, "age_s": round(orphan.age.total_seconds(), 3)}


def _table(found: Iterable[Orphan]) -> Table:
    table = plain_table()
    table.add_column("received", min_width=14)
    table.add_column("age", min_width=6, justify="right")
    table.add_column("method", min_width=6)
    table.add_column("url", overflow="ellipsis", min_width=6, max_width=60)
    table.add_column("user", min_width=4)
    table.add_column("exchange", min_width=_UUID_CHARS)
    for orphan in found:
        table.add_row(*map(cell, _cells(orphan)))
    return table


def _cells(orphan: Orphan) -> tuple[object, ...]:
    record = orphan.record
    when = record.log_date
    return (
        f"{when:%m-%d %H:%M:%S}" if isinstance(when, datetime) else when,
        shown(orphan.age),
        record.request_method,
        record.request_url,
        record.user_id,
        record.log_id,
    )
