"""Bring home what dead processes left in a spool, and nothing else: for a sidecar or a cron job."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from auditlog.errors import SettingsError
from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.chain import Chain
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.queue.stats import Health, HealthStatus

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
        settings: Of these `spool_dir` says where.
        resolve_dsn: Gives the libpq connection string.
        patience_s: How long the database may be away, without a row written, before it ends.
        on_progress: Told the rows shipped so far, now and then.

    Raises:
        SettingsError: there is no `spool_dir`.
    """
    chain = Chain(
        dataclasses.replace(settings, durability="memory", life_rows=False),
        Encoder(settings),
        Reporter(),
        resolve_dsn,
        on_due=lambda: None,
    )
    recovered = chain.recovered
    if recovered is None:
        raise SettingsError("spool_dir is not set: name the folder to ship from")
    task = asyncio.create_task(chain.writer.run(), name="auditlog.ship")
    loop = asyncio.get_running_loop()
    rows, gives_up_at = 0, loop.time() + patience_s
    try:
        while not (recovered.is_done or task.done()):
            await asyncio.sleep(LOOK_EVERY_S)
            if recovered.rows != rows:
                rows, gives_up_at = recovered.rows, loop.time() + patience_s
                on_progress(rows)
            if loop.time() > gives_up_at and chain.writer.health.status is not HealthStatus.OK:
                break
        health = chain.writer.health
        await _end(chain, task)
        return Shipped(recovered.rows, recovered.buried, recovered.lost, health)
    finally:
        task.cancel()
        chain.close()


async def _end(chain: Chain, task: "asyncio.Task[None]") -> None:
    """Let the writer finish, or end it if it cannot."""
    if chain.writer.health.status is HealthStatus.OK:
        chain.writer.stop()
    elif not chain.writer.give_up():
        task.cancel()
    await asyncio.wait({task})
    chain.writer.abandon()
