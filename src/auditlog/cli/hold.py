"""`auditlog hold …`: rows that nothing deletes, however old they become."""

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, TypeAlias

import typer
from rich.table import Table

from auditlog.cli.failures import EXIT_CODES
from auditlog.cli.options import AsJson, Dsn, legible, required
from auditlog.cli.output import cell, plain, put, put_json, say, stdout
from auditlog.cli.partition_options import NAMES
from auditlog.cli.partitions_report import moment as written
from auditlog.cli.partitions_report import span
from auditlog.cli.reconcile import moment
from auditlog.cli.rows import plain_table
from auditlog.partitions.model import Hold
from auditlog.partitions.retention import holding
from auditlog.partitions.retention.holding import ListedHold
from auditlog.partitions.session import maintenance

Reason: TypeAlias = Annotated[
    str, typer.Option(help="Why: the matter, as its file names it; it is written into the trail.")
]
By: TypeAlias = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who does it.", show_default="the login")
]
_UUID_CHARS = 36

app = typer.Typer(help="Hold rows that are evidence: nothing deletes them.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Hold rows that are evidence: no retention deletes them until the hold is released."""


@app.command(epilog=EXIT_CODES)
def add(
    dsn: Dsn = None,
    *,
    reason: Reason,
    table: Annotated[str | None, typer.Option(help="Only this table.", show_default=False)] = None,
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
    _check(tenant, by)
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
        say(f"Held: {_covered(hold)}.")


@app.command("list", epilog=EXIT_CODES)
def listed(
    dsn: Dsn = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that were released.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the holds, the oldest first."""
    with maintenance(required(dsn)) as conn:
        found = holding.listed(conn, released=every)
    if as_json:
        put_json([dataclasses.asdict(hold) for hold in found])
    elif found:
        stdout().print(_table(found, every=every))
    else:
        say("There are no holds." if every else "Nothing is held.")


@app.command(epilog=EXIT_CODES)
def release(
    hold: Annotated[
        str, typer.Argument(metavar="ID", help="A hold, by the beginning of its identity.")
    ],
    dsn: Dsn = None,
    *,
    reason: Reason,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """End a hold: what it covered may be deleted from now on. It stays listed by `--all`."""
    _check_reason(reason)
    _check(by)
    with maintenance(required(dsn)) as conn:
        hold_id = _identity(hold, holding.listed(conn))
        released = holding.release(conn, hold_id, reason=reason, by=by)
    if as_json:
        put_json(dataclasses.asdict(released))
    else:
        put(f"released {released.hold_id}")
        say(f"No longer held: {_covered(released)}.")


def _check(*texts: str | None) -> None:
    for text in texts:
        legible(text or "")


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise typer.BadParameter("--reason must say why")
    legible(reason)


def _identity(beginning: str, holds: list[ListedHold]) -> str:
    found = [hold.hold_id for hold in holds if hold.hold_id.startswith(beginning.lower())]
    if beginning and len(found) == 1:
        return found[0]
    raise typer.BadParameter(
        f"{'more than one hold begins' if found else 'no hold in force begins'} with {beginning!r}:"
        " `auditlog hold list` shows them"
    )


def _covered(hold: Hold | ListedHold) -> str:
    """Return whose rows of which table a hold covers, from when to when."""
    whose = "every tenant" if hold.instance_id is None else f"tenant {hold.instance_id}"
    return plain(f"{whose} in {hold.table or 'every table'}, {span(hold.start, hold.end)}")


def _table(holds: Iterable[ListedHold], *, every: bool) -> Table:
    table = plain_table()
    table.add_column("id", min_width=_UUID_CHARS)
    table.add_column("covers", overflow="fold", min_width=12)
    table.add_column("reason", overflow="fold", min_width=10)
    table.add_column("placed", overflow="fold", min_width=10)
    if every:
        table.add_column("released", overflow="fold", min_width=10)
    for hold in holds:
        table.add_row(*map(cell, _cells(hold)[: len(table.columns)]))
    return table


def _cells(hold: ListedHold) -> tuple[str, ...]:
    released = ""
    if hold.released_at is not None:
        released = f"{written(hold.released_at)} by {hold.released_by}: {hold.release_reason}"
    placed = f"{written(hold.placed_at)} by {hold.placed_by}"
    return (hold.hold_id, _covered(hold), hold.reason, placed, released)
