"""`Writer` at the end of a run: stopped, cancelled, given up, or superseded by the next."""

import asyncio
import gc
import threading

import pytest

from auditlog.sink.queue.stats import LossReason
from writer_scene import Scene, connection_lost


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
        await scene.back_off()
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
    assert scene.writer.abandon() == 3
    assert scene.writer.abandon() == 0
    assert scene.buffer.give_up_queued() == 2
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
