"""`auditlog partitions …`: cut tables by date, plan, maintain, look at them, and go back."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import psycopg
import typer

from auditlog.cli import partitions_report as report
from auditlog.cli import partitions_status as shown
from auditlog.cli.failures import EXIT_CODES, Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import plain, put, put_json, say, stdout
from auditlog.cli.partition_options import Configs, Tables, chosen, with_settings
from auditlog.cli.partition_progress import shown_steps
from auditlog.cli.partitions_enable import disable, enable
from auditlog.cli.quota_cleaning import DEFAULT_KEEP, KeepUsage, QuotaCleaning, clean_quotas
from auditlog.cli.textfile import check_writable, json_text, replace
from auditlog.errors import PartitionError
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


Form: TypeAlias = Annotated[Format, typer.Option("--format", help="How to write the report.")]
ShortForJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Short for --format json.")]

app = typer.Typer(help="Keep the partitions of tables.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Cut tables by date, make partitions ahead, and retire those whose time is over."""


app.command("enable", epilog=EXIT_CODES)(enable)
app.command("disable", epilog=EXIT_CODES)(disable)


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
    form: Form = Format.TEXT,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the report there, atomically; print only what is wrong.",
            show_default=False,
        ),
    ] = None,
    keep_quota_usage: KeepUsage = DEFAULT_KEEP,  # type: ignore[assignment]  # it is parsed
    as_json: ShortForJson = False,
) -> None:
    """Make what `plan` shows: partitions ahead, what they lack, and what retention is due.

    Afterwards counters of quotas go whose period ended long ago.

    It may be killed, and run twice at once. Exit 1 if a step failed, was refused or waits, or
    something needs somebody; 4 if another run is at work.
    """
    if output is not None:
        check_writable(output)
    address = required(dsn)
    wanted = chosen(address, tables, configs)
    if not wanted:
        say(NOTHING)
    with shown_steps() as steps:
        reports = maintain_tables(address, wanted, on_step=steps.begun, on_done=steps.ended)
        quotas = clean_quotas(
            address,
            keep_quota_usage,
            on_progress=lambda text: steps.progress.update(steps.task, description=text),
        )
    written = Format.JSON if as_json else form
    if output is None:
        _put(_run_as(written, reports, quotas, address, wanted))
        if written is Format.PROMETHEUS:
            _say_lines(quotas.lines_of_trouble())
    else:
        replace(output, _run_as(written, reports, quotas, address, wanted))
        _say_lines((*report.lines_of_trouble(reports), *quotas.lines_of_trouble()))
    _leave(Exit.NOT_WELL if quotas.error else report.verdict(reports))


@app.command(epilog=EXIT_CODES)
@with_settings
def status(
    configs: Configs,
    tables: Tables = None,
    dsn: Dsn = None,
    *,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="List each partition too.")
    ] = False,
    form: Form = Format.TEXT,
    as_json: ShortForJson = False,
) -> None:
    """Print how far each table is covered, and what is wrong.

    Exit 1 if something needs somebody, or the runway is shorter than half of what is wanted.
    """
    address = required(dsn)
    wanted = chosen(address, tables, configs)
    statuses = look_at(address, wanted) if wanted else []
    if as_json or form is Format.JSON:
        put_json(shown.as_json(statuses))
    elif form is Format.PROMETHEUS:
        _put(exposition(statuses))
    elif statuses:
        _show(statuses, partitions=partitions)
    else:
        say(NOTHING)
    _leave(Exit.NOT_WELL if any(each.needs_somebody for each in statuses) else Exit.OK)


def _run_as(
    form: Format, reports: list[TableReport], quotas: QuotaCleaning, dsn: str, wanted: Configs
) -> str:
    if form is Format.JSON:
        return json_text({**report.run_as_json(reports), "quotas": quotas.as_json()})
    if form is Format.TEXT:
        lines = (*report.lines_of_run(reports), *quotas.lines())
        return "".join(f"{plain(line)}\n" for line in lines)
    outcomes = [outcome for each in reports for outcome in each.outcomes]
    return exposition(_afterwards(dsn, wanted) if wanted else [], outcomes)


def _afterwards(dsn: str, wanted: Configs) -> list[TableStatus]:
    """Look at the tables after a run, whose report is not lost where that cannot be done."""
    try:
        return look_at(dsn, wanted)
    except (psycopg.Error, PartitionError) as error:
        return [TableStatus(table, error=str(error)) for table in wanted]


def _show(statuses: list[TableStatus], *, partitions: bool) -> None:
    stdout().print(shown.table_of(statuses))
    for each in statuses:
        if partitions and each.state is not None:
            stdout().print(shown.leaves_of(each.state))
    _put_lines(line for each in statuses for line in shown.lines_of(each))


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _put_lines(lines: Iterable[str]) -> None:
    for line in lines:
        put(plain(line))


def _say_lines(lines: Iterable[str]) -> None:
    for line in lines:
        say(plain(line))


def _leave(code: Exit) -> None:
    if code is not Exit.OK:
        raise typer.Exit(code)
