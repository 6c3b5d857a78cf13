"""`auditlog spool …`: what waits on disk, whether it is whole, and how to get it out by hand."""

import dataclasses
import os
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.table import Table

from auditlog.cli.failures import EXIT_CODES, Exit
from auditlog.cli.options import AsJson
from auditlog.cli.output import cell, put, put_json, say, stdout
from auditlog.cli.rows import plain_table
from auditlog.errors import SettingsError
from auditlog.sink.spool.inspection import (
    DAMAGE,
    LOST,
    NEWER,
    TORN,
    UNREADABLE,
    Finding,
    LaneReport,
    Verification,
    all_segments,
    copy_command,
    set_aside,
    survey,
)
from auditlog.sink.spool.inspection import (
    export as export_rows,
)
from auditlog.sink.spool.inspection import (
    verify as verify_frames,
)
from auditlog.sink.spool.segment import SEGMENT_NAME, Segment, segments_of
from auditlog.tables import EXECUTION_LOGS, LOGS, QUOTA_LOGS, TABLES


class TableName(StrEnum):
    """Whose rows are exported."""

    LOGS = LOGS.name
    EXECUTION_LOGS = EXECUTION_LOGS.name
    QUOTA_LOGS = QUOTA_LOGS.name


_UUID_CHARS = 36
# Of a moment in ISO 8601: what is shown begins and ends there.
_MONTH, _FRACTION = 5, 19
_TABLE_OF = {table.name: table for table in TABLES}

_MEANINGS = {
    TORN: "its writer ended in mid-write; that record was never acknowledged",
    DAMAGE: "these bytes are no record; check the disk",
    UNREADABLE: "both copies of the header are damaged; check the disk",
    NEWER: "a newer version of this package wrote it; use that one to ship or export it",
    LOST: "they were here, and cannot be read",
}

SpoolDirectory: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--spool-dir",
        envvar="AUDITLOG_SPOOL_DIR",
        help="The spool's folder, as in the setting spool_dir.",
        show_default=False,
    ),
]

app = typer.Typer(help="Look into the spool.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look into the spool; nothing here changes it, and its writers may be at work."""


@app.command(epilog=EXIT_CODES)
def status(spool_dir: SpoolDirectory = None, as_json: AsJson = False) -> None:
    """Print each writer's share of the spool; exit 1 if something in it is damaged."""
    directory = _required(spool_dir)
    reports, kept = survey(directory), set_aside(directory)
    if as_json:
        put_json({"lanes": [_lane_fields(report) for report in reports], "set_aside": kept})
    elif reports:
        stdout().print(_table(reports))
    else:
        say("The spool is empty.")
    if kept:
        say(f"Damaged bytes were set aside in {len(kept)} files: {os.path.dirname(kept[0])}")
    if kept or any(report.damaged for report in reports):
        raise typer.Exit(Exit.NOT_WELL)


@app.command(epilog=EXIT_CODES)
def verify(spool_dir: SpoolDirectory = None, as_json: AsJson = False) -> None:
    """Read every record of the spool; exit 1 if there is damage.

    What a writer left unfinished when it was killed, a torn tail, is told, and is no damage.
    """
    found = verify_frames(_required(spool_dir))
    if as_json:
        put_json(_verification_fields(found))
    else:
        for finding in found.findings:
            put(_line(finding))
        for path in found.set_aside:
            put(f"set aside: {path}: damaged bytes that were met and counted before")
        say(f"Whole records: {found.records}. {_verdict(found)}")
    if not found.is_well or found.set_aside:
        raise typer.Exit(Exit.NOT_WELL)


@app.command(epilog=EXIT_CODES)
def export(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write; must not exist yet.")
    ],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Segments, or folders of lanes; without any, the whole spool.",
            metavar="[SEGMENT|LANE]...",
            show_default=False,
        ),
    ] = None,
    *,
    table: Annotated[TableName, typer.Option(help="Whose rows.")] = TableName.LOGS,
    everything: Annotated[
        bool, typer.Option("--all", help="Also rows that are known to be stored.")
    ] = False,
    spool_dir: SpoolDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Write rows that wait as a file for COPY, and print the line for psql that loads it.

    The rows stay in the spool. Exit 1 if some of what was to be exported is damaged.
    """
    segments = _segments(sources) if sources else all_segments(_required(spool_dir))
    findings: list[Finding] = []
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        rows = export_rows(
            segments, _TABLE_OF[table], out, everything=everything, on_finding=findings.append
        )
    command = copy_command(_TABLE_OF[table], str(output))
    if as_json:
        put_json({"rows": rows, "command": command, "findings": [*map(_fields, findings)]})
    else:
        put(command)
    for finding in findings:
        say(_line(finding))
    say(f"Rows: {rows}.")
    if any(finding.is_damage for finding in findings):
        raise typer.Exit(Exit.NOT_WELL)


def _required(spool_dir: Path | None) -> str:
    if spool_dir is None:
        raise SettingsError("no spool: give --spool-dir PATH, or set AUDITLOG_SPOOL_DIR")
    if not spool_dir.is_dir():
        raise SettingsError(f"{spool_dir} is no folder: --spool-dir is where the spool is")
    return str(spool_dir)


def _segments(sources: list[Path]) -> list[Segment]:
    segments: list[Segment] = []
    for path in sources:
        if path.is_dir():
            segments += segments_of(str(path))
        elif SEGMENT_NAME.fullmatch(path.name):
            segments.append(Segment(str(path), end=path.stat().st_size))
        else:
            raise SettingsError(f"{path} is no segment: their names are like 0000000001.segment")
    return segments


def _lane_fields(report: LaneReport) -> dict[str, Any]:
    fields = dataclasses.asdict(report)
    oldest, newest = fields.pop("oldest_us"), fields.pop("newest_us")
    return {**fields, "oldest": _moment(oldest), "newest": _moment(newest)}


def _table(reports: list[LaneReport]) -> Table:
    table = plain_table()
    table.add_column("lane", min_width=_UUID_CHARS)
    table.add_column("writer", overflow="ellipsis", min_width=6)
    table.add_column("alive", min_width=5)
    table.add_column("rows", min_width=6, justify="right")
    table.add_column("oldest", min_width=14)
    table.add_column("bytes", min_width=8, justify="right")
    table.add_column("damaged", min_width=7, justify="right")
    for report in reports:
        cells = (
            report.lane,
            report.writer,
            "yes" if report.is_alive else "no",
            report.rows,
            (_moment(report.oldest_us) or "")[_MONTH:_FRACTION].replace("T", " "),
            report.size,
            report.damaged,
        )
        table.add_row(*map(cell, cells))
    return table


def _fields(finding: Finding) -> dict[str, Any]:
    return {**dataclasses.asdict(finding), "is_damage": finding.is_damage}


def _verification_fields(found: Verification) -> dict[str, Any]:
    return {
        "records": found.records,
        "lost": sum(finding.lost for finding in found.findings),
        "findings": [*map(_fields, found.findings)],
        "set_aside": found.set_aside,
    }


def _line(finding: Finding) -> str:
    where = "" if finding.end is None else f" up to byte {finding.end}"
    if finding.offset is not None:
        where = f" bytes {finding.offset} to {finding.end}"
    what = finding.kind + (f" ({finding.detail})" if finding.detail else "")
    if finding.lost:
        what = f"{'' if finding.exact else 'at least '}{finding.lost} {what}"
    return f"{finding.file}{where}: {what}: {_MEANINGS[finding.kind]}"


def _verdict(found: Verification) -> str:
    lost = sum(finding.lost for finding in found.findings)
    if lost:
        exact = all(finding.exact for finding in found.findings)
        return f"Lost: {'' if exact else 'at least '}{lost}."
    return "No record is lost." if found.is_well else "There is damage, and no record is lost."


def _moment(us: int | None) -> str | None:
    if us is None:
        return None
    try:
        return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{us} µs"  # PostgreSQL knows years that Python does not
