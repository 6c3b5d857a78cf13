"""Bring home what dead processes left in a spool, and nothing else: for a sidecar or a cron job."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.accounts import Accounts
from auditlog.sink.copy import CopyTarget
from auditlog.sink.dead_letters import DEAD_LETTERS_FOLDER, DeadLetterFile
from auditlog.sink.encode import Encoder
from auditlog.sink.isolation import Isolation
from auditlog.sink.ledger import writer_name
from auditlog.sink.own import OwnRows
from auditlog.sink.spool.spool import Spool
from auditlog.sink.spooled import Recovered
from auditlog.sink.stats import Health, HealthStatus, Stats
from auditlog.sink.writer import Writer

LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Shipped:
    """What one run has done."""

    rows: int
    """Committed, or found to be committed before."""
    dead_letters: int
    lost: int
    """Damaged in the spool; each is in an `audit.gap` row."""
    health: Health
    """Why it ended early; `ok` when nothing was left to ship."""


async def ship(
    settings: Settings,
    resolve_dsn: Callable[[], Awaitable[str]],
    *,
    patience_s: float,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Shipped:
    """Adopt every lane whose owner is dead, and write its records; lanes in use are left alone.

    Args:
        settings: `spool_dir` must be set.
        resolve_dsn: Gives the libpq connection string.
        patience_s: How long the database may be away, without a row written, before it ends.
        on_progress: Told the rows shipped so far, now and then.
    """
    shipment = _Shipment(settings, resolve_dsn)
    task = asyncio.create_task(shipment.writer.run(), name="auditlog.ship")
    loop = asyncio.get_running_loop()
    shipped, gives_up_at = 0, loop.time() + patience_s
    try:
        while not shipment.recovered.is_done:
            await asyncio.sleep(LOOK_EVERY_S)
            if shipment.accounts.recovered != shipped:
                shipped, gives_up_at = shipment.accounts.recovered, loop.time() + patience_s
                on_progress(shipped)
            if loop.time() > gives_up_at and not shipment.is_well:
                break
        return await shipment.end(task)
    finally:
        task.cancel()
        shipment.spool.close()


class _Shipment:
    """A chain without a queue: the lanes of the dead, and the rows about what is damaged there."""

    def __init__(self, settings: Settings, resolve_dsn: Callable[[], Awaitable[str]]) -> None:
        directory, writer, reporter = settings.spool_dir or "", writer_name(), Reporter()
        self.accounts = Accounts()
        self.spool = Spool(
            directory,
            max_bytes=settings.spool_max_bytes,
            fsync="never",
            fsync_interval_s=settings.spool_fsync_interval_s,
            writer=writer,
            reporter=reporter,
        )
        self.recovered = Recovered(settings, self.accounts, self.spool)
        target = CopyTarget(settings, resolve_dsn)
        file = DeadLetterFile(Path(directory) / DEAD_LETTERS_FOLDER)
        self.writer = Writer(
            settings,
            [self.recovered],
            target,
            isolation=Isolation(target, file, writer, reporter),
            reporter=reporter,
            own=OwnRows(
                settings,
                self.accounts,
                Encoder(settings),
                writer=writer,
                read_stats=Stats,
                spill=None,
            ),
        )

    @property
    def is_well(self) -> bool:
        """Does the database take rows?"""
        return self.writer.health.status is HealthStatus.OK

    async def end(self, task: "asyncio.Task[None]") -> Shipped:
        """Let the writer finish what it has begun, and say what was done."""
        health = self.writer.health
        if health.status is HealthStatus.OK:
            self.writer.stop()
        elif not self.writer.give_up():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.writer.abandon()
        done = self.recovered
        return Shipped(self.accounts.recovered, done.buried, done.lost, health)
