"""`auditlog spool ship`: bring home what dead processes left in a spool."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from auditlog.cli.durations import duration
from auditlog.cli.failures import Exit
from auditlog.cli.options import AsJson, Dsn, required
from auditlog.cli.output import put, put_json, say, stderr
from auditlog.cli.spool import SpoolDirectory
from auditlog.errors import SettingsError
from auditlog.settings import Settings
from auditlog.sink.queue.stats import HealthStatus
from auditlog.sink.shipping import Shipped
from auditlog.sink.shipping import ship as ship_lanes


def ship(
    spool_dir: SpoolDirectory = None,
    dsn: Dsn = None,
    *,
    patience: Annotated[
        timedelta,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="How long the database may take no rows before it is given up.",
        ),
    ] = "30s",  # type: ignore[assignment]  # the parser reads the default too
    as_json: AsJson = False,
) -> None:
    """Write what dead processes left in the spool to the database; safe to run twice at once.

    Lanes whose process lives are left alone: it ships them itself. Exit 1 if records were damaged
    or refused, 3 if the database did not take them all; the rest stays in the spool.
    """
    if spool_dir is None:
        raise SettingsError("no spool: give --spool-dir PATH, or set AUDITLOG_SPOOL_DIR")
    if not spool_dir.is_dir():
        raise SettingsError(f"{spool_dir} is no folder: give that of the setting spool_dir")
    settings = Settings.from_environment(spool_dir=str(spool_dir), durability="memory")
    address = required(dsn)

    async def resolve_dsn() -> str:
        return address

    with _progress() as tell:
        shipped = asyncio.run(
            ship_lanes(settings, resolve_dsn, patience_s=patience.total_seconds(), on_progress=tell)
        )
    _report(shipped, as_json=as_json)


def _report(shipped: Shipped, *, as_json: bool) -> None:
    is_done = shipped.health.status is HealthStatus.OK
    if as_json:
        put_json(
            {
                "shipped": shipped.rows,
                "dead_letters": shipped.dead_letters,
                "lost": shipped.lost,
                "done": is_done,
                "reason": shipped.health.reason,
                "remedy": shipped.health.remedy,
            }
        )
    else:
        put(
            f"shipped {shipped.rows}, dead letters {shipped.dead_letters},"
            f" damaged or refused {shipped.lost}"
        )
    if not is_done:
        say(f"The rest stays in the spool: {shipped.health.reason}; {shipped.health.remedy}")
        raise typer.Exit(Exit.NO_DATABASE)
    if shipped.lost or shipped.dead_letters:
        raise typer.Exit(Exit.NOT_WELL)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    columns = (SpinnerColumn(), TextColumn("shipped {task.completed:.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda rows: progress.update(task, completed=rows)
