"""The sink of one log, put together: from an encoded row to committed ones.

    put  →  buffer ──────────→  writer  →  target
         ↘  spool  →  spooled ↗

Built anew in a forked child, which leaves its parent's rows, locks and connection alone.
"""

import dataclasses
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.database.copy import CopyTarget
from auditlog.sink.database.ledger import writer_name
from auditlog.sink.dead_letters import DEAD_LETTERS_FOLDER, DeadLetterFile
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.isolation import Isolation
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.batch import Source
from auditlog.sink.queue.buffer import Buffer, Put
from auditlog.sink.queue.stats import Health, HealthStatus, Stats
from auditlog.sink.spool.spool import Spool
from auditlog.sink.spooled import Recovered, Spooled
from auditlog.sink.told.deferred import DeferredReporter
from auditlog.sink.told.own import OwnRows
from auditlog.sink.waiting import Durability, Room
from auditlog.sink.writer import Writer
from auditlog.ticket import Ticket

LOSS_IN_SIGHT_S = 60.0
"""How long a loss shows in `health`: longer than the interval of a usual probe."""

_LOST = "see the audit.gap rows and the log: the reason stands there"
_HANGS = "see why the database takes so long, its locks for one, or allow more commit_timeout_s"
_RUNWAY = "run `auditlog partitions maintain`, and see to it that something does so every day"
_SPOOL = "make room on the disk of spool_dir, or correct the rights on that folder"


class Chain:
    """Everything behind `AuditLog.submit`."""

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder,
        reporter: Reporter,
        resolve_dsn: Callable[[], Awaitable[str]],
        on_due: Callable[[], None],
    ) -> None:
        """Open nothing yet.

        Args:
            settings: All of them.
            encoder: For the rows that the log writes about itself.
            reporter: For all parts.
            resolve_dsn: Gives the libpq connection string.
            on_due: Wakes the writer.
        """
        self.accounts = Accounts()
        writer = writer_name()
        lines = DeferredReporter(reporter)
        self.tell = lines.tell
        self.spool = _spool(settings, writer, lines)
        sources: list[Source] = []
        spooled = self.recovered = None
        if self.spool is not None:
            spooled = Spooled(settings, self.accounts, self.spool, on_due, self.tell)
            self.recovered = Recovered(settings, self.accounts, self.spool, self.tell)
            sources += [spooled, self.recovered]
        spill = None if spooled is None else spooled.spill
        self.buffer = Buffer(settings, self.accounts, on_due, spill)
        self.own = OwnRows(
            settings, self.accounts, encoder, writer=writer, read_stats=self.stats, spill=spill
        )
        self._min_runway_s = settings.min_runway_s
        self._reporter = reporter
        self.target = CopyTarget(settings, resolve_dsn, self._note_made)
        file = (
            None
            if settings.spool_dir is None
            else DeadLetterFile(Path(settings.spool_dir) / DEAD_LETTERS_FOLDER)
        )
        isolation = Isolation(self.target, file, writer, reporter)
        self.writer = Writer(
            settings,
            [self.buffer, *sources],
            self.target,
            isolation=isolation,
            reporter=reporter,
            own=self.own,
            may_leave=self._is_spilling,
            waiting=self.buffer.pending if settings.durability == "commit" else None,
            lookout=self.target,
        )
        self.durability = Durability(
            settings,
            self.accounts,
            committed_at=lambda: self.writer.committed_at,
            hurry=self.writer.hurry,
            reporter=reporter,
        )
        self.room = Room(settings, self.buffer, self._is_spilling)
        self.put = self._put_of(settings, spooled)

    def stats(self) -> Stats:
        """Read every counter at one instant."""
        return dataclasses.replace(
            self.buffer.snapshot(), batches=self.writer.batches, retries=self.writer.retries
        )

    def losses(self) -> Health | None:
        """Say what was lost just now, or will be soon; None if nothing is to be said."""
        lost_at = self.accounts.lost_at
        if lost_at is not None and time.monotonic() - lost_at < LOSS_IN_SIGHT_S:
            return Health(HealthStatus.DEGRADED, "rows were lost just now", _LOST)
        failing = self.spool and (self.spool.failing or self.spool.unreadable)
        if failing:
            return Health(HealthStatus.DEGRADED, f"the spool fails: {failing}", _SPOOL)
        if self.durability.is_open:
            return Health(HealthStatus.DEGRADED, "requests wait for their rows in vain", _HANGS)
        return self._runway_verdict()

    def is_empty(self) -> bool:
        """Tell whether nothing waits to be written, in memory or in this process's spool.

        Nor the last words of a life, which an exit without a close has to write.
        """
        if self.buffer.snapshot().pending or self.own.has_last_words:
            return False
        return self.spool is None or not self.spool.pending_rows

    def give_up(self) -> int:
        """Leave to the spool what will not be written any more; return how many rows are lost."""
        lost = self.writer.abandon() + self.buffer.give_up_queued()
        self.own.end()
        if (last_words := self.own.take()) is not None:
            self.own.give_up(last_words)
        self.tell()
        return lost

    def close(self) -> None:
        """Let go of the spool: another process may go on with what is left there."""
        if self.spool is not None:
            self.spool.close()
            self.tell()

    def _runway_verdict(self) -> Health | None:
        """Say that rows will soon have no partition, if they will."""
        runways = self.target.runway.seconds()
        table = min(runways, key=runways.__getitem__, default=None)
        if table is None or runways[table] >= self._min_runway_s:
            return None
        days = runways[table] / 86_400
        reason = f"logstore.{table} has partitions for {days:.1f} more days"
        return Health(HealthStatus.DEGRADED, reason, _RUNWAY)

    def _note_made(self, table: str) -> None:
        self._reporter.report(
            "auditlog.partition_made",
            f"logstore.{table} had no partition for a row, so one was made: {_RUNWAY}",
        )

    def _is_spilling(self) -> bool:
        return self.spool is not None and not self.spool.failing

    def _put_of(self, settings: Settings, spooled: Spooled | None) -> Put:
        """Choose once what is done with every row."""
        put: Put = self.buffer.put
        if settings.durability == "spool" and spooled is not None:
            put = spooled.putter(self.buffer)
        if settings.on_overflow != "block":
            return put

        def put_when_there_is_room(
            table: int, row: bytes, low_priority: bool, ticket: Ticket | None = None
        ) -> Sequence[bytes]:
            self.room.wait_in_thread()
            return put(table, row, low_priority, ticket)

        return put_when_there_is_room


def _spool(settings: Settings, writer: str, reporter: Reporter) -> Spool | None:
    if settings.spool_dir is None:
        return None
    return Spool(
        settings.spool_dir,
        max_bytes=settings.spool_max_bytes,
        fsync=settings.spool_fsync,
        fsync_interval_s=settings.spool_fsync_interval_s,
        writer=writer,
        reporter=reporter,
    )
