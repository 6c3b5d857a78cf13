"""`Buffer`: bounded by rows and bytes, in order, and every row accounted for at any moment."""

import itertools
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from auditlog.settings import Settings
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.batch import Batch
from auditlog.sink.queue.buffer import Buffer
from auditlog.sink.queue.stats import LossReason, Stats
from auditlog.tables import TABLES

LOGS, EXECUTIONS, QUOTAS = range(len(TABLES))


def settings(**changes: Any) -> Settings:
    """Small bounds: ten rows, a batch of three."""
    small: dict[str, Any] = {"max_queued_rows": 10, "batch_rows": 3}
    return Settings(**(small | changes))


def buffer_of(**changes: Any) -> Buffer:
    return Buffer(settings(**changes), Accounts(), lambda: None)


def adds_up(stats: Stats) -> bool:
    """The invariant of `Stats`."""
    accounted = stats.written + stats.pending + stats.spooled + stats.dropped
    return stats.submitted == accounted + stats.dead_lettered


def rows_of(batch: Batch | None) -> list[bytes]:
    assert batch is not None
    return [row for rows in batch.rows for row in rows]


class BufferMachine(RuleBasedStateMachine):
    """Any sequence of calls, compared with lists of what is where."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Settings(
            max_queued_rows=8, max_queued_bytes=16384, max_row_bytes=16384, batch_rows=3
        )
        self.buffer = Buffer(self.limits, Accounts(), self._on_due)
        self.queued: list[tuple[int, bytes, bool]] = []
        self.batches: list[Batch] = []
        self.seen: Counter[str] = Counter()
        self.due = 0

    def _on_due(self) -> None:
        self.due += 1

    @rule(
        table=st.integers(0, 2),
        size=st.sampled_from((1, 100, 3000, 16384)),
        low=st.booleans(),
    )
    def put(self, table: int, size: int, low: bool) -> None:
        row = bytes(size)
        before = self.due
        was_empty = not self.queued
        lost = self.buffer.put(table, row, low)
        evicted = [victim for victim in lost if victim is not row]
        self.seen["submitted"] += 1
        self.seen["lost"] += len(lost)
        for victim in evicted:
            entry = next(e for e in self.queued if e[1] is victim)
            assert entry[2], "an important row was evicted"
            self.queued.remove(entry)
        if lost and lost[-1] is row:
            assert not evicted, "rows were evicted for one that was refused all the same"
        else:
            self.queued.append((table, row, low))
            assert self.due > before or not was_empty
        assert not (low and evicted)

    @rule()
    def take(self) -> None:
        batch = self.buffer.take()
        if batch is None:
            assert not self.queued
            return
        taken = rows_of(batch)
        assert 1 <= len(taken) <= self.limits.batch_rows
        by_priority = sorted(self.queued, key=lambda entry: (entry[2], entry[0]))
        assert {id(row) for row in taken} == {id(e[1]) for e in by_priority[: len(taken)]}
        self.queued = [entry for entry in self.queued if all(entry[1] is not r for r in taken)]
        self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), reason=st.sampled_from([None, LossReason.REJECTED]))
    def settle(self, data: st.DataObject, reason: LossReason | None) -> None:
        batch = self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))
        self.buffer.settle(batch, reason)
        self.seen["written" if reason is None else "lost"] += batch.size

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        """As the writer does with a refused batch."""
        batch = self.batches.pop()
        if batch.size > 1:
            self.batches.extend(batch.parts(data.draw(st.integers(0, batch.size))))
        else:
            self.batches.append(batch)

    @rule()
    def drop(self) -> None:
        self.buffer.drop(LossReason.CAPTURE)
        self.seen["submitted"] += 1
        self.seen["lost"] += 1

    @rule()
    def give_up(self) -> None:
        assert self.buffer.give_up_queued() == len(self.queued)
        self.seen["lost"] += len(self.queued)
        self.queued.clear()

    @invariant()
    def accounts_for_every_row(self) -> None:
        stats = self.buffer.snapshot()
        in_flight = [row for batch in self.batches for row in rows_of(batch)]
        assert adds_up(stats)
        assert stats.submitted == self.seen["submitted"]
        assert stats.written == self.seen["written"]
        assert stats.dropped == self.seen["lost"]
        assert (stats.queued, stats.in_flight) == (len(self.queued), len(in_flight))
        held = sum(len(row) for _, row, _ in self.queued) + sum(map(len, in_flight))
        assert stats.queued_bytes == held
        assert stats.pending <= self.limits.max_queued_rows
        assert held <= self.limits.max_queued_bytes
        assert (self.buffer.seconds_until_due() is None) == (not self.queued)


TestBufferMachine = BufferMachine.TestCase
TestBufferMachine.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)


def test_rows_in_flight_take_room() -> None:
    """What is being written still is in memory."""
    buffer = buffer_of()
    for number in range(10):
        assert not buffer.put(LOGS, bytes([number]), False)
    assert buffer.take() is not None
    row = b"one more"
    assert buffer.put(LOGS, row, False) == [row]
    assert buffer.snapshot().dropped_by_reason == {"overflow": 1}


def test_settled_rows_give_their_room_back() -> None:
    """In rows and in bytes, written or not."""
    buffer = buffer_of(max_queued_bytes=16384, max_row_bytes=16384)
    for reason in (None, LossReason.REJECTED):
        assert not buffer.put(LOGS, bytes(16384), False)
        assert buffer.put(LOGS, b"x", False)
        batch = buffer.take()
        assert batch is not None
        buffer.settle(batch, reason)
    assert not buffer.put(LOGS, bytes(16384), False)


def test_overflow_drops_what_is_not_important() -> None:
    """An important row takes the place of the oldest unimportant one, in any table."""
    buffer = buffer_of()
    low = [bytes([number]) for number in range(10)]
    for row in low:
        buffer.put(EXECUTIONS, row, True)
    assert buffer.put(LOGS, b"important", False) == [low[0]]
    assert buffer.put(LOGS, b"unimportant", True) == [b"unimportant"]
    taken: list[bytes] = []
    while batch := buffer.take():
        taken += rows_of(batch)
    assert taken == [b"important", *low[1:10]]


def test_overflow_drops_the_newest_if_told_so() -> None:
    """Under `drop_newest` a row that is in stays in."""
    buffer = buffer_of(on_overflow="drop_newest")
    for number in range(10):
        buffer.put(LOGS, bytes([number]), True)
    assert buffer.put(LOGS, b"important", False) == [b"important"]


def test_nothing_is_evicted_in_vain() -> None:
    """A row for which all the unimportant ones would not make room leaves them alone."""
    buffer = buffer_of(max_queued_bytes=16384, max_row_bytes=16384)
    buffer.put(LOGS, bytes(10_000), False)
    for _ in range(3):
        buffer.put(LOGS, bytes(2000), True)
    large = bytes(14_000)
    assert buffer.put(LOGS, large, False) == [large]
    assert buffer.snapshot().queued == 4
    assert len(buffer.put(LOGS, bytes(6000), False)) == 3


def test_empty_queue_after_an_eviction_is_not_due() -> None:
    """The writer would otherwise ask for a batch for ever, and block its loop."""
    buffer = buffer_of(max_queued_bytes=16384, max_row_bytes=16384, batch_age_s=0.001)
    buffer.put(LOGS, bytes(6000), False)
    assert buffer.take() is not None
    buffer.put(LOGS, bytes(1000), True)
    buffer.put(LOGS, bytes(3000), False)
    assert buffer.take() is not None
    assert buffer.seconds_until_due() is None


@pytest.mark.parametrize("low", [None, 0, 5, -1, "yes", object()])
def test_any_priority_is_taken(low: Any) -> None:
    """Only True is unimportant; nothing else may upset the counters."""
    buffer = buffer_of()
    for number in range(12):
        buffer.put(LOGS, bytes([number]), low)
    stats = buffer.snapshot()
    assert adds_up(stats)
    assert (stats.submitted, stats.queued, stats.dropped) == (12, 10, 2)


def test_important_rows_leave_first() -> None:
    """Of every table, before the unimportant ones of any."""
    buffer = buffer_of()
    buffer.put(LOGS, b"l", True)
    buffer.put(QUOTAS, b"q", False)
    buffer.put(LOGS, b"h", False)
    batch = buffer.take()
    assert batch is not None
    assert batch.rows == [[b"h", b"l"], [], [b"q"]]


def test_batch_is_bounded_by_rows_and_by_bytes() -> None:
    """By bytes with the one row that crosses the line, so that it cannot be empty."""
    buffer = buffer_of(batch_bytes=1000)
    for _ in range(5):
        buffer.put(LOGS, bytes(10), False)
    assert len(rows_of(buffer.take())) == 3
    buffer = buffer_of(batch_bytes=1000)
    for _ in range(3):
        buffer.put(LOGS, bytes(600), False)
    assert len(rows_of(buffer.take())) == 2


def test_backlog_goes_in_batches_as_large_as_any() -> None:
    """Larger ones would hold up the event loop, and with it the requests."""
    buffer = buffer_of(max_queued_rows=100)
    for _ in range(10):
        buffer.put(LOGS, bytes(10), False)
    sizes = []
    while batch := buffer.take():
        sizes.append(batch.size)
    assert sizes == [3, 3, 3, 1]


def test_told_when_the_first_row_comes_and_when_a_batch_is_full() -> None:
    """Once each: in between nobody has to be woken."""
    calls: list[int] = []
    buffer = Buffer(
        settings(batch_bytes=1000), Accounts(), lambda: calls.append(buffer.snapshot().queued)
    )
    for _ in range(5):
        buffer.put(LOGS, b"x", False)
    assert calls == [1, 3]
    buffer.put(LOGS, bytes(1000), False)
    buffer.put(LOGS, bytes(1000), False)
    assert calls == [1, 3, 6]


def test_due_by_rows_bytes_and_age() -> None:
    """Whichever comes first."""
    buffer = buffer_of(batch_age_s=60, batch_bytes=1000)
    assert buffer.seconds_until_due() is None
    buffer.put(LOGS, b"x", False)
    seconds = buffer.seconds_until_due()
    assert seconds is not None
    assert 59 < seconds <= 60
    buffer.put(LOGS, bytes(1000), False)
    assert buffer.seconds_until_due() == 0.0
    buffer = buffer_of(batch_age_s=60)
    for _ in range(3):
        buffer.put(LOGS, b"x", False)
    assert buffer.seconds_until_due() == 0.0
    buffer = buffer_of(batch_age_s=0.001)
    buffer.put(LOGS, b"x", False)
    deadline = time.monotonic() + 0.001
    while time.monotonic() < deadline:
        pass
    assert buffer.seconds_until_due() == 0.0


@pytest.mark.parametrize("sizes", [(2, 0, 0), (0, 0, 3), (1, 1, 1), (3, 2, 2), (7, 0, 1)])
def test_parts_are_the_whole(sizes: tuple[int, ...]) -> None:
    """Wherever it is split: every row once, tables kept apart, under identities of their own."""
    rows = [[f"{table}{n}".encode() for n in range(size)] for table, size in enumerate(sizes)]
    batch = Batch(rows, buffer_of(), replay=True, taken="a note")
    for at in range(1, batch.size):
        first, second = batch.parts(at)
        assert [a + b for a, b in zip(first.rows, second.rows, strict=True)] == rows
        assert (first.size, second.size) == (at, batch.size - at)
        assert len({batch.batch_id, first.batch_id, second.batch_id}) == 3
        assert all(part.replay and part.taken == "a note" for part in (first, second))


@pytest.mark.parametrize("at", [0, 3])
def test_no_part_is_empty(at: int) -> None:
    """A split at an end gives one part, not one and nothing."""
    batch = Batch([[b"1", b"2"], [], [b"3"]], buffer_of())
    (part,) = batch.parts(at)
    assert part.rows == batch.rows


def test_counters_add_up_in_every_snapshot_of_many_threads() -> None:
    """Four threads put, one takes and settles, one looks at the counters all the while."""
    buffer = buffer_of(max_queued_rows=200, batch_rows=50)
    finished = threading.Event()
    wrong: list[Stats] = []

    def put() -> None:
        for number in range(5000):
            if number % 100 == 0:
                buffer.drop(LossReason.CAPTURE)
            # Every row an object of its own, as the encoder makes them.
            buffer.put(number % 3, b"row %d" % number, number % 2 == 0)

    def ship() -> None:
        reasons = itertools.cycle([None, None, LossReason.REJECTED])
        while not finished.is_set() or buffer.snapshot().queued:
            if batch := buffer.take():
                buffer.settle(batch, next(reasons))

    def look() -> None:
        while not finished.is_set():
            stats = buffer.snapshot()
            if not adds_up(stats) or stats.pending > 200:
                wrong.append(stats)

    with frequent_switches(), ThreadPoolExecutor(6) as pool:
        others = [pool.submit(ship), pool.submit(look)]
        wait([pool.submit(put) for _ in range(4)])
        finished.set()
        wait(others)
    stats = buffer.snapshot()
    assert wrong == []
    assert (stats.submitted, stats.pending) == (4 * 5050, 0)
    assert stats.dropped_by_reason["capture"] == 200
    assert adds_up(stats)


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Let threads get into each other's way."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_signal_handler_may_put_while_its_thread_is_in_put() -> None:
    """A handler that submits must not wait for a lock that its own thread holds."""
    buffer = buffer_of(max_queued_rows=10**9, batch_rows=10**6)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        buffer.put(LOGS, b"from the handler", False)

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    puts = 0
    try:
        while handled < 300:
            buffer.put(LOGS, b"row", True)
            puts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    stats = buffer.snapshot()
    assert (stats.submitted, stats.queued) == (puts + handled, puts + handled)
