"""`auditlog hold …`: rows that nothing deletes, however old they become."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import typer
from rich.table import Table

from auditlog.cli.failures import EXIT_CODES
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import cell, plain, put, put_json, say, stdout
from auditlog.cli.partition_options import NAMES
from auditlog.cli.partitions_report import moment as written
from auditlog.cli.partitions_report import span
from auditlog.cli.reconcile import moment
from auditlog.cli.rows import plain_table
from auditlog.partitions import holding
from auditlog.partitions.session import maintenance

Reason: TypeAlias = Annotated[
    str, typer.Option(help="Why: the matter, as its file names it; it is written into the trail.")
]
By: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who does it.", show_default="the login")
]
Moment: TypeAlias = datetime | None

app = typer.Typer(help="Hold rows that are evidence: nothing deletes them.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Hold rows that are evidence: no retention deletes them until the hold is released."""


@app.command(epilog=EXIT_CODES)
def add(
    dsn: Dsn = None,
    *,
    reason: Reason,
    table: Annotated[
        str | None, typer.Option(help="Only this table.", show_default=False)
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only rows of this tenant.", show_default=False)
    ] = None,
    start: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            parser=moment,
            metavar="TIME",
            help="Only rows from then on: a date, or 24h for as long ago.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            parser=moment,
            metavar="TIME",
            help="Only rows before then, likewise.",
            show_default=False,
        ),
    ] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Place a hold, and print its identity; without any option it covers everything."""
    _check_reason(reason)
    if table not in (None, *NAMES):
        raise typer.BadParameter(f"there is no table {table!r}: {', '.join(NAMES)}")
    if start is not None and end is not None and start >= end:
        raise typer.BadParameter("--from must be before --until, or nothing is held")
    with maintenance(required(dsn)) as conn:
        hold = holding.place(
            conn, table=table, instance_id=tenant, start=start, end=end, reason=reason, by=by
        )
    if as_json:
        put_json({"hold_id": hold.hold_id})
    else:
        put(hold.hold_id)
        say(f"Held: {plain(covered(table, tenant))}, {span(start, end)}.")


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise typer.BadParameter("--reason must say why")


def covered(table: str | None, tenant: str | None) -> str:
    """Return whose rows of which table a hold covers."""
    whose = f"tenant {tenant}" if tenant is not None else "every tenant"
    return f"{whose} in {table or 'every table'}"
