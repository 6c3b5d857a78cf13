"""The database goes away, hangs, refuses, or takes back its word: every row is stored once.

Each test submits numbered records through the trouble, and looks at what is there in the end.
"""

import asyncio
import os
import random
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import trail
from auditlog import AuditLog, HealthStatus, Outcome
from auditlog.postgres import embedded
from own_server import own_server
from proxies import Proxy
from trail import numbered, quick


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def server_folder() -> Iterator[Path]:
    with own_server() as folder:
        yield folder


@asynccontextmanager
async def traffic(audit: AuditLog, *, pause_s: float = 0.001) -> AsyncIterator[list[int]]:
    """Submit numbered records all the while; the list has their count in the end."""
    counts = [0]
    stopped = False

    async def submit() -> None:
        while not stopped:
            for record in numbered(range(counts[0], counts[0] + 5)):
                assert audit.submit(record) is Outcome.ACCEPTED
            counts[0] += 5
            assert trail.adds_up(audit.stats())
            await asyncio.sleep(pause_s)

    task = asyncio.create_task(submit())
    try:
        yield counts
    finally:
        stopped = True
        await task


async def test_database_that_comes_up_later(any_dsn: str) -> None:
    """Down when the application starts: requests are served, and their rows arrive later."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dsn = make_conninfo(any_dsn, host="127.0.0.1", port=port, sslmode="disable")
    async with AuditLog(dsn, settings=quick()) as audit:
        for record in numbered(range(100)):
            assert audit.submit(record) is Outcome.ACCEPTED
        await trail.failing(audit, HealthStatus.DEGRADED)
        assert audit.health().remedy
        with Proxy(any_dsn, port):
            assert await audit.flush(20)
            assert audit.health().status is HealthStatus.OK
    assert trail.stored_once(any_dsn, 100)


async def test_away_database_does_not_hold_up_the_loop(any_dsn: str) -> None:
    """Refusing, silent and cut off in turn, while the loop serves: its longest pause is short."""
    pauses = []

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0)
            pauses.append(loop.time() - before)
            await asyncio.sleep(0.001)

    settings = quick(statement_timeout_s=0.2, max_queued_rows=100_000)
    with Proxy(any_dsn) as proxy:
        async with AuditLog(proxy.dsn, settings=settings) as audit:
            ticking = asyncio.create_task(tick())
            async with traffic(audit) as counts:
                for _ in range(3):
                    await asyncio.sleep(0.1)
                    proxy.fall_silent()
                    await asyncio.sleep(0.4)
                    proxy.speak()
                    proxy.cut()
            ticking.cancel()
            assert await audit.flush(20)
        assert max(pauses) < 0.25
        assert trail.stored_once(any_dsn, counts[0])


async def test_connections_cut_at_any_moment(any_dsn: str, proxy: Proxy) -> None:
    """By something on the way, in the middle of whatever was going on."""
    settings = quick(batch_rows=20, max_queued_rows=100_000)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        async with traffic(audit) as counts:
            for _ in range(100):
                await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  # any moment will do
                proxy.cut()
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, counts[0])
    assert audit.stats().dropped == 0


@pytest.mark.slow
async def test_writer_killed_hundreds_of_times(dsn: str) -> None:
    """By `pg_terminate_backend`, at random moments of connecting, COPY and COMMIT."""
    kills = 0
    settings = quick(batch_rows=50, max_queued_rows=1_000_000, max_queued_bytes=2**30)
    admin = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'auditlog' AND datname = current_database()"
    )
    async with admin, AuditLog(dsn, settings=settings) as audit:
        async with traffic(audit) as counts, asyncio.timeout(90):
            while kills < 300:
                await asyncio.sleep(random.uniform(0, 0.012))  # noqa: S311  # likewise
                row = await (await admin.execute(query)).fetchone()
                assert row is not None
                kills += row[0]
        assert await audit.flush(30)
    assert audit.stats().retries > 100
    assert trail.stored_once(dsn, counts[0])


async def test_answers_to_commit_that_are_lost(any_dsn: str, proxy: Proxy) -> None:
    """It is committed, and nobody knows: the ledger does, so nothing is written twice."""
    async with AuditLog(proxy.dsn, settings=quick(batch_rows=10)) as audit:
        number = 0
        for round_ in range(30):
            proxy.lose_answers = 1 + round_ % 3
            for record in numbered(range(number, number + 25)):
                audit.submit(record)
            number += 25
            assert await audit.flush(20)
    assert proxy.lost >= 60
    assert audit.stats().retries >= 30
    assert audit.stats().written == number
    assert trail.stored_once(any_dsn, number)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_repetition_waits_for_a_first_attempt_that_is_still_running(
    any_dsn: str, proxy: Proxy, isolation: str
) -> None:
    """The COMMIT of the first one arrives when the second one is at the ledger already."""
    database = psycopg.conninfo.conninfo_to_dict(any_dsn)["dbname"]
    await trail.change(
        any_dsn, f"ALTER DATABASE \"{database}\" SET default_transaction_isolation = '{isolation}'"
    )
    release = proxy.holding = threading.Event()
    async with AuditLog(proxy.dsn, settings=quick()) as audit:
        for record in numbered(range(50)):
            audit.submit(record)
        try:
            await trail.until(lambda: trail.waits_for_a_lock(any_dsn))
            assert audit.stats().written == 0
        finally:
            release.set()
        assert await audit.flush(20)
    assert audit.stats().written == 50
    assert trail.stored_once(any_dsn, 50)


async def test_server_that_says_nothing_is_hung_up_on(any_dsn: str, proxy: Proxy) -> None:
    """After `statement_timeout_s`; when it speaks again, what it did meanwhile is not repeated."""
    async with AuditLog(proxy.dsn, settings=quick(statement_timeout_s=0.2)) as audit:
        audit.submit(numbered([0])[0])
        assert await audit.flush(20)
        proxy.fall_silent()
        for record in numbered(range(1, 40)):
            audit.submit(record)
        await trail.failing(audit, HealthStatus.DEGRADED)
        proxy.speak()
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 40)


async def test_table_that_is_locked_is_waited_for(any_dsn: str) -> None:
    """Longer than a statement may take: the attempts end, and the rows arrive after the lock."""
    async with AuditLog(any_dsn, settings=quick(statement_timeout_s=0.1)) as audit:
        async with await psycopg.AsyncConnection.connect(any_dsn) as other:
            await other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
            for record in numbered(range(40)):
                audit.submit(record)
            await trail.until(lambda: audit.stats().retries >= 3)
            await other.rollback()
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 40)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "crash"])
async def test_server_restarted_in_the_middle_of_traffic(
    server_folder: Path, sign: signal.Signals
) -> None:
    """Shut down or crashed, and started again, while requests go on."""
    server = await asyncio.to_thread(embedded.start, server_folder)
    await trail.change(
        server.dsn,
        "BEGIN; SET LOCAL auditlog.maintenance = on;"
        " TRUNCATE logstore.logs, logstore.batches; COMMIT",
    )
    settings = quick(batch_rows=50, max_queued_rows=1_000_000, max_queued_bytes=2**30)
    async with AuditLog(server.dsn, settings=settings) as audit:
        async with traffic(audit) as counts:
            await trail.until(lambda: audit.stats().written > 100)
            postmaster = int((server_folder / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, sign)
            await trail.failing(audit, HealthStatus.DEGRADED)
            await trail.until(lambda: not Path(f"/proc/{postmaster}").exists())
            again = await asyncio.to_thread(embedded.start, server_folder)
            assert again.dsn == server.dsn
            written = audit.stats().written
            await trail.until(lambda: audit.stats().written > written + 100)
        assert await audit.flush(30)
    assert trail.stored_once(server.dsn, counts[0])
    assert audit.stats().dropped == 0
