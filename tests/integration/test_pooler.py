"""Through pgbouncer in transaction mode, where the next transaction may meet another server."""

import asyncio
import random
from collections.abc import Callable

import pytest

import trail
from auditlog import AuditLog, ExecutionLogRecord, HealthStatus, LogRecord, QuotaLogRecord
from proxies import Proxy
from trail import numbered, quick


@pytest.fixture
def pooled_dsn(any_dsn: str, pgbouncer: Callable[[str], str]) -> str:
    return pgbouncer(any_dsn)


async def test_every_table_through_the_pooler(any_dsn: str, pooled_dsn: str) -> None:
    """One transaction for three tables and the ledger, batch after batch."""
    async with AuditLog(pooled_dsn, settings=quick()) as audit:
        for _ in range(20):
            audit.submit(LogRecord(metadata={"a": [1]}))
            audit.submit(ExecutionLogRecord("e", "t", "m"))
            audit.submit(QuotaLogRecord("q", 1, 2, 3, "o", allowed=True))
            assert await audit.flush(20)
    for table in ("logs", "execution_logs", "quota_logs"):
        assert len(trail.rows(any_dsn, table)) == 20
    assert trail.ledger_agrees(any_dsn)
    assert audit.stats().retries == 0


async def test_writers_that_share_the_pooler(any_dsn: str, pooled_dsn: str) -> None:
    """Their transactions take turns on the same servers, and never mix."""
    logs = [AuditLog(pooled_dsn, settings=quick(batch_rows=7)) for _ in range(5)]

    async def work(audit: AuditLog, start: int) -> None:
        async with audit:
            for record in numbered(range(start, start + 200)):
                audit.submit(record)
                if random.random() < 0.2:  # noqa: S311  # any order will do
                    await asyncio.sleep(0.001)

    await asyncio.gather(*(work(audit, 200 * number) for number, audit in enumerate(logs)))
    assert trail.stored_once(any_dsn, 1000)


async def test_poison_row_through_the_pooler(any_dsn: str, pooled_dsn: str) -> None:
    """The server of an aborted transaction goes back to the pool, and is clean."""
    records = numbered(range(50))
    records[20].log_id = records[30].log_id = "the same one"
    async with AuditLog(pooled_dsn, settings=quick(batch_age_s=60.0)) as audit:
        for record in records:
            audit.submit(record)
        assert await audit.flush(20)
    assert audit.stats().dead_lettered == 1
    assert len(trail.users(any_dsn)) == 49
    assert trail.ledger_agrees(any_dsn)


async def test_servers_killed_behind_the_pooler(any_dsn: str, pooled_dsn: str) -> None:
    """The pooler tells of it in its own words, and takes another server."""
    number = 0
    settings = quick(batch_rows=10, max_queued_rows=100_000)
    async with AuditLog(pooled_dsn, settings=settings) as audit:
        # Not a number of rounds: how many of the blows hit depends on the machine's mood.
        async with asyncio.timeout(60):
            while audit.stats().retries < 6 or number < 1000:
                for record in numbered(range(number, number + 20)):
                    audit.submit(record)
                number += 20
                await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311  # any moment will do
                await asyncio.to_thread(trail.terminate_writers, any_dsn)
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, number)


async def test_lost_answers_through_the_pooler(any_dsn: str, pooled_dsn: str) -> None:
    """A COMMIT whose answer never came, between the writer and the pooler."""
    number = 0
    with Proxy(pooled_dsn) as proxy:
        async with AuditLog(proxy.dsn, settings=quick()) as audit:
            for _ in range(20):
                proxy.lose_answers = 1
                for record in numbered(range(number, number + 10)):
                    audit.submit(record)
                number += 10
                assert await audit.flush(20)
    assert proxy.lost >= 20
    assert trail.stored_once(any_dsn, number)


async def test_database_unknown_to_the_pooler_is_loud(pooled_dsn: str) -> None:
    """Its message has another form than the server's."""
    dsn = pooled_dsn.replace("dbname=", "dbname=there_is_no_")
    async with AuditLog(dsn, settings=quick(drain_timeout_s=0.05)) as audit:
        audit.submit(LogRecord())
        await trail.until(lambda: audit.health().status is HealthStatus.FAILED)
        assert audit.health().remedy.startswith("the database does not exist")
