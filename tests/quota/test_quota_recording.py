"""Rows of what was decided and crossed, and the application's callback."""

import asyncio
import logging
import threading
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from auditlog import Outcome, QuotaLogRecord
from auditlog.quota.deciding import callback, recording
from auditlog.quota.deciding.recording import Recording
from auditlog.quota.model import Actor, Crossing, Quota, QuotaExceeded
from auditlog.records import Record
from auditlog.testing import MemoryQuotas, MemorySink
from auditlog.ticket import Ticket

START = datetime(2026, 11, 1, tzinfo=UTC)
ADA = Actor("ada", "org-1", "POST /exports")


def crossing(percent: int = 80, **changes: object) -> Crossing:
    values = {
        "crossing_id": f"0191f000-0000-7000-8000-{percent:012}",
        "quota_id": "exports",
        "instance_id": "acme",
        "subject": "user=ada",
        "period_start": START,
        "period_end": START + timedelta(days=30),
        "percent": percent,
        "previous_usage": percent - 1,
        "current_usage": percent,
        "quota_limit": 100,
        "crossed_at": START + timedelta(hours=1),
    }
    return Crossing(**{**values, **changes})  # type: ignore[arg-type]  # of one test each


def rows(sink: MemorySink) -> list[QuotaLogRecord]:
    found = [record for record in sink.records if isinstance(record, QuotaLogRecord)]
    assert len(found) == len(sink.records)
    return found


async def test_every_refusal_has_a_row() -> None:
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("exports", limit=2, counts="reported")])
    await quotas.spend("exports", 2, instance_id="acme")
    with pytest.raises(QuotaExceeded):
        await quotas.spend(
            "exports",
            user_id="ada",
            resource_owner="org-1",
            instance_id="acme",
            action="POST /exports",
        )
    assert rows(sink) == [
        QuotaLogRecord(
            "exports",
            previous_usage=2,
            current_usage=2,
            quota_limit=2,
            resource_owner="org-1",
            allowed=False,
            user_id="ada",
            action="POST /exports",
            instance_id="acme",
        )
    ]


async def test_what_is_allowed_has_one_if_asked() -> None:
    """It makes room for the others, and belongs to the tenant if to no organisation."""
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("exports", limit=2, counts="reported", log_allowed=True)])
    await quotas.spend("exports", instance_id="acme")
    (row,) = rows(sink)
    assert (row.allowed, row.previous_usage, row.current_usage) == (True, 0, 1)
    assert (row.resource_owner, row.low_priority) == ("acme", True)


async def test_a_crossing_has_the_row_of_its_identity() -> None:
    sink = MemorySink()
    told = await Recording(sink, None).crossed([crossing(), crossing(90, user_id="ada")])
    assert told == [crossing().crossing_id, crossing(90).crossing_id]
    first, second = rows(sink)
    assert first.log_id == crossing().crossing_id
    assert first.log_date == crossing().crossed_at
    assert (first.allowed, first.threshold_exceeded, first.low_priority) == (True, True, False)
    assert (first.previous_usage, first.current_usage, first.quota_limit) == (79, 80, 100)
    assert (first.resource_owner, first.instance_id, second.user_id) == ("acme", "acme", "ada")


async def test_a_row_is_submitted_once_by_a_process_and_not_if_it_is_there() -> None:
    sink = MemorySink()
    told = Recording(sink, None)
    await told.crossed([crossing()])
    assert await told.crossed([crossing(), crossing(90, stored_at=START)]) == [
        crossing().crossing_id,
        crossing(90).crossing_id,
    ]
    assert len(sink.records) == 1
    assert told.crossings == 1


async def test_what_was_called_is_not_called_again() -> None:
    """Its row may have been lost with a process after that: it is all that is still to be told."""
    called: list[Crossing] = []
    sink = MemorySink()
    done = await Recording(sink, called.append).crossed([crossing(called_at=START)])
    assert (done, called) == ([crossing().crossing_id], [])
    assert len(sink.records) == 1


async def test_a_row_that_was_dropped_is_submitted_again() -> None:
    class Full(MemorySink):
        is_full = True

        def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
            return Outcome.DROPPED if self.is_full else super().submit(record, ticket)

    sink = Full()
    told = Recording(sink, None)
    await told.crossed([crossing()])
    assert told.crossings == 0
    sink.is_full = False
    await told.crossed([crossing()])
    assert len(sink.records) == 1


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_REMEMBERED", 10)
    told = Recording(MemorySink(), None)
    await told.crossed([crossing(percent) for percent in range(1, 100)])
    assert len(told._submitted) == 10


async def test_a_coroutine_is_called_on_the_loop_and_a_function_in_a_thread() -> None:
    called: list[tuple[Crossing, threading.Thread]] = []

    async def coroutine(crossed: Crossing) -> None:
        called.append((crossed, threading.current_thread()))

    def function(crossed: Crossing) -> None:
        called.append((crossed, threading.current_thread()))

    class Instance:
        async def __call__(self, crossed: Crossing) -> None:
            called.append((crossed, threading.current_thread()))

    for on_crossed in (coroutine, partial(coroutine), Instance(), lambda it: coroutine(crossed=it)):
        await Recording(MemorySink(), on_crossed).crossed([crossing()])
    await Recording(MemorySink(), function).crossed([crossing()])
    assert [each for each, _ in called] == [crossing()] * 5
    here = threading.current_thread()
    assert [thread is here for _, thread in called] == [True, True, True, True, False]


@pytest.mark.parametrize("kind", ["coroutine", "function"])
async def test_a_callback_that_raises_is_told_of_and_keeps_no_other(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises for counts as not told; its row is there all the same."""
    called = []

    def function(crossed: Crossing) -> None:
        called.append(crossed.percent)
        if crossed.percent == 80:
            raise LookupError("the bait of a message")

    async def coroutine(crossed: Crossing) -> None:
        function(crossed)

    sink = MemorySink()
    told = Recording(sink, coroutine if kind == "coroutine" else function)
    with caplog.at_level(logging.WARNING, "auditlog"):
        done = await told.crossed([crossing(50), crossing(80), crossing(90)])
    assert done == [crossing(50).crossing_id, crossing(90).crossing_id]
    assert called == [50, 80, 90]
    assert "auditlog.on_crossed_failed: on_crossed raised LookupError" in caplog.text
    assert "bait" not in caplog.text
    assert told.failed == 1
    assert len(sink.records) == 3


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration])
async def test_a_callback_that_leaves_its_thread_ends_nothing_else(
    error: type[BaseException],
) -> None:
    def on_crossed(crossed: Crossing) -> None:
        if crossed.percent == 80:
            raise error

    told = Recording(MemorySink(), on_crossed)
    done = await told.crossed([crossing(80), crossing(90)])
    assert (done, told.failed) == ([crossing(90).crossing_id], 1)


async def test_a_callback_whose_own_work_is_cancelled_is_called_again() -> None:
    """It is not the teller that was cancelled."""

    async def on_crossed(crossed: Crossing) -> None:
        if crossed.percent == 80:
            raise asyncio.CancelledError

    told = Recording(MemorySink(), on_crossed)
    crossed = [crossing(80), crossing(90), crossing(95, subject="user=ben")]
    done = await told.crossed(crossed)
    assert done == [crossing(90).crossing_id, crossing(95).crossing_id]
    assert told.failed == 1


async def test_telling_may_be_cancelled() -> None:
    begun = asyncio.Event()

    async def on_crossed(_: Crossing) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    told = Recording(MemorySink(), on_crossed)
    telling = asyncio.create_task(told.crossed([crossing()]))
    await begun.wait()
    telling.cancel()
    await asyncio.wait({telling}, timeout=20)
    assert telling.cancelled()
    assert told.failed == 0


async def test_a_callback_that_does_not_return_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And holds up no other counter's."""
    monkeypatch.setattr(recording, "TELL_S", 0.2)
    for on_crossed in (hanging_coroutine, hanging_function):
        done = await Recording(MemorySink(), on_crossed).crossed(
            [crossing(80), crossing(90, subject="user=ben")]
        )
        assert done == [crossing(90).crossing_id]
    RELEASE.set()


async def test_threads_are_bounded_and_leave_when_they_are_done() -> None:
    """Those that wait get their turn, in the order in which they came."""
    going, most, order = 0, 0, []
    lock = threading.Lock()

    def function(crossed: Crossing) -> None:
        nonlocal going, most
        with lock:
            going += 1
            most = max(most, going)
            order.append(crossed.percent)
        threading.Event().wait(0.01)
        with lock:
            going -= 1

    told = Recording(MemorySink(), function)
    subjects = [crossing(percent, subject=f"user={percent}") for percent in range(1, 21)]
    assert len(await told.crossed(subjects)) == 20
    assert len(await told.crossed(subjects)) == 20
    assert most <= callback.MAX_THREADS
    assert sorted(order) == sorted([*range(1, 21)] * 2)
    for thread in threading.enumerate():
        if thread.name == "auditlog.callback":
            thread.join(20)
            assert not thread.is_alive()


async def test_those_of_one_counter_are_told_one_after_the_other() -> None:
    """A spending that jumps over three thresholds is told in their order."""
    called: list[str] = []

    async def on_crossed(crossed: Crossing) -> None:
        called.append(f"{crossed.percent} begins")
        await asyncio.sleep(0)
        called.append(f"{crossed.percent} ends")

    quota = Quota("exports", limit=10, counts="reported", thresholds=(50, 80, 100))
    quotas = MemoryQuotas(MemorySink(), [quota], on_crossed=on_crossed)
    await quotas.spend("exports", 10)
    assert called == [
        f"{percent} {word}" for percent in (50, 80, 100) for word in ("begins", "ends")
    ]
    assert quotas.stats().crossings == 3


RELEASE = threading.Event()


async def hanging_coroutine(crossed: Crossing) -> None:
    if crossed.percent == 80:
        await asyncio.get_running_loop().create_future()


def hanging_function(crossed: Crossing) -> None:
    if crossed.percent == 80:
        RELEASE.wait(20)
