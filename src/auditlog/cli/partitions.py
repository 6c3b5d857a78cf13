"""`auditlog partitions …`: enable, plan, maintain, look at; and go back."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from auditlog.cli import partitions_report as report
from auditlog.cli import partitions_status as shown
from auditlog.cli.failures import EXIT_CODES, Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import plain, put, put_json, say, stdout
from auditlog.cli.partition_options import ConfigFile, Configs, Tables, chosen, with_settings
from auditlog.cli.partition_progress import shown_steps
from auditlog.cli.textfile import replaced, writable
from auditlog.partitions.config import load
from auditlog.partitions.exposition import exposition
from auditlog.partitions.maintaining import maintain as maintain_tables
from auditlog.partitions.maintaining import preview
from auditlog.partitions.model import TableReport
from auditlog.partitions.status import TableStatus
from auditlog.partitions.status import status as look_at

NOTHING = "No table is partitioned: `auditlog partitions enable logs --by month` does it."


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"
    PROMETHEUS = "prometheus"


FormatOption: TypeAlias = Annotated[
    Format, typer.Option("--format", help="How to write it; --json is short for json.")
]

app = typer.Typer(help="Keep the partitions of tables.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Cut tables by date, make partitions ahead, and retire those whose time is over."""


@app.command(epilog=EXIT_CODES)
@with_settings
def plan(
    configs: Configs, tables: Tables = None, dsn: Dsn = None, *, as_json: AsJson = False
) -> None:
    """Print every step that `maintain` would make, with what it locks and waits for; do nothing.

    Exit 1 if something needs somebody, or a table cannot be looked at.
    """
    address = required(dsn)
    wanted = chosen(address, tables, configs)
    reports = preview(address, wanted) if wanted else []
    if as_json:
        put_json(report.plans_as_json(reports))
    elif reports:
        _put_lines(report.lines_of_plans(reports))
    else:
        say(NOTHING)
    _leave(report.verdict(reports))


@app.command(epilog=EXIT_CODES)
@with_settings
def maintain(
    configs: Configs,
    tables: Tables = None,
    dsn: Dsn = None,
    *,
    form: FormatOption = Format.TEXT,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write there, atomically, instead of to stdout: for a textfile collector.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make what `plan` shows: partitions ahead, what they lack, and what retention is due.

    Each table on its own. May be killed, and run twice at once. Exit 1 if a step failed, was
    refused or waits, or something needs somebody; 4 if another run is at work.
    """
    if output is not None:
        writable(output)
    address = required(dsn)
    wanted = chosen(address, tables, configs)
    with shown_steps() as steps:
        reports = maintain_tables(address, wanted, **steps) if wanted else []
    if not wanted:
        say(NOTHING)
    text = _written(reports, Format.JSON if as_json else form, address, wanted)
    if output is not None:
        replaced(output, text)
    else:
        ...
    _leave(report.verdict(reports))
