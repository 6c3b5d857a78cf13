"""`auditlog reconcile`: whether every record is accounted for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from auditlog.cli import reconcile_report as report
from auditlog.cli.durations import duration
from auditlog.cli.failures import Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import put, put_json, say, stdout
from auditlog.cli.spool import SpoolDirectory
from auditlog.errors import SettingsError
from auditlog.postgres.causes import Connection, connect
from auditlog.query.reconcile import obstacles
from auditlog.query.reconcile import reconcile as compare
from auditlog.query.reconciliation import Spooled
from auditlog.query.verdicts import is_well
from auditlog.sink.spool.inspection import survey


def moment(text: str) -> datetime:
    """Read a length of time as one ago, or a date in ISO 8601; without a zone it is UTC.

    Raises:
        typer.BadParameter: anything else, with an example of what would do.
    """
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return datetime.now(UTC) - _ago(text)
    return when if when.utcoffset() is not None else when.replace(tzinfo=UTC)


def _ago(text: str) -> timedelta:
    try:
        return duration(text)
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{text!r} is no point in time; write 24h for as long ago, or 2026-11-28T12:00+01:00"
        ) from None


def reconcile(
    dsn: Dsn = None,
    *,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            help="Look at what was recorded from then on: 24h ago, or a date.",
            show_default=False,
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", help="And before then, likewise.", show_default=False
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Only this tenant's lives, gaps and requests; the tables are compared whole.",
            show_default=False,
        ),
    ] = None,
    spool_dir: SpoolDirectory = None,
    silent_after: Annotated[
        timedelta,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="A log that commits nothing for so long, and did not stop, was killed. Longer"
            " than your service is idle.",
        ),
    ] = "10m",  # type: ignore[assignment]  # the parser reads the default too
    timeout: Annotated[
        timedelta,
        typer.Option(
            parser=duration, metavar="DURATION", help="Give up on a question after so long."
        ),
    ] = "10m",  # type: ignore[assignment]  # likewise
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 for what is lost or waits with a reason, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether every record is accounted for: the ledger against the tables, and what is told.

    Exit 1 if records are missing, or are there, and nothing says why. Exit 2 or 3: it cannot be
    told, for lack of a setting, a right, time, or a database that answers.
    """
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter("--since must be before --until, or nothing is looked at")
    spooled = _spooled(spool_dir)
    with connect(required(dsn)) as conn:
        _check(conn)
        try:
            found = compare(
                conn,
                since=since,
                until=until,
                tenant=tenant,
                silent_after=silent_after,
                timeout=timeout,
                step=say,
            )
        except psycopg.errors.QueryCanceled:
            say("It takes longer than --timeout: give it more time, or look at less by --since.")
            raise typer.Exit(Exit.USAGE) from None
    found = replace(found, spooled=spooled)
    if as_json:
        put_json(report.as_json(found, strict=strict))
    else:
        stdout().print(report.table_of(found))
        for line in report.lines_of(found):
            put(line)
    if not is_well(found, strict=strict):
        raise typer.Exit(Exit.NOT_WELL)


def _check(conn: Connection) -> None:
    if found := obstacles(conn):
        for obstacle in found:
            say(f"auditlog: {obstacle}")
        raise typer.Exit(Exit.USAGE)


def _spooled(spool_dir: Path | None) -> Spooled | None:
    """Count what a spool holds, before the database is looked at.

    A record that is shipped in between is then counted twice, and never not at all.
    """
    if spool_dir is None:
        return None
    if not spool_dir.is_dir():
        raise SettingsError(f"{spool_dir} is no folder: --spool-dir is where the spool is")
    try:
        lanes = survey(str(spool_dir))
    except OSError as error:
        raise SettingsError(
            f"the spool cannot be read: {error.strerror}: run this as the user of the service"
        ) from error
    return Spooled(sum(lane.rows for lane in lanes), sum(lane.damaged for lane in lanes))
