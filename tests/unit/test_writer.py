"""`Writer`: ships, retries, splits and flushes. The database's side is in tests/integration."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from auditlog.sink.dead_letters import DeadLetter, DeadLetterFile
from auditlog.sink.queue.batch import Batch
from auditlog.sink.queue.stats import HealthStatus
from auditlog.sink.writer import MAX_TIMEOUTS
from writer_scene import Scene, connection_lost, refuses


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
        await scene.back_off()
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
    assert len(scene.desk.identities) == len(set(scene.desk.identities))


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
        "auditlog.row_rejected: the database refused a row, UniqueViolation (SQLSTATE 23505); it is"
        " lost: there is no logstore.dead_letters, and no spool_dir takes it"
    ]


async def test_a_batch_that_takes_too_long_is_made_smaller() -> None:
    """The server ends it each time; what comes behind it is not tried in such batches again."""
    scene = Scene(batch_rows=16)

    def fail(batch: Batch) -> Exception | None:
        return psycopg.errors.QueryCanceled("timeout") if batch.size > 3 else None

    scene.desk.fail = fail
    rows = [b"%02d" % number for number in range(32)]
    async with scene.running():
        scene.put(*rows)
        assert await scene.writer.flush()
    assert sorted(scene.desk.written) == rows
    sizes = [batch.size for batch in scene.desk.attempts]
    assert sizes.count(16) == MAX_TIMEOUTS, "the second batch was tried as long as the first"


async def test_a_row_that_is_stored_already_is_written() -> None:
    """By an attempt of which nobody heard: it is neither lost nor a dead letter."""
    scene = Scene()
    scene.desk.grave_error = None
    scene.desk.written.append(b"2")
    scene.desk.fail = refuses(b"2")
    async with scene.running():
        scene.put(b"1", b"2", b"3")
        assert await scene.writer.flush()
    stats = scene.buffer.snapshot()
    assert (stats.written, stats.dead_lettered, stats.dropped) == (3, 0, 0)
    assert scene.desk.buried == []


async def test_a_dead_letter_file_that_is_being_rewritten_is_waited_for(tmp_path: Path) -> None:
    """By `auditlog dead-letters`, for a second perhaps."""

    class Busy(DeadLetterFile):
        calls = 0

        def append(self, letter: DeadLetter) -> None:
            self.calls += 1
            if self.calls < 3:
                raise BlockingIOError
            super().append(letter)

    scene = Scene()
    scene.isolate_in(Busy(tmp_path))
    scene.desk.fail = refuses(b"2")
    async with scene.running():
        scene.put(b"1", b"2", b"3")
        assert await scene.writer.flush()
    stats = scene.buffer.snapshot()
    assert (stats.written, stats.dead_lettered, stats.dropped) == (2, 1, 0)
