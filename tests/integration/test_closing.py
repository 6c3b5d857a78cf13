"""The end of an `AuditLog`: drained in time, or counted; once, twice, or in the middle of work."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

import trail
from auditlog import AuditLog, LogRecord, Outcome
from proxies import Proxy
from trail import numbered, quick

NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"


def submit(audit: AuditLog, numbers: range) -> None:
    for record in numbered(numbers):
        assert audit.submit(record) is Outcome.ACCEPTED


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


async def test_close_is_safe_at_any_time(any_dsn: str) -> None:
    """Before the start, twice, and many at once."""
    audit = AuditLog(any_dsn, settings=quick(batch_age_s=60.0))
    await audit.aclose()
    await audit.aclose()
    await audit.start()
    submit(audit, range(10))
    await asyncio.gather(*(audit.aclose() for _ in range(5)))
    assert trail.stored_once(any_dsn, 10)
    await asyncio.to_thread(audit.close)
    assert audit.stats().dropped == 0


async def test_starts_may_be_nested(any_dsn: str) -> None:
    """Two lifespans share a log: the one that ends first does not close it for the other."""
    audit = AuditLog(any_dsn, settings=quick(batch_age_s=60.0))
    async with audit:
        async with audit:
            submit(audit, range(5))
        assert trail.users(any_dsn) == []
        submit(audit, range(5, 10))
    assert trail.stored_once(any_dsn, 10)


async def test_record_after_the_close_starts_the_writer_anew(any_dsn: str) -> None:
    """A background task that outlives the lifespan still has its row."""
    audit = AuditLog(any_dsn, settings=quick())
    async with audit:
        submit(audit, range(5))
    submit(audit, range(5, 10))
    await trail.until(lambda: audit.stats().written == 10)
    await audit.aclose()
    assert trail.stored_once(any_dsn, 10)


async def test_drain_gives_up_when_time_is_up(caplog: pytest.LogCaptureFixture) -> None:
    """With the database away; what is left is counted, and one line says how much."""
    audit = AuditLog(NOWHERE, settings=quick(drain_timeout_s=0.2))
    started = time.monotonic()
    async with audit:
        submit(audit, range(30))
        await trail.until(lambda: audit.stats().retries > 0)
    assert 0.2 <= time.monotonic() - started < 3
    stats = audit.stats()
    assert (stats.pending, stats.dropped_by_reason) == (0, {"shutdown": 30})
    assert trail.adds_up(stats)
    lines = [line for line in caplog.messages if "shutdown_lost" in line]
    assert lines == [
        "auditlog.shutdown_lost: 30 rows could not be written: drain_timeout_s was over"
    ]


@pytest.mark.parametrize("silence", ["in mid-statement", "while connecting"])
async def test_drain_of_a_silent_database_ends_in_time(
    any_dsn: str, proxy: Proxy, silence: str
) -> None:
    """A little over `drain_timeout_s`, though a statement and a connection may take longer."""
    audit = AuditLog(proxy.dsn, settings=quick(drain_timeout_s=0.3, batch_age_s=60.0))
    await audit.start()
    if silence == "in mid-statement":
        submit(audit, range(1))
        assert await audit.flush(20)
    proxy.fall_silent()
    submit(audit, range(1, 10))
    started = time.monotonic()
    await audit.aclose()
    assert time.monotonic() - started < 2.5
    assert audit.stats().dropped_by_reason == {"shutdown": 9}


async def test_drain_succeeds_when_the_database_is_back(any_dsn: str) -> None:
    """The writer was in the middle of a long wait: the close does not let it sleep on."""
    proxy = Proxy(any_dsn)
    settings = quick(retry_min_s=100.0, retry_max_s=100.0, batch_age_s=0.001)
    with proxy:
        audit = AuditLog(proxy.dsn, settings=settings)
        async with audit:
            submit(audit, range(1))
            assert await audit.flush(20)
            proxy.cut()
            submit(audit, range(1, 10))
            await trail.until(lambda: audit.stats().retries > 0)
    assert trail.stored_once(any_dsn, 10)


async def test_thread_that_submits_during_the_close_loses_nothing(any_dsn: str) -> None:
    """A record that was accepted is stored, or counted as lost when there was no time."""
    settings = quick(max_queued_rows=10**6, max_queued_bytes=2**30)
    for round_ in range(10):
        audit = AuditLog(any_dsn, settings=settings)
        stopped = threading.Event()

        def work(audit: AuditLog = audit, stopped: threading.Event = stopped) -> None:
            while not stopped.is_set():
                audit.submit(LogRecord(resource_owner="org"))

        async with audit:
            threads = [asyncio.create_task(asyncio.to_thread(work)) for _ in range(2)]
            await asyncio.sleep(0.01 * (round_ % 3))
            closing = asyncio.create_task(audit.aclose())
            await asyncio.sleep(0.02)
            stopped.set()
            await asyncio.gather(closing, *threads)
        await asyncio.to_thread(audit.close)
        stats = audit.stats()
        assert trail.adds_up(stats)
        assert (stats.pending, stats.dropped) == (0, 0)
    count = trail.fetch(any_dsn, "SELECT count(*) FROM logstore.logs")
    assert count[0] > 0
    assert trail.ledger_agrees(any_dsn)


@pytest.mark.parametrize("blocking", [False, True])
async def test_record_that_comes_when_the_writer_has_just_ended(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    """A thread was faster than the close: what was accepted is stored all the same."""
    audit = AuditLog(any_dsn, settings=quick(batch_age_s=60.0))
    real, late = audit._writer.run, iter(numbered(range(10, 12)))

    async def run() -> None:
        await real()
        if record := next(late, None):
            assert audit.submit(record) is Outcome.ACCEPTED

    monkeypatch.setattr(audit._writer, "run", run)
    if blocking:
        await asyncio.to_thread(submit, audit, range(10))
        await asyncio.to_thread(audit.close)
    else:
        submit(audit, range(10))
        await audit.aclose()
    assert audit.stats().dropped == 0
    assert trail.stored_once(any_dsn, 12)


@pytest.mark.parametrize("reachable", [True, False])
def test_closed_log_is_freed(any_dsn: str, reachable: bool) -> None:
    """Neither the registry for the exit nor a thread keeps it, drained or given up."""
    dsn = any_dsn if reachable else NOWHERE
    audit = AuditLog(dsn, settings=quick(drain_timeout_s=5.0 if reachable else 0.05))
    submit(audit, range(1))
    audit.close()
    reference = weakref.ref(audit)
    del audit
    trail.join_writers()
    gc.collect()
    assert reference() is None
