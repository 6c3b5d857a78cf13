"""What the commands about partitions share: tables, and what is wanted of them, spelt once.

docs/partitions.md explains the settings; a flag precedes the file.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from auditlog.errors import SettingsError
from auditlog.partitions.configuration.config import load
from auditlog.partitions.model import TableConfig
from auditlog.partitions.status import partitioned
from auditlog.postgres.causes import connect
from auditlog.tables import TABLES

Configs: TypeAlias = Mapping[str, TableConfig]

EVERY = "all"
NAMES = tuple(table.name for table in TABLES)

Tables: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TABLE",
        help=f"{', '.join(NAMES)}; without any, all that are partitioned.",
        show_default=False,
    ),
]
ConfigFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings of all tables, in TOML; flags precede it.",
        show_default=False,
    ),
]


def _wanted(
    *,
    config: ConfigFile = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Partitions from now on: day, week or month."),
    ] = None,
    ahead: Annotated[
        str | None, typer.Option(metavar="SPAN", help="For how long there are to be some.")
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="Retire what ended so long ago: 90 days, 24 months."),
    ] = None,
    retain_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Retire the oldest until a table has no more: 500 GB."),
    ] = None,
    min_retain: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Retire nothing younger, ever.")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Folder, or s3://..., for what is to be dropped."),
    ] = None,
    archive_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="copy, csv or parquet.")
    ] = None,
    drop_without_archive: Annotated[
        bool | None,
        typer.Option("--drop-without-archive", help="Let retention drop without an archive."),
    ] = None,
    max_retire: Annotated[
        int | None, typer.Option(min=0, help="How many partitions a run may retire.")
    ] = None,
    lock_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long a step waits for a lock.")
    ] = None,
    trust_clock: Annotated[
        bool,
        typer.Option("--trust-clock", help="The clocks are right, however long ago the last run."),
    ] = False,
) -> Configs:
    """Read the settings.

    Raises:
        SettingsError: they cannot work; says where, and what would.
    """
    configs = load(
        config,
        by=by,
        ahead=ahead,
        retain=retain,
        retain_size=retain_size,
        min_retain=min_retain,
        archive=archive,
        archive_format=archive_format,
        drop_without_archive=drop_without_archive,
        max_retire=max_retire,
        lock_timeout=lock_timeout,
    )
    # No setting of the file: it is for the one run that somebody looks at.
    return {name: replace(each, trust_clock=trust_clock) for name, each in configs.items()}


_SETTINGS = inspect.signature(_wanted).parameters


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all settings, and what they come to as its first argument."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        settings = {name: given.pop(name) for name in _SETTINGS}
        command(_wanted(**settings), **given)

    _, *own = inspect.signature(command).parameters.values()
    shared = (*own, *_SETTINGS.values())
    keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in shared]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]  # what typer reads
    return run


def chosen(dsn: str, tables: list[str] | None, configs: Configs) -> Configs:
    """Return the settings of the tables that are named, or of all that are partitioned.

    Raises:
        typer.BadParameter: there is no such table.
        SettingsError: a table that is named is not partitioned.
        psycopg.Error: nothing answers, or the schema is missing.
    """
    named = known(tables or [EVERY])
    with connect(dsn) as conn:
        there = partitioned(conn)
    for name in tables or ():
        if name not in (*there, EVERY):
            raise SettingsError(
                f"{name} is not partitioned: `auditlog partitions enable {name} --by month` does it"
            )
    return {name: configs[name] for name in named if name in there}


def known(tables: list[str]) -> list[str]:
    """Return the tables that are named, each once, `all` spelt out.

    Raises:
        typer.BadParameter: there is no such table.
    """
    for name in tables:
        if name not in (*NAMES, EVERY):
            raise typer.BadParameter(f"there is no table {name!r}: {', '.join(NAMES)}, or {EVERY}")
    return [name for name in NAMES if name in tables or EVERY in tables]
