"""`AuditLog`: puts the chain together, and owns its life.

`submit` works from any thread and any loop, never blocks and never raises. The writer starts at
the first record (or at `start`), in the process and on the loop that serves; it survives a fork,
loops that come and go, and a database that is not there. What is left when the process ends is
drained, and what cannot be drained is counted and logged.
"""

import asyncio
import atexit
import dataclasses
import logging
import multiprocessing.util
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Self

from auditlog.capture.application.events import ApplicationEvents
from auditlog.errors import SettingsError
from auditlog.postgres import embedded
from auditlog.records import LogRecord, Outcome, Record
from auditlog.reporting import Reporter, describe
from auditlog.settings import PREFIX, Settings
from auditlog.sink.chain import Chain
from auditlog.sink.database import transactional
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.queue.buffer import SPILLED
from auditlog.sink.queue.stats import Health, HealthStatus, LossReason, Stats
from auditlog.sink.runner import Runner
from auditlog.sink.writer import Writer
from auditlog.ticket import Ticket

MAX_DRAINS = 3
"""Rounds of a close: what other threads submit while it drains goes out with the next one.

Not without end: whoever never stops submitting starts the writer anew and keeps nothing waiting."""

_TOO_FULL = "the database is away or slow, or max_queued_rows is too small"
# A member of an enumeration takes 70 ns to look up, a global 10 (2026-11-24, CPython 3.11).
_ACCEPTED, _SPOOLED = Outcome.ACCEPTED, Outcome.SPOOLED


class AuditLog(ApplicationEvents):
    """The trail of one application: takes records, commits them to PostgreSQL.

    Use it as `async with` on the running loop, as `with` (a background thread then does the
    writing), or just hand it to the middleware, which starts and drains it with the application.

    Args:
        dsn: libpq connection string or URL, or `embedded:PATH`; `AUDITLOG_DSN` without one.
        settings: Everything else; read from the environment without one.

    Raises:
        SettingsError: no DSN at all, or a setting that cannot work.
    """

    _chain: Chain
    _writer: Writer

    def __init__(self, dsn: str | None = None, *, settings: Settings | None = None) -> None:
        settings = settings or Settings.from_environment()
        dsn = dsn or settings.dsn or os.environ.get(f"{PREFIX}DSN")
        settings = dataclasses.replace(settings, dsn=dsn)
        if not dsn:
            raise SettingsError(
                "no database: pass AuditLog('postgresql://...'), or set AUDITLOG_DSN;"
                " 'embedded:PATH' starts a PostgreSQL for trying out"
            )
        super().__init__(settings)
        self._encoder = Encoder(settings)
        self._encode = self._encoder.encode
        self._users = 0
        # Re-entrant: a signal handler may submit while this very thread is starting the writer.
        self._lifecycle = threading.RLock()
        self._runner: Runner | None = None
        self._starting = False
        self._make_chain()
        _instances.add(self)
        self._make_known()

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        """Take over a record; it is encoded now, so the caller may change or reuse it after.

        Args:
            record: One row.
            ticket: Settled when the row is as durable as `durability` asks for.

        Returns:
            `ACCEPTED`: it waits in memory to be committed. `SPOOLED`: it waits on the disk.
            `DROPPED`: it is lost, and counted.
        """
        if self._runner is None:
            self._start_lazily()
        try:
            table, row = self._encode(record)
            lost = self._put(table, row, record.low_priority, ticket)
            if not lost:
                return _SPOOLED if lost is SPILLED else _ACCEPTED
        except Exception as error:  # noqa: BLE001  # never an error of the request
            self._drop(LossReason.UNENCODABLE, ticket)
            self.reporter.report(
                "auditlog.record_dropped", f"not a record that can be stored: {describe(error)}"
            )
            return Outcome.DROPPED
        self._chain.tell()
        if lost[-1] is row and ticket is not None:
            ticket.expect()
            ticket.settle(durable=False)
        self.reporter.report(
            "auditlog.queue_full",
            f"rows are lost: {_TOO_FULL}",
            level=logging.ERROR,
        )
        return Outcome.DROPPED if lost[-1] is row else _ACCEPTED

    async def durable(self, ticket: Ticket) -> bool:
        """Wait until the rows of a ticket are durable; False if they are not so in time."""
        return await self._chain.durability.wait(ticket)

    def durable_in_thread(self, ticket: Ticket) -> bool:
        """Do what `durable` does, from a thread without an event loop; blocks."""
        return self._chain.durability.wait_in_thread(ticket)

    async def room(self) -> None:
        """Wait until the queue takes a row, for `block_timeout_s` at most."""
        await self._chain.room.wait()

    async def start(self) -> None:
        """Start writing on the running loop. May be nested.

        It does not wait for the database; but under `commit`, for `connect_timeout_s` at most, or
        the first requests would be refused for want of a connection.
        """
        self._users += 1
        self._begin(Runner.on_loop)
        if self.settings.durability == "commit" and self._users == 1:
            self._chain.own.begin()
            await self.flush(self.settings.connect_timeout_s)

    async def aclose(self) -> None:
        """Ship what is queued within `drain_timeout_s` and stop; what is left then is lost.

        Only the last of nested calls does it. A record submitted meanwhile, or later, is not
        forgotten: it starts the writer anew.
        """
        self._users = max(0, self._users - 1)
        if self._users:
            return
        deadline = time.monotonic() + self.settings.drain_timeout_s
        for _ in range(MAX_DRAINS):
            runner = self._runner_to_drain(here=True)
            if runner is None:
                break
            runner.stop()
            finished = asyncio.wrap_future(runner.finished)
            await asyncio.wait({finished}, timeout=max(0.0, deadline - time.monotonic()))
            if not (is_over := finished.done()):
                runner.cancel()
                # Its loop may be another one, which something holds up.
                await asyncio.wait({finished}, timeout=self.settings.drain_timeout_s)
            if not is_over or self._writer.has_left:
                self._give_up()
                break
        if self.settings.spool_dir is not None:
            await asyncio.to_thread(self._chain.close)
        if self._uses_embedded:
            await asyncio.to_thread(embedded.stop, self.settings.dsn or "")

    def close(self) -> None:
        """Do what `aclose` does, from code without a loop; blocks.

        Raises:
            RuntimeError: called on the loop that does the writing, which it would block.
        """
        self._users = max(0, self._users - 1)
        if self._users == 0:
            self._drain()

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as in asyncio.wait
        """Wait until every record submitted before the call is settled.

        Returns:
            Whether that was so within `timeout` seconds; without one it waits for ever.
        """
        runner = self._runner_to_drain(here=True)
        if runner is None or runner.loop is None:
            return True
        future = asyncio.run_coroutine_threadsafe(self._writer.flush(), runner.loop)
        try:
            done, _ = await asyncio.wait({asyncio.wrap_future(future)}, timeout=timeout)
        finally:
            # Whether time is up or the caller was cancelled: the writer need not hurry any more.
            future.cancel()
        return bool(done) and not future.cancelled() and future.result()

    def lose(self, error: BaseException) -> None:
        """Count a request or an event of which no record could be made, and say why."""
        self._drop(LossReason.CAPTURE)
        self.reporter.report(
            "auditlog.capture_failed",
            f"a request or an event left no record: {describe(error)}",
            level=logging.ERROR,
        )

    def stats(self) -> Stats:
        """Read every counter at one instant."""
        return self._chain.stats()

    def runways(self) -> dict[str, float]:
        """Return for how many seconds each partitioned table has partitions, as last seen.

        Not for a table that is not partitioned, and for none while that is not known.
        """
        return self._chain.target.runway.seconds()

    def health(self) -> Health:
        """Say whether rows flow, and what mends it if they do not."""
        health = self._chain.writer.health
        if health.status is not HealthStatus.OK:
            return health
        return self._chain.losses() or health

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        self._users += 1
        self._begin(Runner.in_thread)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show the chain; the DSN may hold a password and is left out."""
        stages = [f"buffer[{self.settings.max_queued_rows}]"]
        if self.settings.spool_dir is not None:
            # The first takes every record, the other what finds no room there.
            stages.insert(0 if self.settings.durability == "spool" else 1, "spool")
        return f"<AuditLog encode > {' | '.join(stages)} > copy>"

    def _insert(self, connection: Any, record: LogRecord) -> None:
        transactional.insert(connection, self._encode(record)[1])

    async def _ainsert(self, connection: Any, record: LogRecord) -> None:
        await transactional.ainsert(connection, self._encode(record)[1])

    def _make_chain(self) -> None:
        self._chain = Chain(
            self.settings, self._encoder, self.reporter, self._resolve_dsn, self._on_due
        )
        self._writer = self._chain.writer
        self._put = self._chain.put

    def _drop(self, reason: LossReason, ticket: Ticket | None = None) -> None:
        self._chain.buffer.drop(reason)
        if ticket is not None:
            ticket.expect()
            ticket.settle(durable=False)

    async def _resolve_dsn(self) -> str:
        dsn = self.settings.dsn or ""
        if dsn.startswith(embedded.SCHEME):
            dsn = await asyncio.to_thread(embedded.resolve_dsn, dsn)
            # Exit handlers run last in, first out: drain before the embedded server is stopped.
            atexit.unregister(_drain_all)
            atexit.register(_drain_all)
        return dsn

    def _on_due(self) -> None:
        # False while the writer is about to run, which then looks by itself, or when its loop died.
        if not self._writer.wake() and not (self._runner and self._runner.alive):
            self._start_lazily()

    def _start_lazily(self) -> None:
        self._begin(Runner.in_thread if _running_loop() is None else Runner.on_loop)
        if self._runner is None and not self._starting:
            self.reporter.report(
                "auditlog.start_failed",
                "no thread for the writer can be had; rows wait in memory",
                level=logging.ERROR,
            )

    def _begin(self, start: Callable[[Writer, Callable[[Runner], None]], Runner]) -> None:
        """Start the writer unless it lives, or is being started further up this very stack."""
        with self._lifecycle:
            if self._starting or (self._runner is not None and self._runner.alive):
                return
            self._starting = True
            try:
                runner = start(self._writer, self._on_runner_end)
                self._runner = runner if runner.alive else None
                _unfinished.add(self)
            finally:
                self._starting = False

    def _on_runner_end(self, runner: Runner) -> None:
        # Not under the lock: a start that replaced this runner may hold it on this very thread.
        if self._runner is runner:
            self._runner = None
            if self._chain.is_empty():
                _unfinished.discard(self)

    def _runner_to_drain(self, *, here: bool) -> Runner | None:
        """The living runner; or a new one if rows were left behind by one that is gone."""
        with self._lifecycle:
            if self._runner is not None and self._runner.alive:
                return self._runner
            self._runner = None
            if not self._chain.is_empty():
                start = Runner.on_loop if here else Runner.in_thread
                self._runner = start(self._writer, self._on_runner_end)
            return self._runner

    def _drain(self) -> None:
        deadline = time.monotonic() + self.settings.drain_timeout_s
        for _ in range(MAX_DRAINS):
            runner = self._runner_to_drain(here=False)
            if runner is None:
                break
            if runner.loop is not None and runner.loop is _running_loop():
                raise RuntimeError("close() would wait for its own loop: await aclose() there")
            runner.stop()
            if not (is_over := runner.wait(max(0.0, deadline - time.monotonic()))):
                runner.cancel()
                runner.wait(self.settings.drain_timeout_s)
            if not is_over or self._writer.has_left:
                self._give_up()
                break
        self._chain.close()
        if self._uses_embedded:
            embedded.stop(self.settings.dsn or "")

    @property
    def _uses_embedded(self) -> bool:
        """Was its embedded server started for this process: by this log, or by quotas beside it?"""
        return embedded.is_in_use(self.settings.dsn or "")

    def _give_up(self, reason: str = "drain_timeout_s was over") -> None:
        lost = self._chain.give_up()
        _unfinished.discard(self)
        if lost:
            self.reporter.report(
                "auditlog.shutdown_lost",
                f"{lost} rows could not be written: {reason}",
                level=logging.ERROR,
            )

    def _after_fork(self) -> None:
        """In the child: the parent keeps its rows, its loop and its connection."""
        _inherited.append((self._chain, self._runner))
        self._users = 0
        self._lifecycle = threading.RLock()
        self._runner = None
        self._starting = False
        self.reporter = Reporter()
        self._make_chain()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _drain_all() -> None:
    """The last resort, for applications that never closed their log."""
    for log in list(_instances):
        if not log._chain.is_empty() or log._uses_embedded or log.settings.spool_dir is not None:
            try:
                log._drain()
            except Exception as error:  # noqa: BLE001  # the other logs have rows as well
                log._give_up(describe(error))


def _reset_all() -> None:
    for log in list(_instances):
        log._after_fork()


# What a child got from its parent is kept, unused: closing it would end the parent's connection.
_inherited: list[Any] = []
# Logs whose writer runs or left rows behind: they must be there at the exit, whoever forgot them.
_unfinished: set["AuditLog"] = set()
_instances: "weakref.WeakSet[AuditLog]" = weakref.WeakSet()
atexit.register(_drain_all)
os.register_at_fork(after_in_child=_reset_all)
# A forked child of multiprocessing ends without exit handlers, but runs its finalizers.
multiprocessing.util.register_after_fork(
    AuditLog, lambda _: multiprocessing.util.Finalize(None, _drain_all, exitpriority=0)
)
