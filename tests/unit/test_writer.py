"""`Writer`: ships, retries, splits, flushes and stops, over a target that the test commands.

The database's side of it is in tests/integration: here every order of events is made to happen.
"""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.buffer import Batch, Buffer
from auditlog.sink.stats import HealthStatus, LossReason
from auditlog.sink.writer import Writer


class Desk:
    """A target: each `write` waits at a gate, and ends as the test says."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.attempts: list[Batch] = []
        self.arrived = asyncio.Semaphore(0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Callable[[Batch], Exception | None] = lambda _: None
        self.closed = 0
        self.cuts = 0
        self.cuttable = False

    async def write(self, batch: Batch) -> None:
        self.attempts.append(batch)
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


class Scene:
    """A writer with its buffer, and a desk to write to."""

    def __init__(self, **changes: Any) -> None:
        quick: dict[str, Any] = {"batch_age_s": 60, "retry_min_s": 0.001, "retry_max_s": 0.01}
        self.settings = Settings(**(quick | {"batch_rows": 3, "max_queued_rows": 100} | changes))
        self.desk = Desk()
        self.writer: Writer
        self.buffer = Buffer(self.settings, self._on_due)
        self.writer = Writer(self.settings, self.buffer, self.desk, Reporter())

    def _on_due(self) -> None:
        self.writer.wake()

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


def connection_lost(_: Batch) -> Exception:
    return psycopg.OperationalError("server closed the connection unexpectedly")


def refuses(*poison: bytes) -> Callable[[Batch], Exception | None]:
    """As PostgreSQL does: the whole batch, for any of its rows."""

    def fail(batch: Batch) -> Exception | None:
        rows = {row for rows in batch.rows for row in rows}
        return psycopg.errors.UniqueViolation("secret") if rows & set(poison) else None

    return fail


async def test_full_batch_leaves_at_once() -> None:
    """Without anybody asking, and long before it is old."""
    scene = Scene()
    async with scene.running():
        scene.put(b"1", b"2")
        assert scene.desk.attempts == []
        scene.put(b"3")
        assert (await scene.attempt()).size == 3


async def test_old_batch_leaves_though_it_is_not_full() -> None:
    """After `batch_age_s`, counted from its first row."""
    scene = Scene(batch_age_s=0.02)
    async with scene.running():
        started = asyncio.get_running_loop().time()
        scene.put(b"1")
        assert (await scene.attempt()).size == 1
        assert asyncio.get_running_loop().time() - started >= 0.015


async def test_no_traffic_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to write there is no timer, so an idle process sleeps."""
    scene = Scene(batch_age_s=0.001)
    async with scene.running():
        scene.put(b"1")
        await scene.attempt()
        await asyncio.sleep(0)
        looks = 0
        real = scene.buffer.seconds_until_due

        def count() -> float | None:
            nonlocal looks
            looks += 1
            return real()

        monkeypatch.setattr(scene.buffer, "seconds_until_due", count)
        await asyncio.sleep(0.05)  # fifty times the age that would make a batch due
        assert looks <= 1


async def test_flush_waits_for_what_was_queued_and_in_flight() -> None:
    """A batch under way when it is called, and everything in the queue."""
    scene = Scene()
    async with scene.running():
        scene.desk.gate.clear()
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        scene.put(b"4")
        flush = asyncio.create_task(scene.writer.flush())
        await asyncio.sleep(0)
        assert not flush.done()
        scene.desk.gate.set()
        assert await flush
        assert scene.desk.written == [b"1", b"2", b"3", b"4"]


async def test_flush_of_nothing_returns_at_once() -> None:
    """There is nothing to wait for."""
    scene = Scene()
    async with scene.running():
        assert await scene.writer.flush()
    assert scene.desk.attempts == []


async def test_flush_ends_under_traffic_that_never_pauses() -> None:
    """It waits for what was there when it was called, however much has come since."""
    scene = Scene()
    async with scene.running():
        scene.put(*(b"before %d" % number for number in range(7)))
        more = 0

        def traffic(_: Batch) -> None:
            nonlocal more
            for _ in range(4):
                more += 1
                scene.put(b"after %d" % more)

        scene.desk.fail = traffic
        async with asyncio.timeout(5):
            assert await scene.writer.flush()
        assert {b"before %d" % number for number in range(7)} <= set(scene.desk.written)
        scene.desk.fail = lambda _: None


async def test_flush_repeats_at_once_what_waits_to_be_repeated() -> None:
    """Whoever flushes does not wait for a back-off of half a minute."""
    scene = Scene(retry_min_s=1000, retry_max_s=1000)
    scene.desk.fail = connection_lost
    async with scene.running():
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        await asyncio.sleep(0)
        scene.desk.fail = lambda _: None
        async with asyncio.timeout(5):
            assert await scene.writer.flush()
    assert scene.desk.written == [b"1", b"2", b"3"]


async def test_flush_given_up_leaves_nothing_behind() -> None:
    """A health check that flushes every second while the database is away."""
    scene = Scene()
    scene.desk.fail = connection_lost
    async with scene.running():
        scene.put(b"1")
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(scene.writer.flush(), 0.001)
        assert scene.writer._flushes == []
        scene.desk.fail = lambda _: None


async def test_flush_tells_when_the_writer_ended_first() -> None:
    """A record that waits on is not settled."""
    scene = Scene()
    scene.desk.gate.clear()
    async with scene.running() as task:
        scene.put(b"1")
        flush = asyncio.create_task(scene.writer.flush())
        await scene.attempt()
        task.cancel()
        assert not await flush
    assert scene.buffer.snapshot().pending == 1


async def test_failed_batch_is_repeated_under_its_identity() -> None:
    """The ledger recognises it, so its rows are never stored twice."""
    scene = Scene()
    async with scene.running():
        scene.desk.fail = connection_lost
        scene.put(b"1", b"2", b"3")
        for _ in range(5):
            await scene.attempt()
        assert scene.writer.health.status is HealthStatus.DEGRADED
        assert "OperationalError" in scene.writer.health.reason
        assert scene.writer.health.remedy
        scene.desk.fail = lambda _: None
        assert await scene.writer.flush()
        assert scene.writer.health.status is HealthStatus.OK
    assert len({batch.batch_id for batch in scene.desk.attempts}) == 1
    assert scene.writer.retries == len(scene.desk.attempts) - 1
    assert scene.desk.written == [b"1", b"2", b"3"]


async def test_configuration_fault_is_loud_and_retried(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody has to act, and then it goes on by itself."""
    scene = Scene()
    async with scene.running():
        scene.desk.fail = lambda _: psycopg.errors.UndefinedTable("secret")
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        await scene.attempt()
        health = scene.writer.health
        assert health.status is HealthStatus.FAILED
        assert health.reason == "UndefinedTable (SQLSTATE 42P01)"
        assert "auditlog migrate" in health.remedy
        scene.desk.fail = lambda _: None
        assert await scene.writer.flush()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("poison", [(), (b"0",), (b"7",), (b"2", b"3"), (b"0", b"4", b"9")])
async def test_poison_costs_only_itself(poison: tuple[bytes, ...]) -> None:
    """Batches are split until a refused row is alone; all others are written once."""
    scene = Scene(batch_rows=10)
    scene.desk.fail = refuses(*poison)
    rows = [b"%d" % number for number in range(10)]
    async with scene.running():
        scene.put(*rows)
        assert await scene.writer.flush()
    assert sorted(scene.desk.written) == sorted(set(rows) - set(poison))
    stats = scene.buffer.snapshot()
    assert (stats.written, stats.dropped) == (10 - len(poison), len(poison))
    assert stats.dropped_by_reason == ({"rejected": len(poison)} if poison else {})


async def test_halves_have_identities_of_their_own() -> None:
    """The whole was rolled back: a half is not a repetition of it."""
    scene = Scene()
    scene.desk.fail = refuses(b"2")
    async with scene.running():
        scene.put(b"1", b"2", b"3")
        assert await scene.writer.flush()
    identities = [batch.batch_id for batch in scene.desk.attempts]
    assert len(identities) == len(set(identities))


async def test_all_rows_poison_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Counted each, told once, and never with the row."""
    scene = Scene(batch_rows=20)
    rows = [b"%d" % number for number in range(20)]
    scene.desk.fail = refuses(*rows)
    async with scene.running():
        scene.put(*rows)
        assert await scene.writer.flush()
    assert scene.buffer.snapshot().dropped_by_reason == {"rejected": 20}
    assert caplog.messages == [
        "auditlog.row_rejected: the database refused a row: UniqueViolation (SQLSTATE 23505)"
    ]


async def test_stop_ships_what_is_queued_and_no_more() -> None:
    """Whoever goes on submitting does not keep it from ending; the next run takes the rest."""
    scene = Scene()
    async with scene.running() as task:
        scene.put(b"1")
        scene.desk.gate.clear()
        scene.writer.stop()
        await scene.attempt()
        scene.put(b"2")
        scene.desk.gate.set()
        await task
    assert scene.desk.written == [b"1"]
    async with scene.running() as task:
        scene.writer.stop()
        await task
    assert scene.desk.written == [b"1", b"2"]
    assert scene.desk.closed == 2


async def test_stop_ends_a_long_back_off() -> None:
    """The database may be back: what is left is tried again before it is given up."""
    scene = Scene(retry_min_s=1000, retry_max_s=1000)
    scene.desk.fail = connection_lost
    async with scene.running() as task:
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        scene.desk.fail = lambda _: None
        scene.writer.stop()
        async with asyncio.timeout(5):
            await task
    assert scene.desk.written == [b"1", b"2", b"3"]


async def test_cancelled_batch_is_taken_up_by_the_next_run() -> None:
    """Under its identity: whether it was committed is not known."""
    scene = Scene()
    scene.desk.gate.clear()
    async with scene.running() as task:
        scene.put(b"1", b"2", b"3")
        first = await scene.attempt()
        task.cancel()
        await asyncio.wait({task})
    assert scene.buffer.snapshot().in_flight == 3
    scene.desk.gate.set()
    async with scene.running():
        assert (await scene.attempt()).batch_id == first.batch_id
    assert scene.desk.written == [b"1", b"2", b"3"]
    assert scene.buffer.snapshot().pending == 0


@pytest.mark.parametrize("cuttable", [True, False])
async def test_giving_up_ends_a_write_that_hangs(cuttable: bool) -> None:
    """A connection that can be cut ends it; else whoever asked has to cancel."""
    scene = Scene()
    scene.desk.gate.clear()
    scene.desk.cuttable = cuttable
    async with scene.running() as task:
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        assert scene.writer.give_up() is cuttable
        if not cuttable:
            task.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait({task})
    assert task.cancelled()
    assert scene.writer.abandon() == 3
    assert scene.buffer.snapshot().dropped_by_reason == {"shutdown": 3}


async def test_write_that_succeeds_while_it_is_given_up_counts_as_written() -> None:
    """What is committed was not lost."""
    scene = Scene()
    scene.desk.gate.clear()
    async with scene.running() as task:
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        scene.writer.give_up()
        scene.desk.gate.set()
        scene.writer.stop()
        await task
    stats = scene.buffer.snapshot()
    assert (stats.written, stats.pending) == (3, 0)


async def test_abandon_counts_the_queue_and_what_is_under_way() -> None:
    """Every row that is still here, once."""
    scene = Scene()
    scene.desk.gate.clear()
    async with scene.running() as task:
        scene.put(b"1", b"2", b"3")
        await scene.attempt()
        scene.put(b"4", b"5")
        task.cancel()
    assert scene.writer.abandon() == 5
    assert scene.writer.abandon() == 0
    stats = scene.buffer.snapshot()
    assert (stats.submitted, stats.pending) == (5, 0)
    assert stats.dropped_by_reason == {LossReason.SHUTDOWN: 5}


async def test_second_run_on_one_loop_takes_over() -> None:
    """Two starts at once, as from a signal handler: one of them writes, the other ends."""
    scene = Scene()
    first = asyncio.create_task(scene.writer.run())
    await asyncio.sleep(0)
    async with scene.running():
        async with asyncio.timeout(5):
            await first
        scene.put(b"1", b"2", b"3")
        assert await scene.writer.flush()
    assert len(scene.desk.attempts) == 1
    assert scene.desk.closed == 1


async def test_wake_from_another_thread() -> None:
    """A thread that fills the batch reaches the loop."""
    scene = Scene()
    async with scene.running():
        thread = threading.Thread(target=scene.put, args=(b"1", b"2", b"3"))
        thread.start()
        assert (await scene.attempt()).size == 3
        thread.join()


def test_wake_without_a_loop_says_so() -> None:
    """Before the first run, after the last, and while nobody runs the loop."""

    async def begin() -> None:
        tasks.append(asyncio.create_task(scene.writer.run()))
        await asyncio.sleep(0)
        assert scene.writer.wake()

    async def end() -> None:
        scene.writer.stop()
        await asyncio.wait(tasks)
        assert not scene.writer.wake()

    scene = Scene()
    tasks: list[asyncio.Task[None]] = []
    assert not scene.writer.wake()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    assert not scene.writer.wake()
    loop.run_until_complete(end())
    loop.close()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_loop_that_is_closed_in_the_middle_does_not_harm_the_next() -> None:
    """The dead run is taken apart by the garbage collector while another one is at work."""

    async def begin(scene: Scene) -> None:
        scene.desk.gate.clear()
        scene.put(b"1", b"2", b"3")
        scene.desk.task = asyncio.create_task(scene.writer.run())  # type: ignore[attr-defined]
        scene.desk.flush = asyncio.create_task(scene.writer.flush())  # type: ignore[attr-defined]
        await scene.attempt()

    async def go_on(scene: Scene) -> None:
        scene.desk.gate, scene.desk.arrived = asyncio.Event(), asyncio.Semaphore(0)
        async with scene.running():
            await scene.attempt()
            loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending!"
            del scene.desk.task, scene.desk.flush  # type: ignore[attr-defined]
            gc.collect()
            assert scene.writer.wake()
            scene.desk.gate.set()
            assert await scene.writer.flush()
            scene.put(b"4", b"5", b"6")
            assert await scene.writer.flush()

    scene = Scene()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin(scene))
    loop.close()
    asyncio.run(go_on(scene))
    assert sorted(scene.desk.written) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    stats = scene.buffer.snapshot()
    assert (stats.written, stats.pending) == (6, 0)


def test_run_on_a_loop_that_stood_still_leaves_the_work_to_its_successor() -> None:
    """Nobody drove the first loop for a while; when it goes on, another one writes."""

    async def begin(scene: Scene) -> None:
        scene.desk.gate.clear()
        scene.put(b"1", b"2", b"3")
        tasks.append(asyncio.create_task(scene.writer.run()))
        await scene.attempt()

    async def take_over(scene: Scene) -> None:
        scene.desk.gate, scene.desk.arrived = asyncio.Event(), asyncio.Semaphore(0)
        async with scene.running():
            await scene.attempt()
            scene.desk.gate.set()
            assert await scene.writer.flush()

    scene = Scene()
    tasks: list[asyncio.Task[None]] = []
    loop = asyncio.new_event_loop()
    first_gate = scene.desk.gate
    loop.run_until_complete(begin(scene))
    asyncio.run(take_over(scene))
    loop.call_soon(first_gate.set)
    loop.run_until_complete(asyncio.wait(tasks))
    loop.close()
    assert tasks[0].cancelled()
    stats = scene.buffer.snapshot()
    assert (stats.written, stats.pending) == (3, 0)
