"""The sink on a real PostgreSQL: what is submitted is what is stored, once, with its ledger row."""

import asyncio
import datetime as dt
import hashlib
import os
import random
import tracemalloc
import uuid
from typing import Any

import psycopg
import pytest
from psycopg import sql

import trail
from auditlog import (
    AuditLog,
    ExecutionLogRecord,
    HealthStatus,
    LogLevel,
    LogRecord,
    Outcome,
    Protocol,
    QuotaLogRecord,
)
from auditlog.sink.encoding.storable import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US
from auditlog.tables import BATCHES, TABLES, Table
from trail import numbered, quick

NOON = dt.datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=dt.UTC)


async def store(dsn: str, *records: Any, **changes: Any) -> AuditLog:
    """Submit records to a log of their own, and close it."""
    async with AuditLog(dsn, settings=quick(**changes)) as audit:
        for record in records:
            assert audit.submit(record) is Outcome.ACCEPTED
    stats = audit.stats()
    assert trail.adds_up(stats)
    assert stats.pending == 0
    return audit


async def test_every_column_of_logs_comes_back(dsn: str) -> None:
    """Each value of a record with everything, as PostgreSQL reads it."""
    record = LogRecord(
        occurrence_date=NOON,
        protocol=Protocol.GRAPHQL,
        request_url="/orders/42?page=é😀",
        request_method="POST",
        request_headers={"accept": ["a", "b"], "x": [""]},
        response_status=-1,
        response_time_ms=2**31 - 1,
        user_id="user\u2028",
        resource_owner="org",
        aggregate_type="order",
        aggregate_id="42",
        event_type="order.cancelled",
        event_sequence=-(2**63),
        log_level=LogLevel.DEBUG,
        message="a\r\n\tb\x1b[31m\\N",
        metadata={"n": 1.5, "big": 2**64 - 1, "list": [None, True], "o": {"é": "\uffff"}},
        instance_id="tenant",
        log_id=str(uuid.UUID(int=7)),
        log_date=NOON + dt.timedelta(seconds=1),
    )
    await store(dsn, record)
    (row,) = trail.rows(dsn)
    expected = {name: getattr(record, name) for name in row}
    assert row == expected | {"response_status": -1}


async def test_every_column_of_execution_logs_comes_back(dsn: str) -> None:
    """With and without what may be missing."""
    full = ExecutionLogRecord(
        "execution",
        "target",
        "message",
        LogLevel.ERROR,
        "Traceback\n  File",
        {"code": 7},
        "tenant",
        str(uuid.UUID(int=1)),
        NOON,
    )
    bare = ExecutionLogRecord("e", "t", "", log_id=str(uuid.UUID(int=2)), log_date=NOON)
    await store(dsn, full, bare)
    second, first = trail.rows(dsn, "execution_logs")
    assert first == {name: getattr(full, name) for name in first}
    expected = {name: getattr(bare, name) for name in second}
    assert second == expected | {"instance_id": "default"}


async def test_every_column_of_quota_logs_comes_back(dsn: str) -> None:
    """With and without what may be missing."""
    full = QuotaLogRecord(
        "quota",
        2**63 - 1,
        -(2**63),
        0,
        "org",
        False,
        "user",
        "action",
        True,
        "tenant",
        str(uuid.UUID(int=1)),
        NOON,
    )
    bare = QuotaLogRecord("q", 1, 2, 3, "o", True, log_id=str(uuid.UUID(int=2)), log_date=NOON)
    await store(dsn, full, bare)
    second, first = trail.rows(dsn, "quota_logs")
    assert first == {name: getattr(full, name) for name in first}
    expected = {name: getattr(bare, name) for name in second}
    assert second == expected | {"instance_id": "default"}


async def test_empty_record_is_a_row_of_nulls(dsn: str) -> None:
    """Nothing that was not said is stored as if it had been."""
    await store(dsn, LogRecord())
    (row,) = trail.rows(dsn)
    said = {name for name, value in row.items() if value is not None}
    assert said == {
        "instance_id",
        "log_id",
        "log_date",
        "occurrence_date",
        "protocol",
        "log_level",
    }


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (MIN_TIMESTAMP_US, "4714-11-24 00:00:00 BC"),
        (MAX_TIMESTAMP_US, "294276-12-31 23:59:59.999999"),
        (0, "1970-01-01 00:00:00"),
        (-1, "1969-12-31 23:59:59.999999"),
    ],
)
async def test_extreme_instants_are_stored(dsn: str, microseconds: int, text: str) -> None:
    """The first and the last instant of timestamptz, and those around the epoch, to the µs."""
    await store(dsn, LogRecord(log_date=microseconds, occurrence_date=microseconds))
    query = "SELECT (log_date AT TIME ZONE 'UTC')::text FROM logstore.logs"
    assert trail.fetch(dsn, query) == [text]
    assert trail.ledger_agrees(dsn)


async def test_three_tables_are_one_transaction(any_dsn: str) -> None:
    """With one ledger row that counts them and knows their bytes."""
    instants = [NOON + dt.timedelta(seconds=second) for second in (5, 1, 3)]
    records = [
        LogRecord(log_date=instants[0]),
        ExecutionLogRecord("e", "t", "m", log_date=instants[1]),
        QuotaLogRecord("q", 1, 2, 3, "o", True, log_date=instants[2]),
        LogRecord(log_date=instants[2]),
    ]
    audit = await store(any_dsn, *records, batch_age_s=60.0)
    (batch,) = trail.batches(any_dsn)
    transactions = [
        value
        for table in (*TABLES, BATCHES)
        for value in trail.fetch(any_dsn, f"SELECT xmin::text FROM {table.qualified_name}")  # noqa: S608  # our own name
    ]
    assert len(set(transactions)) == 1
    assert (batch["logs"], batch["execution_logs"], batch["quota_logs"]) == (2, 1, 1)
    assert (batch["first_log_date"], batch["last_log_date"]) == (min(instants), max(instants))
    assert batch["writer"].endswith(f":{os.getpid()}")
    assert len(batch["sha256"]) == hashlib.sha256().digest_size
    assert audit.stats().batches == 1


async def test_instants_before_2000_are_in_order_in_the_ledger(any_dsn: str) -> None:
    """PostgreSQL's count is negative there."""
    years = [1999, 2001, 1970, 2000]
    records = [LogRecord(log_date=dt.datetime(year, 1, 1, tzinfo=dt.UTC)) for year in years]
    await store(any_dsn, *records, batch_age_s=60.0)
    (batch,) = trail.batches(any_dsn)
    assert batch["first_log_date"].astimezone(dt.UTC).year == 1970
    assert batch["last_log_date"].astimezone(dt.UTC).year == 2001


async def test_ledger_hashes_what_was_shipped(any_dsn: str) -> None:
    """The same rows have the same hash, others another, so a copy can be checked."""
    record = LogRecord(log_date=NOON, occurrence_date=NOON, log_id=str(uuid.UUID(int=1)))
    for tenant in ("a", "b"):
        record.instance_id = tenant
        await store(any_dsn, record)
    first, second = trail.batches(any_dsn)
    assert first["sha256"] != second["sha256"]
    assert first["bytes"] == second["bytes"]


@pytest.mark.parametrize(
    ("changes", "batches"),
    [({"batch_rows": 100}, 10), ({"batch_rows": 1}, 1000), ({"batch_bytes": 10_000}, 15)],
)
async def test_batches_are_as_large_as_set(
    any_dsn: str, changes: dict[str, Any], batches: int
) -> None:
    """By rows and by bytes, however many wait."""
    audit = await store(any_dsn, *numbered(range(1000)), batch_age_s=60.0, **changes)
    assert trail.users(any_dsn) == [f"{number:06}" for number in range(1000)]
    assert abs(audit.stats().batches - batches) <= batches // 4
    assert trail.ledger_agrees(any_dsn)


async def test_flush_returns_when_rows_can_be_read(any_dsn: str) -> None:
    """By another connection, at once."""
    async with AuditLog(any_dsn, settings=quick(batch_age_s=60.0)) as audit:
        for number in range(0, 3000, 500):
            for record in numbered(range(number, number + 500)):
                audit.submit(record)
            assert await audit.flush(20)
            assert len(trail.users(any_dsn)) == number + 500


async def test_poison_rows_cost_only_themselves(
    any_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A CHECK of the user's own and a repeated identity, in the middle of a batch."""
    trail.execute(
        any_dsn,
        "ALTER TABLE logstore.logs ADD CONSTRAINT no_marker CHECK (user_id <> 'marker-of-a-row')",
    )
    records = numbered(range(200))
    records[17].user_id = records[99].user_id = "marker-of-a-row"
    records[120].log_id = records[121].log_id = str(uuid.UUID(int=1))
    records[122].log_id = str(uuid.UUID(int=1))
    async with AuditLog(any_dsn, settings=quick(batch_age_s=60.0)) as audit:
        for record in records:
            audit.submit(record)
        assert await audit.flush(20)
        assert audit.health().status is HealthStatus.OK
    stats = audit.stats()
    assert (stats.written, stats.dead_lettered, stats.dropped) == (196, 4, 0)
    assert len(trail.users(any_dsn)) == 196
    assert trail.ledger_agrees(any_dsn)
    assert trail.fetch(any_dsn, "SELECT count(*) FROM logstore.dead_letters") == [4]
    assert "marker" not in caplog.text


async def test_identity_that_is_stored_already_is_refused(any_dsn: str) -> None:
    """By the primary key, whoever stored it; the same in another tenant is another row."""
    record = LogRecord(log_id=str(uuid.UUID(int=1)), instance_id="a")
    await store(any_dsn, record)
    async with AuditLog(any_dsn, settings=quick()) as audit:
        audit.submit(record)
        record.instance_id = "b"
        audit.submit(record)
    assert (audit.stats().written, audit.stats().dead_lettered) == (1, 1)
    assert [row["instance_id"] for row in trail.rows(any_dsn)] == ["a", "b"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
async def test_widest_identifiers_fit_every_index(dsn: str, table: Table) -> None:
    """Random, so that no compression helps, of the most bytes that their columns take."""
    kind = {
        "logs": LogRecord,
        "execution_logs": ExecutionLogRecord,
        "quota_logs": QuotaLogRecord,
    }[table.name]
    texts = {column.name: column.max_bytes for column in table.columns if column.max_bytes}
    records = []
    for seed in range(20):
        noise = random.Random(seed)  # noqa: S311  # the same each time
        values: dict[str, Any] = {
            name: "".join(chr(noise.randrange(33, 127)) for _ in range(length + 10))
            for name, length in texts.items()
        }
        values |= {"log_level": 3} if "log_level" in table.column_names else {"allowed": False}
        values |= dict.fromkeys(("previous_usage", "current_usage", "quota_limit"), 1)
        known = {name: value for name, value in values.items() if name in table.column_names}
        del known["log_id"]
        records.append(kind(**known))
    await store(dsn, *records, max_row_bytes=1_048_576)
    with psycopg.connect(dsn) as conn:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("logstore", table.name))
        assert conn.execute(query).fetchone() == (20,)


async def test_overflow_is_counted_and_told_once(
    any_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was accepted is stored; what was dropped was said to be dropped."""
    async with AuditLog(any_dsn, settings=quick(max_queued_rows=50, batch_age_s=60.0)) as audit:
        outcomes = [audit.submit(record) for record in numbered(range(80))]
        assert outcomes == [Outcome.ACCEPTED] * 50 + [Outcome.DROPPED] * 30
        assert await audit.flush(20)
        assert audit.submit(LogRecord(user_id="later")) is Outcome.ACCEPTED
    assert len(trail.users(any_dsn)) == 51
    assert audit.stats().dropped_by_reason == trail.gaps(any_dsn) == {"overflow": 30}
    assert caplog.text.count("auditlog.queue_full") == 1


async def test_important_records_outlive_the_others(any_dsn: str) -> None:
    """The record that was evicted is lost, the one that took its place is not."""
    async with AuditLog(any_dsn, settings=quick(max_queued_rows=3, batch_age_s=60.0)) as audit:
        for number in range(3):
            audit.submit(LogRecord(user_id=f"served-{number}", low_priority=True))
        assert audit.submit(LogRecord(user_id="denied")) is Outcome.ACCEPTED
        assert audit.submit(LogRecord(user_id="x", low_priority=True)) is Outcome.DROPPED
    assert trail.users(any_dsn) == ["denied", "served-1", "served-2"]


async def test_counters_add_up_all_the_while(any_dsn: str) -> None:
    """Threads submit, the writer writes, a small queue overflows: every snapshot is right."""

    def submit(worker: int) -> None:
        for number in range(1500):
            audit.submit(LogRecord(user_id=f"{worker}-{number}", low_priority=number % 2 == 0))

    settings = quick(max_queued_rows=300, batch_rows=100)
    async with AuditLog(any_dsn, settings=settings) as audit:
        work = [asyncio.create_task(asyncio.to_thread(submit, worker)) for worker in range(3)]
        while not all(task.done() for task in work):
            assert trail.adds_up(audit.stats())
            await asyncio.sleep(0)
        assert await audit.flush(20)
    stats = audit.stats()
    assert stats.submitted == 4500
    assert stats.written + stats.dropped == 4500
    assert len(trail.users(any_dsn)) == stats.written
    assert trail.gaps(any_dsn) == stats.dropped_by_reason
    assert trail.ledger_agrees(any_dsn)


async def test_memory_does_not_grow_with_what_was_written(any_dsn: str) -> None:
    """After a hundred thousand records there is no more than after ten thousand."""
    record = LogRecord(request_url="/", metadata={"http.route": "/orders/{id}"})

    async def submit(count: int) -> int:
        for number in range(count // 1000):
            for _ in range(1000):
                record.instance_id = f"tenant-{number % 7}"
                record.user_id = str(number)
                audit.submit(record)
            assert await audit.flush(20)
        return tracemalloc.get_traced_memory()[0]

    async with AuditLog(any_dsn, settings=quick()) as audit:
        tracemalloc.start()
        try:
            before = await submit(10_000)
            after = await submit(100_000)
        finally:
            tracemalloc.stop()
    assert audit.stats().written == 110_000
    assert after - before < 200_000
