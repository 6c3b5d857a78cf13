"""The loop that empties the sources into the database: one task, one batch under way.

Batches leave when they are full or old, are retried with full jitter until they are committed,
and are split when one of their rows is refused, so that it goes alone. A batch under way belongs
to the writer until it is settled: when its task is cancelled, the next `run` begins with it, under
the same identity.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from auditlog.reporting import Reporter, describe
from auditlog.settings import Settings
from auditlog.sink.database.faults import Fault, classify, has_run_out, remedy
from auditlog.sink.isolation import Fate, Isolation
from auditlog.sink.queue.batch import Batch, Source
from auditlog.sink.queue.stats import Health, HealthStatus, LossReason
from auditlog.sink.told.own import OwnRows

# While draining, a back-off longer than this would outlast the time that is left.
DRAIN_BACK_OFF_S = 1.0
# A timer may ring a little early, by the resolution of its clock.
EARLY_S = 0.001

# So often a batch may be ended by statement_timeout_s before it is halved.
MAX_TIMEOUTS = 3
# A request takes two rounds of the loop from its socket to its row. Not longer than a commit takes.
QUIET_ROUNDS = 2
GATHER_S = 0.002

_BROKEN = "the writer has ended by a defect of its own, and begins anew with the next record"


class Target(Protocol):
    """Where batches go."""

    async def write(self, batch: Batch) -> None:
        """Commit the batch exactly once, or raise; may be called again with the same batch."""

    def hang_up(self) -> bool:
        """Make a `write` under way fail soon; False if it holds nothing that could be cut."""

    async def close(self) -> None:
        """Let go of what `write` opened; may be called at any time, and more than once."""


class Lookout(Protocol):
    """Who looks ahead now and then, when nobody waits for the writer."""

    looks_at: float
    """When that is due, by the monotonic clock; never sooner than it has to be."""

    async def look(self) -> None:
        """Look, for a moment; does not raise."""


class Writer:
    """Ships what the sources hold. All but `wake` and `hurry` belong to the writer's loop."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[Source],
        target: Target,
        *,
        isolation: Isolation,
        reporter: Reporter,
        own: OwnRows | None = None,
        may_leave: Callable[[], bool] = lambda: False,
        waiting: Callable[[], int] | None = None,
        lookout: Lookout | None = None,
    ) -> None:
        """Make a writer that is not running.

        Args:
            settings: Times.
            sources: What to ship; each has its turn.
            target: Where to ship it.
            isolation: What to do with refused rows.
            reporter: For what goes wrong.
            own: What the log says of itself, before and after everything else.
            may_leave: Is what is not written kept by somebody else? Then a stop does not wait for
                a database that is away.
            waiting: How many rows there are for which requests wait; None where none ever do.
            lookout: Looks ahead after a commit, when that is due.
        """
        self.health = Health()
        self.batches = 0
        self.retries = 0
        self.committed_at = 0.0
        """When a batch was last committed, by the monotonic clock."""
        self._settings = settings
        self._sources = sources
        self._target = target
        self._isolation = isolation
        self._reporter = reporter
        self._own = own
        self._all = sources if own is None else [own, *sources]
        self._under_way: list[Batch] = []
        self._flushes: list[asyncio.Future[bool]] = []
        self.has_left = False
        """Did the last run end with rows that somebody else is to keep?"""
        self._may_leave = may_leave
        self._most_rows: int | None = None
        """How many rows a batch may have, since larger ones took too long."""
        self._waiting = waiting
        self._lookout = lookout
        self._stopping = False
        self._given_up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Ship batches until `stop`; then ship what is left, and return.

        Only one run counts, the one begun last: a loop may stop in the middle of one, and go on
        when another loop has long taken over.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            self._due.set()  # so that a run that is superseded on this loop finds that out
        self._loop = loop
        task = self._task = asyncio.current_task()
        self._stopping = self._given_up = self.has_left = False
        # Made here: an Event belongs to the loop it first waits on, and a writer may change loops.
        self._due = asyncio.Event()
        self._hurry = asyncio.Event()
        self._flushes = [settled for settled in self._flushes if settled.get_loop() is loop]
        try:
            while self._under_way or await self._wait_until_due():
                # What is queued when `stop` is heard goes out; what comes later has time.
                last = self._stopping
                await self._ship_next()
                if last:
                    break
            await self._ship_end()
        except Exception as error:
            # Nobody awaits this task: a failure of our own making would be known to no one.
            self.health = Health(HealthStatus.FAILED, describe(error), _BROKEN)
            self._reporter.report(
                "auditlog.writer_failed", f"{describe(error)}: {_BROKEN}", level=logging.ERROR
            )
            raise
        finally:
            if self._task is task:
                self._loop = self._task = None
                self._release_flushes(self._flushes, settled=self._is_empty())
                await self._target.close()

    def stop(self) -> None:
        """Make `run` end as soon as everything is shipped."""
        self._stopping = True
        self._due.set()
        self._hurry.set()

    def give_up(self) -> bool:
        """Make `run` end now, as if cancelled; False if only cancelling its task can do it.

        Cancelled in mid-COPY, psycopg would first ask the server to stop, for up to ten seconds.
        """
        self._given_up = True
        self._hurry.set()
        return self._target.hang_up()

    def abandon(self) -> int:
        """Give back everything that is under way; return how many rows are lost by that."""
        batches, self._under_way = self._under_way, []
        return sum(batch.source.give_up(batch) for batch in batches)

    async def flush(self) -> bool:
        """Wait until every row that was queued at the call is settled.

        False if `run` ended first, or if rows cannot be read from their source. A batch that
        waits to be repeated is repeated at once.
        """
        if self._is_empty():
            return True
        settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flushes.append(settled)
        self._due.set()
        self._hurry.set()
        try:
            return await settled
        finally:
            if settled in self._flushes:
                self._flushes.remove(settled)

    def wake(self) -> bool:
        """Say, from any thread, that a batch may be due; False when no loop is there to hear it."""
        return self._tell(self._due)

    def hurry(self) -> None:
        """Have a batch that waits to be repeated repeated at once; from any thread."""
        self._tell(self._hurry)

    def _tell(self, event: asyncio.Event) -> bool:
        loop = self._loop
        if loop is None or not loop.is_running():
            return False
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:  # the loop was closed under us
            return False
        return True

    async def _wait_until_due(self) -> bool:
        """Wait for a batch that is full, old or asked for; False when stopping and empty."""
        while not self._is_superseded():
            self._due.clear()
            seconds = self._seconds_until_due()
            if self._is_empty():
                self._release_flushes(self._flushes, settled=True)
                if self._stopping:
                    return False
            elif self._flushes or self._stopping:
                return True
            if seconds is not None and seconds <= EARLY_S:
                return True
            # Not wait_for: that of Python 3.11 swallows a cancellation when it is due as well.
            try:
                async with asyncio.timeout(seconds):
                    await self._due.wait()
            except TimeoutError:
                return True
        return False

    async def _ship_next(self) -> None:
        """Ship what is due; or all that is there, if somebody waits for it."""
        waiting: list[asyncio.Future[bool]] = []
        is_all = True
        if not self._under_way:
            # Whoever asked by now waits for all that is there now, and for nothing after that.
            waiting = list(self._flushes)
            everything = bool(waiting) or self._stopping
            if self._own is not None and any(source.pending() for source in self._sources):
                self._own.begin()
            if not everything:
                await self._gather()
            for source in self._all:
                if everything:
                    is_all = await self._ship_all(source) and is_all
                elif _is_due(source) and (batch := source.take()):
                    self._under_way.append(batch)
                    await self._ship_under_way()
        await self._ship_under_way()
        self._release_flushes(waiting, settled=is_all)

    async def _gather(self) -> None:
        """Let requests come along that are about to wait: those of a few rounds share a commit."""
        if self._waiting is None:
            return
        gives_up_at = time.monotonic() + GATHER_S
        rows, quiet_rounds = self._waiting(), 0
        while quiet_rounds < QUIET_ROUNDS and time.monotonic() < gives_up_at:
            await asyncio.sleep(0)
            quiet_rounds = quiet_rounds + 1 if self._waiting() == rows else 0
            rows = self._waiting()

    async def _ship_all(self, source: Source) -> bool:
        """Ship what the source holds at this moment; False if it keeps some of that back."""
        left = source.pending()
        while left > 0 and (batch := source.take()):
            self._under_way.insert(0, batch)
            if source.in_order:
                left -= batch.size
                await self._ship_under_way()
            else:
                # Taken at once: rows that come meanwhile may overtake those that are there.
                left = source.pending()
        await self._ship_under_way()
        # Rows that turned out to be damaged were counted, and are settled as well.
        return left <= 0 or not source.pending()

    async def _ship_under_way(self) -> None:
        while self._under_way:
            await self._ship(self._under_way[-1])

    async def _ship_end(self) -> None:
        """Say, when everything is shipped, that this was the end."""
        if self._own is not None and not self._is_superseded():
            self._own.end()
            await self._ship_all(self._own)

    async def _ship(self, batch: Batch) -> None:
        """Write one batch, whatever it takes; it leaves `_under_way` when that is decided."""
        attempt = 0
        if self._most_rows is not None and batch.size > self._most_rows:
            self._replace(batch, batch.parts(self._most_rows))
            return
        while True:
            if self._given_up:
                raise asyncio.CancelledError
            error = await self._try(batch)
            if self._is_superseded():
                raise asyncio.CancelledError
            if error is None:
                self._note_commit(batch)
                if self._lookout is not None and self.committed_at >= self._lookout.looks_at:
                    await self._look(self._lookout)
                return
            if classify(error) is Fault.DATA:
                if not self._isolation.is_isolated(batch, error):
                    self._replace(batch, self._isolation.split(batch, error))
                    return
                error = await self._keep(batch, error)
                if error is None:
                    return
            attempt += 1
            if attempt >= MAX_TIMEOUTS and batch.size > 1 and has_run_out(error):
                self._most_rows = batch.size // 2
                self._replace(batch, batch.parts(self._most_rows))
                return
            # One failure may be of a connection that was cut while it was idle.
            if self._stopping and attempt > 1 and self._may_leave():
                self.has_left = True
                raise asyncio.CancelledError
            await self._back_off(classify(error), error, attempt)

    def _replace(self, batch: Batch, parts: list[Batch]) -> None:
        """Let the parts of a batch be shipped in its place, in their order."""
        self._under_way.remove(batch)
        self._under_way.extend(reversed(parts))

    async def _try(self, batch: Batch) -> Exception | None:
        try:
            await self._target.write(batch)
        except Exception as error:  # noqa: BLE001  # the writer survives whatever it meets
            return error
        return None

    def _note_commit(self, batch: Batch) -> None:
        self._under_way.remove(batch)
        batch.source.settle(batch)
        self.batches += 1
        self.committed_at = time.monotonic()
        self.health = Health()
        if self._most_rows is not None:
            # It may have been slow for a while only. Step by step: each one too many takes long.
            self._most_rows += 1 + batch.size // 10
        if batch.refused is not None:
            self._isolation.note_reduced()

    async def _look(self, lookout: Lookout) -> None:
        if self._stopping or self._given_up:
            return
        await lookout.look()
        if self._is_superseded():
            raise asyncio.CancelledError

    async def _keep(self, batch: Batch, error: Exception) -> Exception | None:
        """Find a place for refused rows; return what stands in the way of that for now."""
        try:
            fate = await self._isolation.keep(batch, error)
        except Exception as failure:  # noqa: BLE001  # the writer survives whatever it meets
            return failure
        if self._is_superseded():
            raise asyncio.CancelledError
        if fate is Fate.AGAIN:
            return None
        self._under_way.remove(batch)
        if fate is Fate.BURIED:
            batch.source.bury(batch)
        else:
            batch.source.settle(batch, LossReason.REJECTED if fate is Fate.LOST else None)
        return None

    async def _back_off(self, fault: Fault, error: Exception, attempt: int) -> None:
        self.retries += 1
        failed = fault is Fault.CONFIGURATION
        status = HealthStatus.FAILED if failed else HealthStatus.DEGRADED
        self.health = Health(status, describe(error), remedy(error))
        self._reporter.report(
            "auditlog.write_failed",
            f"{describe(error)}; rows wait, the batch is retried: {remedy(error)}",
            level=logging.ERROR if failed else logging.WARNING,
        )
        # Full jitter: a restarted database is not met by all its writers at once.
        ceiling = min(
            self._settings.retry_max_s,
            self._settings.retry_min_s * 2 ** min(attempt, 30),
            DRAIN_BACK_OFF_S if self._stopping else float("inf"),
        )
        pause_s = random.uniform(0, ceiling)  # noqa: S311  # spreading, not secrecy
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._hurry.wait()
        self._hurry.clear()

    def _is_superseded(self) -> bool:
        return self._task is not asyncio.current_task()

    def _is_empty(self) -> bool:
        return not self._under_way and not any(source.pending() for source in self._all)

    def _seconds_until_due(self) -> float | None:
        waits = [source.seconds_until_due() for source in self._all]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def _release_flushes(self, waiting: list[asyncio.Future[bool]], *, settled: bool) -> None:
        for future in list(waiting):
            # Whoever waited on a loop that is closed waits no more.
            if not future.done() and not future.get_loop().is_closed():
                future.set_result(settled)
        self._flushes = [future for future in self._flushes if not future.done()]


def _is_due(source: Source) -> bool:
    seconds = source.seconds_until_due()
    return seconds is not None and seconds <= EARLY_S
