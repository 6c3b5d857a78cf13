"""The database goes away, hangs, refuses, or takes back its word: every row is stored once.

Each test submits numbered records through the trouble, and looks at what is there in the end.
"""

import asyncio
import logging
import os
import random
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import trail
from auditlog import AuditLog, HealthStatus, LogRecord, Outcome
from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate
from databases import Server, as_role
from proxies import Proxy
from trail import numbered, quick

MARKER = "marker-of-a-row"


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def own_server() -> Iterator[Path]:
    """The folder of a server that the tests here may stop, crash and configure."""
    with tempfile.TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "data")
        with embedded.start(path) as server:
            migrate(server.dsn)
            yield path


def expected(count: int) -> list[str]:
    return [f"{number:06}" for number in range(count)]


def is_stored_once(dsn: str, count: int) -> bool:
    """All the numbers, each once, and a ledger that says the same."""
    return trail.users(dsn) == expected(count) and trail.ledger_agrees(dsn)


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


async def execute(dsn: str, statement: str) -> None:
    """Beside the loop: a writer in mid-transaction holds locks, and has to be able to go on."""
    await asyncio.to_thread(trail.execute, dsn, statement)


async def healthy(audit: AuditLog) -> None:
    await trail.until(lambda: audit.health().status is HealthStatus.OK)


async def failing(audit: AuditLog, status: HealthStatus) -> None:
    await trail.until(lambda: audit.health().status is status)


async def test_database_that_comes_up_later(any_dsn: str) -> None:
    """Down when the application starts: requests are served, and their rows arrive later."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    dsn = make_conninfo(any_dsn, host="127.0.0.1", port=port, sslmode="disable")
    async with AuditLog(dsn, settings=quick()) as audit:
        for record in numbered(range(100)):
            assert audit.submit(record) is Outcome.ACCEPTED
        await failing(audit, HealthStatus.DEGRADED)
        assert audit.health().remedy
        with Proxy(any_dsn, port):
            assert await audit.flush(20)
            assert audit.health().status is HealthStatus.OK
    assert is_stored_once(any_dsn, 100)


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
        assert is_stored_once(any_dsn, counts[0])


async def test_connections_cut_at_any_moment(any_dsn: str, proxy: Proxy) -> None:
    """By something on the way, in the middle of whatever was going on."""
    settings = quick(batch_rows=20, max_queued_rows=100_000)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        async with traffic(audit) as counts:
            for _ in range(100):
                await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  # any moment will do
                proxy.cut()
        assert await audit.flush(20)
    assert is_stored_once(any_dsn, counts[0])
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
    assert is_stored_once(dsn, counts[0])


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
    assert is_stored_once(any_dsn, number)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_repetition_waits_for_a_first_attempt_that_is_still_running(
    any_dsn: str, proxy: Proxy, isolation: str
) -> None:
    """The COMMIT of the first one arrives when the second one is at the ledger already."""
    database = psycopg.conninfo.conninfo_to_dict(any_dsn)["dbname"]
    await execute(
        any_dsn, f"ALTER DATABASE \"{database}\" SET default_transaction_isolation = '{isolation}'"
    )
    release = proxy.holding = threading.Event()
    async with AuditLog(proxy.dsn, settings=quick()) as audit:
        for record in numbered(range(50)):
            audit.submit(record)
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'auditlog' AND wait_event_type = 'Lock'"
        )
        try:
            await trail.until(lambda: trail.fetch(any_dsn, waiting) == [1])
            assert audit.stats().written == 0
        finally:
            release.set()
        assert await audit.flush(20)
    assert audit.stats().written == 50
    assert is_stored_once(any_dsn, 50)


async def test_server_that_says_nothing_is_hung_up_on(any_dsn: str, proxy: Proxy) -> None:
    """After `statement_timeout_s`; when it speaks again, what it did meanwhile is not repeated."""
    async with AuditLog(proxy.dsn, settings=quick(statement_timeout_s=0.2)) as audit:
        audit.submit(numbered([0])[0])
        assert await audit.flush(20)
        proxy.fall_silent()
        for record in numbered(range(1, 40)):
            audit.submit(record)
        await failing(audit, HealthStatus.DEGRADED)
        proxy.speak()
        assert await audit.flush(20)
    assert is_stored_once(any_dsn, 40)


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
    assert is_stored_once(any_dsn, 40)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "crash"])
async def test_server_restarted_in_the_middle_of_traffic(
    own_server: Path, sign: signal.Signals
) -> None:
    """Shut down or crashed, and started again, while requests go on."""
    server = await asyncio.to_thread(embedded.start, own_server)
    await execute(
        server.dsn,
        "BEGIN; SET LOCAL auditlog.maintenance = on;"
        " TRUNCATE logstore.logs, logstore.batches; COMMIT",
    )
    settings = quick(batch_rows=50, max_queued_rows=1_000_000, max_queued_bytes=2**30)
    async with AuditLog(server.dsn, settings=settings) as audit:
        async with traffic(audit) as counts:
            await trail.until(lambda: audit.stats().written > 100)
            postmaster = int((own_server / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, sign)
            await failing(audit, HealthStatus.DEGRADED)
            await trail.until(lambda: not Path(f"/proc/{postmaster}").exists())
            again = await asyncio.to_thread(embedded.start, own_server)
            assert again.dsn == server.dsn
            written = audit.stats().written
            await trail.until(lambda: audit.stats().written > written + 100)
        assert await audit.flush(30)
    assert is_stored_once(server.dsn, counts[0])
    assert audit.stats().dropped == 0


async def test_missing_schema_is_loud_and_mended_by_migrating(
    empty_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows wait; the health and the log line say which command to run."""
    async with AuditLog(empty_dsn, settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        await failing(audit, HealthStatus.FAILED)
        assert "auditlog migrate" in audit.health().remedy
        await asyncio.to_thread(migrate, empty_dsn)
        assert await audit.flush(20)
        assert audit.health().status is HealthStatus.OK
    assert is_stored_once(empty_dsn, 20)
    lines = [record for record in caplog.records if record.name == "auditlog"]
    assert [record.levelname for record in lines] == ["ERROR"]
    assert "auditlog migrate" in lines[0].getMessage()


async def test_missing_rights_are_loud_and_mended_by_granting(any_server: Server) -> None:
    """A role that may connect, and no more."""
    with any_server.role() as role, any_server.database() as dsn:
        async with AuditLog(as_role(dsn, role), settings=quick()) as audit:
            audit.submit(numbered([0])[0])
            await failing(audit, HealthStatus.FAILED)
            assert "42501" in audit.health().reason
            assert "auditlog doctor" in audit.health().remedy
            await execute(
                dsn,
                f'GRANT USAGE ON SCHEMA logstore TO "{role}";'
                f' GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO "{role}";'
                f' GRANT SELECT (batch_id) ON logstore.batches TO "{role}"',
            )
            assert await audit.flush(20)
        assert is_stored_once(dsn, 1)


async def test_read_only_server_is_waited_for(any_dsn: str) -> None:
    """As after a failover, until the next connection reaches a primary."""
    database = psycopg.conninfo.conninfo_to_dict(any_dsn)["dbname"]
    await execute(any_dsn, f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    async with AuditLog(any_dsn, settings=quick()) as audit:
        audit.submit(numbered([0])[0])
        await failing(audit, HealthStatus.DEGRADED)
        assert "primary" in audit.health().remedy
        await execute(
            make_conninfo(any_dsn, options="-c default_transaction_read_only=off"),
            f'ALTER DATABASE "{database}" RESET default_transaction_read_only',
        )
        assert await audit.flush(20)
    assert is_stored_once(any_dsn, 1)


async def test_wrong_password_is_loud_and_mended_by_the_right_one(own_server: Path) -> None:
    """As after a rotation: the health says what was refused, not what was tried."""
    server = await asyncio.to_thread(embedded.start, own_server)
    access = own_server / "pg_hba.conf"
    before = access.read_text()
    access.write_text("local all locked scram-sha-256\n" + before)
    await execute(server.dsn, "CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'first'")
    await execute(server.dsn, "SELECT pg_reload_conf()")
    try:
        dsn = make_conninfo(server.dsn, user="locked", password="second")
        async with AuditLog(dsn, settings=quick()) as audit:
            audit.submit(LogRecord(user_id="with the right password"))
            await failing(audit, HealthStatus.FAILED)
            health = audit.health()
            assert "password" in health.remedy
            assert "second" not in f"{health}"
            await execute(server.dsn, "ALTER ROLE locked PASSWORD 'second'")
            assert await audit.flush(20)
        assert "with the right password" in trail.users(server.dsn)
    finally:
        access.write_text(before)
        await execute(server.dsn, "DROP ROLE locked")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"dbname": "there_is_none"}, "the database does not exist"),
        ({"user": "there_is_none"}, "check user, password"),
    ],
)
async def test_wrong_name_is_loud(any_dsn: str, changes: dict[str, str], remedy: str) -> None:
    """Nothing to wait for: somebody has to correct it."""
    async with AuditLog(
        make_conninfo(any_dsn, **changes), settings=quick(drain_timeout_s=0.05)
    ) as audit:
        audit.submit(LogRecord())
        await failing(audit, HealthStatus.FAILED)
        assert audit.health().remedy.startswith(remedy)


@pytest.mark.parametrize("dsn", ["hunter2", "postgresql://127.0.0.1:hun/ter2@host/db"])
async def test_dsn_that_is_none_is_loud(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """And is not repeated, since a badly written one may have the password anywhere."""
    async with AuditLog(dsn, settings=quick(drain_timeout_s=0.05)) as audit:
        audit.submit(LogRecord())
        await failing(audit, HealthStatus.FAILED)
        assert audit.health().remedy.startswith("the DSN is not a connection string")
    told = f"{caplog.text} {audit!r} {audit.health()}"
    assert "hun" not in told
    assert "ter2" not in told


@pytest.mark.parametrize(
    ("harm", "mend"),
    [
        (
            "ALTER TABLE logstore.logs ADD COLUMN extra integer NOT NULL DEFAULT 0;"
            " ALTER TABLE logstore.logs ALTER COLUMN extra DROP DEFAULT",
            "ALTER TABLE logstore.logs DROP COLUMN extra",
        ),
        (
            "ALTER TABLE logstore.logs ALTER COLUMN response_status TYPE smallint",
            "ALTER TABLE logstore.logs ALTER COLUMN response_status TYPE integer",
        ),
        (
            "ALTER TABLE logstore.logs DROP COLUMN message",
            "ALTER TABLE logstore.logs ADD COLUMN message text",
        ),
        (
            "ALTER TABLE logstore.batches ALTER COLUMN sequence RESTART WITH 1",
            "SELECT setval(pg_get_serial_sequence('logstore.batches', 'sequence'), 100)",
        ),
    ],
    ids=["extra NOT NULL column", "other type", "column gone", "sequence not carried over"],
)
async def test_schema_that_refuses_every_row_loses_none(any_dsn: str, harm: str, mend: str) -> None:
    """It is no row's fault: nothing is split and given up, and all arrive when it is mended."""
    async with AuditLog(any_dsn, settings=quick()) as audit:
        audit.submit(numbered([0])[0])
        assert await audit.flush(20)
        await execute(any_dsn, harm)
        for record in numbered(range(1, 30)):
            record.response_status = 200
            audit.submit(record)
        await failing(audit, HealthStatus.FAILED)
        assert audit.health().remedy
        await execute(any_dsn, mend)
        assert await audit.flush(20)
    assert audit.stats().dropped == 0
    assert is_stored_once(any_dsn, 30)


async def test_missing_partition_loses_no_row(empty_dsn: str) -> None:
    """The rows of a day for which nobody made a partition wait until somebody does."""
    await asyncio.to_thread(migrate, empty_dsn)
    await execute(
        empty_dsn,
        "ALTER TABLE logstore.logs RENAME TO plain;"
        " CREATE TABLE logstore.logs (LIKE logstore.plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        " PARTITION BY RANGE (log_date)",
    )
    async with AuditLog(empty_dsn, settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        await failing(audit, HealthStatus.FAILED)
        assert "partition" in audit.health().remedy
        await execute(empty_dsn, "CREATE TABLE logstore.today PARTITION OF logstore.logs DEFAULT")
        assert await audit.flush(20)
    assert audit.stats().dropped == 0
    assert is_stored_once(empty_dsn, 20)


def marked(**changes: Any) -> LogRecord:
    """A record with the marker in every field that may hold a text."""
    texts = dict.fromkeys(
        ("user_id", "resource_owner", "aggregate_type", "aggregate_id", "event_type", "message"),
        MARKER,
    )
    everywhere: dict[str, Any] = texts | {
        "request_url": f"/{MARKER}",
        "request_method": MARKER,
        "request_headers": {"x": [MARKER]},
        "metadata": {MARKER: MARKER},
        "instance_id": MARKER,
    }
    return LogRecord(**(everywhere | changes))


async def test_no_log_line_has_content_of_a_row(
    any_dsn: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Through every kind of failure, at the lowest level, from every logger there is."""
    caplog.set_level(logging.DEBUG)
    settings = quick(statement_timeout_s=0.2, connect_timeout_s=2.0, max_queued_rows=30)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        audit.submit(marked())
        assert await audit.flush(20)
        audit.submit(marked(log_id=MARKER))
        audit.submit(marked(log_id=MARKER))
        assert await audit.flush(20)
        proxy.lose_answers = 2
        audit.submit(marked(metadata={"x": object(), MARKER: float("nan")}))
        assert await audit.flush(20)
        await execute(any_dsn, "ALTER TABLE logstore.logs RENAME TO hidden")
        audit.submit(marked())
        await failing(audit, HealthStatus.FAILED)
        await execute(any_dsn, "ALTER TABLE logstore.hidden RENAME TO logs")
        assert await audit.flush(20)
        await execute(
            any_dsn, f"ALTER TABLE logstore.logs ADD CHECK (message <> '{MARKER}') NOT VALID"
        )
        audit.submit(marked())
        assert await audit.flush(20)
        proxy.fall_silent()
        for _ in range(40):
            audit.submit(marked(message=None))
        audit.submit({"x": MARKER})  # type: ignore[arg-type]
        audit.lose(ValueError(MARKER))
        await failing(audit, HealthStatus.DEGRADED)
        proxy.speak()
        assert await audit.flush(20)
        trail.terminate_writers(any_dsn)
        audit.submit(marked(message=None))
        assert await audit.flush(20)
    stats = audit.stats()
    assert {"overflow", "rejected", "unencodable", "capture"} == set(stats.dropped_by_reason)
    own = [record for record in caplog.records if record.name == "auditlog"]
    reasons = [record.getMessage().partition(":")[0] for record in own]
    assert len(reasons) == len(set(reasons))
    assert {"auditlog.write_failed", "auditlog.row_rejected", "auditlog.queue_full"} <= set(reasons)
    for record in caplog.records:
        assert MARKER not in f"{record.getMessage()} {record.args} {record.exc_info}"
