"""`auditlog partitions enable` and `disable`: a plain table becomes a partitioned one, and back."""

import dataclasses
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, TypeAlias, cast

import psycopg
import typer

from auditlog.cli.failures import Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import plain, put, put_json, say, stderr
from auditlog.cli.partition_options import NAMES, known
from auditlog.cli.partitions_report import lines_of_findings, moment
from auditlog.errors import PartitionError
from auditlog.partitions.applying import why
from auditlog.partitions.conversion.disabling import disable as disable_table
from auditlog.partitions.conversion.enabling import enable as enable_table
from auditlog.partitions.conversion.preflight import examine, examine_back
from auditlog.partitions.model import Finding, Step
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.spans import parse as parse_span
from auditlog.postgres.causes import Connection


class StepName(StrEnum):
    """Length of a partition."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def length(text: str) -> Span:
    """Read a length of time in the calendar, as an option has it."""
    try:
        return parse_span(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Named: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="TABLE", help=f"{', '.join(NAMES)}, or all.")
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", help="Only say what stands in the way; change nothing.")
]
Report: TypeAlias = dict[str, Any]
"""Of one table: `table`, `result`, `findings`, and what else there is to tell."""

_UNWELL = ("refused", "failed")
_SETTING = "SELECT step FROM logstore.partitioning WHERE table_name = %s"


def enable(
    tables: Named,
    dsn: Dsn = None,
    *,
    by: Annotated[
        StepName | None,
        typer.Option(
            metavar="STEP",
            help="day, week (from Monday) or month; month, or as it is, if none is given.",
            show_default=False,
        ),
    ] = None,
    ahead: Annotated[
        Span | None,
        typer.Option(
            parser=length,
            metavar="SPAN",
            help="For how long there are to be partitions: 3 months.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make partitioned tables of plain ones, while they are written and read; no row is moved.

    Exit 1 if something stands in the way, with what mends it; the table is then as it was. Of a
    table that is partitioned, the settings are changed.
    """
    look = partial(_before_enabling, by=by)
    deed = partial(_examined, look=look) if dry_run else partial(_enabled, by=by, ahead=ahead)
    _run(tables, dsn, deed, as_json=as_json)


def disable(
    tables: Named, dsn: Dsn = None, *, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Make plain tables of partitioned ones again, with all their rows.

    Exit 1 if something stands in the way, with what mends it.
    """
    deed = partial(_examined, look=examine_back) if dry_run else _disabled
    _run(tables, dsn, deed, as_json=as_json)


def _run(
    tables: list[str],
    dsn: str | None,
    deed: Callable[[Connection, str], Report],
    *,
    as_json: bool,
) -> None:
    names = known(tables)
    with maintenance(required(dsn)) as conn:
        reports = [_kept(conn, name, deed) for name in names]
    if as_json:
        put_json({"tables": reports})
    else:
        for report in reports:
            for line in _lines(report):
                put(plain(line))
    results = {report["result"] for report in reports}
    if results & set(_UNWELL):
        raise typer.Exit(Exit.NOT_WELL)
    if "busy" in results:
        raise typer.Exit(Exit.BUSY)


def _kept(conn: Connection, table: str, deed: Callable[[Connection, str], Report]) -> Report:
    """Do it with one table, and go on with the next whatever becomes of it."""
    try:
        return deed(conn, table)
    except (psycopg.Error, PartitionError) as error:
        if conn.broken:
            raise
        notes = getattr(error, "__notes__", ())
        reason = "; ".join([why(conn, table, error), *notes])
        return {"table": table, "result": "failed", "findings": [], "error": reason}


def _enabled(conn: Connection, table: str, *, by: StepName | None, ahead: Span | None) -> Report:
    step = _step(conn, table, by)
    return dataclasses.asdict(enable_table(conn, table, step, ahead=ahead, on_step=_shown_step))


def _before_enabling(conn: Connection, table: str, *, by: StepName | None) -> list[Finding]:
    return examine(conn, table, _step(conn, table, by))


def _step(conn: Connection, table: str, by: StepName | None) -> Step:
    """Return what is asked for, or what is so already, or what does for most."""
    if by is not None:
        return by.value
    found = conn.execute(_SETTING, [table]).fetchone()
    return cast("Step", found[0]) if found else "month"


def _disabled(conn: Connection, table: str) -> Report:
    return dataclasses.asdict(disable_table(conn, table, on_step=_shown_step))


def _examined(
    conn: Connection, table: str, *, look: Callable[[Connection, str], list[Finding]]
) -> Report:
    findings = look(conn, table)
    stands = any(finding.severity == "human" for finding in findings)
    return {
        "table": table,
        "result": "refused" if stands else "well",
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _shown_step(stage: str, about: str) -> None:
    if stderr().is_terminal:
        say(plain(f"{stage} {about}"))


def _lines(report: Report) -> Iterator[str]:
    yield f"{report['table']}: {_conclusion(report)}"
    yield from lines_of_findings(Finding(**finding) for finding in report["findings"])


def _conclusion(report: Report) -> str:
    result = report["result"]
    if result == "failed":
        return f"failed: {report['error']}"
    if result == "done":
        return _deed(report)
    return _CONCLUSIONS[result]


_CONCLUSIONS = {
    "already": "it is so already; its settings are as given from now on",
    "busy": "another run is at work on it",
    "refused": "something stands in the way, and nothing was changed",
    "well": "nothing stands in the way",
}


def _deed(report: Report) -> str:
    locked = f"locked for {1000 * report['locked_s']:.1f} ms"
    if "rows_moved" in report:
        return f"a plain table again; {report['rows_moved']:,} rows were moved; {locked}"
    until = moment(report["end_of_legacy"])
    return (
        f"partitioned; {report['table']}_legacy has the rows from before, until {until};"
        f" made {', '.join(report['partitions'])}; {locked}"
    )
