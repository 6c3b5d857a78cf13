"""`AuditLog` through its life: loops, threads, forks, exits; every row stored once, or counted."""

import asyncio
import gc
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import uvloop

import trail
from auditlog import AuditLog, HealthStatus, LogRecord, Outcome, SettingsError
from auditlog.settings import Settings
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


async def test_writer_starts_with_the_first_record(any_dsn: str) -> None:
    """On the loop that serves; nobody has to call `start`."""
    audit = AuditLog(any_dsn, settings=quick())
    submit(audit, range(10))
    assert audit._runner is not None
    assert audit._runner.loop is asyncio.get_running_loop()
    assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 10)
    await audit.aclose()


def test_code_without_a_loop_gets_a_thread(any_dsn: str) -> None:
    """A script or a threaded server; `with` drains at its end."""
    with AuditLog(any_dsn, settings=quick(batch_age_s=60.0)) as audit:
        submit(audit, range(10))
    assert trail.stored_once(any_dsn, 10)
    assert audit._runner is None
    trail.join_writers()


async def test_threads_and_loops_submit_to_one_log(any_dsn: str) -> None:
    """From the writer's loop, from other loops in other threads, and from plain threads."""

    async def on_another_loop(start: int) -> None:
        for number in range(start, start + 100):
            submit(audit, range(number, number + 1))
            await asyncio.sleep(0)

    def in_a_thread(start: int) -> None:
        if start % 200:
            asyncio.run(on_another_loop(start))
        else:
            submit(audit, range(start, start + 100))

    async with AuditLog(any_dsn, settings=quick()) as audit:
        work = [asyncio.to_thread(in_a_thread, start) for start in range(0, 800, 100)]
        await asyncio.gather(*work, on_another_loop(800))
        assert await audit.flush(20)
        assert trail.stored_once(any_dsn, 900)


async def test_flush_from_another_loop_and_thread(any_dsn: str) -> None:
    """It waits there for what happens here."""

    async def elsewhere() -> bool:
        return await audit.flush(20)

    async with AuditLog(any_dsn, settings=quick(batch_age_s=60.0)) as audit:
        submit(audit, range(10))
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert trail.stored_once(any_dsn, 10)


async def test_flush_says_when_time_is_up(any_dsn: str, proxy: Proxy) -> None:
    """False as long as something is not stored, True when it is."""
    settings = quick(statement_timeout_s=0.2, connect_timeout_s=2.0)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        submit(audit, range(1))
        assert await audit.flush(20)
        proxy.fall_silent()
        submit(audit, range(1, 10))
        assert not await audit.flush(0.1)
        assert not await audit.flush(0)
        proxy.speak()
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 10)


async def test_flush_before_anything(any_dsn: str) -> None:
    """There is nothing to wait for, so nothing is started."""
    audit = AuditLog(any_dsn, settings=quick())
    assert await audit.flush()
    assert audit._runner is None


async def test_two_logs_in_one_process(any_server: Any) -> None:
    """Each to its own database, on one loop and in a thread."""
    with any_server.database() as first, any_server.database() as second:
        threaded = AuditLog(second, settings=quick())
        with threaded:
            async with AuditLog(first, settings=quick()) as audit:
                for number in range(50):
                    submit(audit, range(number, number + 1))
                    submit(threaded, range(number, number + 1))
            await asyncio.to_thread(threaded.close)
        assert trail.stored_once(first, 50)
        assert trail.stored_once(second, 50)


def test_rows_left_by_one_loop_are_shipped_by_the_next(any_dsn: str) -> None:
    """`asyncio.run` several times in one process, as in tests and in scripts."""
    audit = AuditLog(any_dsn, settings=quick(batch_age_s=60.0))

    async def work(numbers: range) -> None:
        submit(audit, numbers)
        await asyncio.sleep(0)

    for start in range(0, 50, 10):
        asyncio.run(work(range(start, start + 10)))
    assert audit.stats().pending == 50
    asyncio.run(audit.aclose())
    assert trail.stored_once(any_dsn, 50)


def test_task_cancelled_in_mid_copy_is_continued(any_dsn: str) -> None:
    """By the next loop, under the same identity: nothing is lost, nothing is doubled."""
    audit = AuditLog(any_dsn, settings=quick())
    with psycopg.connect(any_dsn) as other:
        other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")

        async def begin() -> None:
            submit(audit, range(10))
            await trail.until(lambda: trail.waits_for_a_lock(any_dsn))

        asyncio.run(begin())
    assert audit.stats().in_flight == 10
    asyncio.run(audit.aclose())
    assert trail.stored_once(any_dsn, 10)
    assert audit.stats().written == 10


def test_loop_closed_in_mid_copy_is_continued(any_dsn: str) -> None:
    """Without a word to its tasks: the connection of the dead loop is not used again."""
    audit = AuditLog(any_dsn, settings=quick(statement_timeout_s=5.0))
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending!"
    with psycopg.connect(any_dsn) as other:
        other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")

        async def begin() -> None:
            submit(audit, range(10))
            await trail.until(lambda: trail.waits_for_a_lock(any_dsn))

        loop.run_until_complete(begin())
        loop.close()
    asyncio.run(audit.aclose())
    gc.collect()
    assert trail.stored_once(any_dsn, 10)
    assert audit.stats().written == 10


def test_loop_that_nobody_runs_is_not_waited_for(any_dsn: str) -> None:
    """`run_until_complete` has returned, the loop is neither closed nor running."""
    audit = AuditLog(any_dsn, settings=quick(batch_age_s=60.0))
    loop = asyncio.new_event_loop()

    async def work() -> None:
        submit(audit, range(10))
        await asyncio.sleep(0)

    loop.run_until_complete(work())
    audit.close()
    assert trail.stored_once(any_dsn, 10)
    # When it is run again, it finds that another one has taken over.
    loop.run_until_complete(asyncio.sleep(0.01))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert audit.stats().written == 10


def test_uvloop(any_dsn: str) -> None:
    """The loop that uvicorn takes when it is installed."""

    async def main() -> None:
        async with AuditLog(any_dsn, settings=quick(statement_timeout_s=0.3)) as audit:
            submit(audit, range(100))
            await asyncio.to_thread(submit, audit, range(100, 200))
            assert await audit.flush(20)
            trail.terminate_writers(any_dsn)
            submit(audit, range(200, 300))
            assert await audit.flush(20)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert trail.stored_once(any_dsn, 300)


def test_signal_handler_may_submit_at_any_moment(any_dsn: str) -> None:
    """Also while its own thread is in the middle of `submit`, or of starting the writer."""
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        assert audit.submit(LogRecord(user_id=f"{handled:06}")) is Outcome.ACCEPTED

    settings = quick(max_queued_rows=10**6, max_queued_bytes=2**30)
    audit = AuditLog(any_dsn, settings=settings)
    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0005)
    submitted = 0
    try:
        while handled < 200:
            assert audit.submit(LogRecord()) is Outcome.ACCEPTED
            submitted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    audit.close()
    assert audit.stats().written == submitted + handled
    query = "SELECT user_id FROM logstore.logs WHERE user_id IS NOT NULL ORDER BY user_id"
    assert trail.fetch(any_dsn, query) == [f"{number:06}" for number in range(1, handled + 1)]
    assert trail.ledger_agrees(any_dsn)


async def test_no_thread_to_be_had(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At a limit of the system: the rows wait, and leave when they can."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    audit = AuditLog(any_dsn, settings=quick())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            pool.submit(submit, audit, range(10)).result()
    assert audit.stats().pending == 10
    assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 10)
    await audit.aclose()


def test_log_without_a_database_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when the first row is lost."""
    monkeypatch.delenv("AUDITLOG_DSN", raising=False)
    with pytest.raises(SettingsError, match="AUDITLOG_DSN"):
        AuditLog()
    monkeypatch.setenv("AUDITLOG_DSN", NOWHERE)
    assert AuditLog().settings.dsn == NOWHERE
    assert AuditLog("host=other", settings=Settings()).settings.dsn == "host=other"


def test_log_that_was_never_used_is_healthy_and_empty() -> None:
    """Making one connects to nothing."""
    audit = AuditLog(NOWHERE, settings=quick())
    assert audit.health().status is HealthStatus.OK
    assert audit.stats().submitted == 0
    assert "nowhere" not in repr(audit)
    audit.close()
