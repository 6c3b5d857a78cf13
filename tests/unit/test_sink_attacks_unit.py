"""What somebody tries who wants the sink to lose a row, to count it twice, or to hold up a loop."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import trail
from auditlog import HealthStatus, Settings
from auditlog.reporting import Reporter
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.batch import Batch
from auditlog.sink.queue.buffer import SPILLED, Buffer
from auditlog.sink.queue.stats import LossReason
from auditlog.sink.spooled import UNREADABLE_S, Recovered, Spooled
from auditlog.sink.waiting import Durability, Room
from auditlog.ticket import Ticket
from spool_scene import drained, put, row, spool_at
from writer_scene import Scene, connection_lost, refuses

Operation = Callable[[Buffer], Callable[[], object]]


def buffer_of(**changes: Any) -> Buffer:
    small: dict[str, Any] = {"max_queued_rows": 6, "batch_rows": 3}
    return Buffer(Settings(**(small | changes)), Accounts(), lambda: None)


def fill(buffer: Buffer, count: int, *, low: bool = True) -> None:
    for number in range(count):
        buffer.put(0, row(number), low)


def taking(buffer: Buffer) -> Callable[[], object]:
    fill(buffer, 2)
    return lambda: settle(buffer, buffer.take())


def giving_up(buffer: Buffer) -> Callable[[], object]:
    fill(buffer, 5)
    return buffer.give_up_queued


def evicting(buffer: Buffer) -> Callable[[], object]:
    fill(buffer, 6)
    return lambda: buffer.put(0, row(99), False)


def refusing(buffer: Buffer) -> Callable[[], object]:
    fill(buffer, 6, low=False)
    return lambda: buffer.put(0, row(99), False)


def settle(buffer: Buffer, batch: Batch | None) -> None:
    if batch is not None:
        buffer.settle(batch)


class Signal:
    """Puts a row at the n-th call, where CPython would run a signal handler."""

    def __init__(self, at: int, handler: Callable[[], object]) -> None:
        self._left = at
        self._handler = handler
        self.came = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in {"call", "c_return"} and frame.f_code.co_filename != __file__:
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                self.came = True
                self._handler()

    def during(self, code: Callable[[], object]) -> None:
        sys.setprofile(self)
        try:
            code()
        finally:
            sys.setprofile(None)


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("operation", [taking, giving_up, evicting, refusing])
def test_signal_handler_puts_at_any_call(operation: Operation, low: bool) -> None:
    """The row is written or counted, whatever its thread was about to do with the queue."""
    at, came = 0, True
    while came:
        at += 1
        accounts = Accounts()
        buffer = Buffer(Settings(max_queued_rows=6, batch_rows=3), accounts, lambda: None)
        code, late = operation(buffer), row(1000)
        signal = Signal(at, lambda: buffer.put(0, late, low))  # noqa: B023  # called in this round
        signal.during(code)
        came = signal.came
        while (batch := buffer.take()) is not None:
            buffer.settle(batch)
        stats = buffer.snapshot()
        assert trail.adds_up(stats)
        assert (stats.pending, stats.queued_bytes) == (0, 0)
        assert sum(gap.count for gap in accounts.gaps.take()) == stats.dropped
        buffer.put(0, row(0), False)  # there is room again
        assert buffer.snapshot().queued == 1
    assert at > 10


def test_row_in_the_spool_is_not_committed() -> None:
    """The queue is full and the spool takes the row: who waits for a commit has not got one."""
    settings = Settings(max_queued_rows=1)
    buffer = Buffer(settings, Accounts(), lambda: None, spill=lambda *_: True)
    fill(buffer, 1)
    ticket = Ticket()
    assert buffer.put(0, row(1), False, ticket) is SPILLED
    assert ticket.is_settled
    assert not ticket.wait(0)


def test_rows_somebody_waits_for_are_due_until_the_last_is_taken() -> None:
    """More of them than a batch holds: the rest need not wait until it is old."""
    buffer = buffer_of(max_queued_rows=100)
    for number in range(5):
        buffer.put(0, row(number), True, Ticket())
    assert buffer.take() is not None
    assert (buffer.pending(), buffer.seconds_until_due()) == (2, 0.0)
    assert buffer.take() is not None
    buffer.put(0, row(9), True)
    assert buffer.seconds_until_due() != 0.0


async def test_waiting_in_vain_for_room_leaves_nothing_behind() -> None:
    """Every request of an outage that lasts for days."""
    buffer = buffer_of()
    fill(buffer, 6)
    room = Room(Settings(block_timeout_s=0.001), buffer, lambda: False)
    for _ in range(5):
        await room.wait()
        await asyncio.to_thread(room.wait_in_thread)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await Room(Settings(block_timeout_s=60), buffer, lambda: False).wait()
    assert buffer._room_wanted == set()


def test_probe_makes_the_writer_try() -> None:
    """Or else a back-off of half a minute says when requests are served again."""
    hurried: list[None] = []
    durability = Durability(
        Settings(commit_timeout_s=0.001),
        Accounts(),
        committed_at=lambda: 0.0,
        hurry=lambda: hurried.append(None),
        reporter=Reporter(),
    )
    ticket = Ticket()
    ticket.expect()
    assert not durability.wait_in_thread(ticket)
    assert (durability.is_open, hurried) == (True, [])
    durability._probed_at -= 2  # a second has passed since
    for _ in range(3):
        assert not durability.wait_in_thread(ticket)
    assert hurried == [None]


async def test_hurry_ends_a_back_off() -> None:
    """From another thread, as a request of a threaded server does."""
    scene = Scene(retry_min_s=1000, retry_max_s=1000)
    scene.desk.fail = connection_lost
    async with scene.running():
        scene.put(b"1", b"2", b"3")
        await scene.back_off()
        scene.desk.fail = lambda _: None
        await asyncio.to_thread(scene.writer.hurry)
        await scene.attempt()
        await scene.attempt()
    assert scene.desk.written == [b"1", b"2", b"3"]


class Unreadable:
    """A source that has rows, is due, and does not hand them out."""

    in_order = True

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def seconds_until_due(self) -> float | None:
        return 0.0 if self._error else 60.0

    def pending(self) -> int:
        return 1

    def take(self) -> Batch | None:
        if self._error:
            raise self._error
        return None

    def settle(self, batch: Batch, reason: LossReason | None = None) -> None:
        raise AssertionError

    def bury(self, batch: Batch) -> None:
        raise AssertionError

    def give_up(self, batch: Batch) -> int:
        raise AssertionError


async def test_flush_does_not_claim_what_cannot_be_read() -> None:
    """Its rows wait on, and are not settled."""
    scene = Scene()
    scene.writer._all = [scene.buffer, Unreadable(None)]
    async with scene.running():
        async with asyncio.timeout(5):
            assert not await scene.writer.flush()


async def test_writer_that_ends_by_a_defect_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody awaits its task."""
    scene = Scene()
    scene.writer._all = [Unreadable(LookupError("a defect"))]
    task = asyncio.create_task(scene.writer.run())
    await asyncio.wait({task})
    assert isinstance(task.exception(), LookupError)
    assert scene.writer.health.status is HealthStatus.FAILED
    assert "auditlog.writer_failed" in caplog.text
    assert "a defect" not in caplog.text.replace("a defect of its own", "")


class Lane:
    """The records of one process, spooled and counted."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        quick: dict[str, Any] = {"batch_rows": 4, "durability": "spool", "spool_dir": str(folder)}
        self.settings = Settings(**(quick | changes))
        self.accounts = Accounts()
        self.spool = spool_at(folder)
        self.told = 0
        self.spooled = Spooled(self.settings, self.accounts, self.spool, self._on_due, lambda: None)
        self.buffer = Buffer(self.settings, self.accounts, lambda: None, self.spooled.spill)
        self.put = self.spooled.putter(self.buffer)

    def _on_due(self) -> None:
        self.told += 1

    def fill(self, numbers: range) -> None:
        for number in numbers:
            assert self.put(0, row(number), False, None) is SPILLED


def test_next_life_counts_all_of_its_rows(tmp_path: Path) -> None:
    """A batch was written in part when the life before was given up."""
    lane = Lane(tmp_path)
    lane.fill(range(4))
    batch = lane.spooled.take()
    assert batch is not None
    first, second = batch.parts(3)
    lane.spooled.settle(first)
    assert lane.spooled.give_up(second) == 0
    lane.spool.close()
    lane.fill(range(10, 14))
    again = lane.spooled.take()
    assert again is not None
    assert not again.replay
    lane.spooled.settle(again)
    stats = lane.buffer.snapshot()
    assert (stats.submitted, stats.written, stats.spooled) == (8, 7, 1)
    lane.spool.close()


def test_segment_that_cannot_be_opened_does_not_make_the_writer_spin(tmp_path: Path) -> None:
    """Full batches wait behind it, and a writer that is due never yields to its event loop."""
    lane = Lane(tmp_path)
    lane.fill(range(9))
    (segment,) = tmp_path.glob("*/*.segment")
    descriptors = [os.open(os.devnull, os.O_RDONLY)]
    segment.rename(segment.with_suffix(".away"))
    # ELOOP, as anything else that may pass: too many open files, a disk that errs.
    segment.symlink_to(segment)
    try:
        assert lane.spooled.take() is None
        due = lane.spooled.seconds_until_due()
        assert due is not None
        assert UNREADABLE_S / 2 < due <= UNREADABLE_S
        assert "cannot be read" in lane.spool.unreadable
    finally:
        segment.unlink()
        segment.with_suffix(".away").rename(segment)
        os.close(descriptors.pop())
    batch = lane.spooled.take()
    assert batch is not None
    assert batch.size == 4
    assert lane.spool.unreadable == ""
    lane.spool.close()


def test_first_row_after_a_take_is_told_of(tmp_path: Path) -> None:
    """Also when one came while the rows were read, and its thread was slow to say so."""
    lane = Lane(tmp_path)
    lane.fill(range(2))
    taking, counted = threading.Event(), threading.Event()
    read = lane.spool.take

    def slow(max_rows: int, max_bytes: int) -> Any:
        taking.set()
        assert counted.wait(10)
        return read(max_rows, max_bytes)

    lane.spool.take = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=lane.spooled.take)
    thread.start()
    assert taking.wait(10)
    lane.fill(range(2, 3))
    counted.set()
    thread.join()
    told = lane.told
    lane.fill(range(3, 4))
    assert lane.told == told + 1
    lane.spool.close()


def test_all_lanes_are_brought_home_at_once(tmp_path: Path) -> None:
    """More of them than are held at a time: a cron job that says `done` has left none behind."""
    for number in range(20):
        dead = spool_at(tmp_path)
        put(dead, range(number, number + 1))
        dead.close()
    spool, accounts = spool_at(tmp_path), Accounts()
    recovered = Recovered(Settings(), accounts, spool, lambda: None)
    while (batch := recovered.take()) is not None:
        assert not recovered.is_done
        recovered.settle(batch)
    assert recovered.is_done
    assert recovered.rows == 20
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_close_answers_whoever_has_just_appended(tmp_path: Path) -> None:
    """The record came between the last fdatasync and the end of the lane."""
    spool = spool_at(tmp_path, fsync="interval", fsync_interval_s=60)
    put(spool, range(1))
    syncer, answers = spool._tail.syncer, list[bool]()
    run = syncer.run

    def late() -> None:
        run()
        spool.append(0, row(1), False, answers.append)

    syncer.run = late  # type: ignore[method-assign]
    spool.close()
    syncer.run = run  # type: ignore[method-assign]
    assert answers == [True]


def test_lock_of_the_tail_is_the_same_for_ever(tmp_path: Path) -> None:
    """A thread that appends while another closes must not find an open door."""
    spool = spool_at(tmp_path)
    lock = spool._tail.lock
    locks = set()

    class Watched(type(spool._tail)):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            locks.add(self.lock)

    spool._tail.__class__ = Watched
    put(spool, range(1))
    spool.close()
    put(spool, range(1, 2))
    assert locks == {lock}
    spool.close()


def test_segment_that_is_gone_when_its_rows_are_repeated(tmp_path: Path) -> None:
    """What stands behind them must not wait for it for ever; they are counted."""
    spool = spool_at(tmp_path)
    put(spool, range(3))
    assert spool.take(10, 10**6) is not None
    spool._tail.give_up_segment()
    put(spool, range(3, 5))
    spool.put_back()
    (first, *_) = sorted(tmp_path.glob("*/*.segment"))
    assert spool._tail.backlog is not None
    for segment in spool._tail.backlog.ahead:
        segment.close()
    first.unlink()
    assert sorted(drained(spool)) == [3, 4]
    assert sum(lost.count for lost in spool.lost()) == 3
    spool.close()


def test_rows_leave_the_spool_without_holding_up_a_submit(tmp_path: Path) -> None:
    """Files are deleted then, and a disk may take its time."""
    lane = Lane(tmp_path)
    lane.fill(range(4))
    settle_in_spool, was_free = lane.spool.settle, list[bool]()

    def slow(*arguments: Any) -> None:
        thread = threading.Thread(
            target=lambda: was_free.append(lane.accounts.lock.acquire(timeout=5))
        )
        thread.start()
        thread.join()
        settle_in_spool(*arguments)

    lane.spool.settle = slow  # type: ignore[method-assign]
    batch = lane.spooled.take()
    assert batch is not None
    lane.spooled.settle(batch)
    assert was_free == [True]


async def test_batch_that_cannot_be_split_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a defect of the library's own: its rows are pending, and counted by whoever gives up."""
    scene = Scene()

    def defect(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(scene.writer._isolation, "split", defect)
    scene.desk.fail = refuses(b"2")
    scene.put(b"1", b"2", b"3")
    task = asyncio.create_task(scene.writer.run())
    await asyncio.wait({task})
    assert isinstance(task.exception(), LookupError)
    assert scene.writer.abandon() == 3
    assert trail.adds_up(scene.buffer.snapshot())
    assert scene.buffer.snapshot().pending == 0
