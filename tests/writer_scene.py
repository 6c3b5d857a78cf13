"""A `Writer` over a target that the test commands, so that every order of events can be made."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg

from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.dead_letters import DeadLetter, DeadLetterFile
from auditlog.sink.isolation import Isolation
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.batch import Batch
from auditlog.sink.queue.buffer import Buffer
from auditlog.sink.writer import Writer


class Desk:
    """A target: each `write` waits at a gate, and ends as the test says."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.attempts: list[Batch] = []
        self.identities: list[UUID] = []
        self.arrived = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Callable[[Batch], Exception | None] = lambda _: None
        self.closed = 0
        self.cuts = 0
        self.cuttable = False
        self.buried: list[DeadLetter] = []
        self.grave_error: Exception | None = psycopg.errors.UndefinedTable("no dead_letters")

    async def write(self, batch: Batch) -> None:
        self.attempts.append(batch)
        self.identities.append(batch.batch_id)
        self.arrived.release()
        await self.gate.wait()
        await asyncio.sleep(0)  # as a connection does, whose answer takes its time
        if error := self.fail(batch):
            raise error
        self.written += [row for rows in batch.rows for row in rows]

    def hang_up(self) -> bool:
        self.cuts += 1
        if self.cuttable:
            self.fail = lambda _: psycopg.OperationalError("cut")
            self.gate.set()
        return self.cuttable

    async def close(self) -> None:
        self.closed += 1

    async def is_stored(self, _table: int, row: bytes) -> bool | None:
        return row in self.written

    async def bury(self, letters: Sequence[DeadLetter]) -> None:
        if self.grave_error is not None:
            raise self.grave_error
        self.buried += letters


class Scene:
    """A writer with its buffer, and a desk to write to."""

    def __init__(self, **changes: Any) -> None:
        quick: dict[str, Any] = {"batch_age_s": 60, "retry_min_s": 0.001, "retry_max_s": 0.01}
        self.settings = Settings(**(quick | {"batch_rows": 3, "max_queued_rows": 100} | changes))
        self.desk = Desk()
        self.writer: Writer
        self.accounts = Accounts()
        self.buffer = Buffer(self.settings, self.accounts, self._on_due)
        reporter = Reporter()
        self.writer = Writer(
            self.settings,
            [self.buffer],
            self.desk,
            isolation=Isolation(self.desk, None, "here:1", reporter),
            reporter=reporter,
        )

    def _on_due(self) -> None:
        self.writer.wake()

    def isolate_in(self, file: DeadLetterFile) -> None:
        """Keep what the desk does not bury in a file."""
        self.writer._isolation = Isolation(self.desk, file, "here:1", Reporter())

    def put(self, *rows: bytes, low: bool = False) -> None:
        for row in rows:
            self.buffer.put(0, row, low)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Run the writer; at the end it has to have stopped by itself."""
        task = asyncio.create_task(self.writer.run())
        await asyncio.sleep(0)
        try:
            yield task
        finally:
            self.writer.stop()
            async with asyncio.timeout(10):
                await asyncio.wait({task})

    async def attempt(self) -> Batch:
        """The next batch that comes to the desk."""
        async with asyncio.timeout(10):
            await self.desk.arrived.acquire()
        return self.desk.attempts[-1]

    async def back_off(self) -> None:
        """Return when the writer has failed, and waits before it tries again."""
        async with asyncio.timeout(10):
            while not self.writer.retries:  # noqa: ASYNC110  # no signal tells of it
                await asyncio.sleep(0)
            await asyncio.sleep(0)


def connection_lost(_: Batch) -> Exception:
    return psycopg.OperationalError("server closed the connection unexpectedly")


def refuses(*poison: bytes) -> Callable[[Batch], Exception | None]:
    """As PostgreSQL does: the whole batch, for any of its rows."""

    def fail(batch: Batch) -> Exception | None:
        rows = {row for rows in batch.rows for row in rows}
        return psycopg.errors.UniqueViolation("secret") if rows & set(poison) else None

    return fail
