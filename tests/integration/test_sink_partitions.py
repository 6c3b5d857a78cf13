"""A row whose date has no partition: one is made for it, or it waits, or it is set aside."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import trail
from auditlog import AuditLog, HealthStatus, LogRecord
from auditlog.errors import PartitionError
from auditlog.query.dead_letters import find_letters
from auditlog.sink.database.copy import MAX_MADE, CopyTarget
from auditlog.sink.database.faults import Fault, bad_row, classify
from auditlog.sink.dead_letters import letter_of
from auditlog.sink.queue.batch import Batch
from auditlog.sink.replay import Outcome, fetch, letter_ids, replay
from auditlog.sink.shipping import ship
from databases import Server, as_role
from partitioned import DAY, add_partitions, partition, partitions, retired, today
from poison import batch_of, changed, good, refusal, target_of
from trail import execute, numbered, quick, rows, stored_once

MAINTAIN = "auditlog partitions maintain"


def dated(instant: datetime, user: str = "") -> LogRecord:
    return LogRecord(
        user_id=user, request_url="/", message="text", log_date=int(instant.timestamp() * 1e6)
    )


def at(row: bytes, instant: datetime) -> bytes:
    """The tuple with another log_date."""
    since_2000 = instant - datetime(2000, 1, 1, tzinfo=instant.tzinfo)
    return changed(0, row, log_date=(since_2000 // timedelta(microseconds=1)).to_bytes(8, "big"))


def on(*days: int) -> list[bytes]:
    """Tuples of the noon so many days from today."""
    noon = today() + DAY / 2
    return [at(row, noon + n * DAY) for n, row in zip(days, good(0, len(days)), strict=True)]


def names(*days: int) -> list[str]:
    return [f"logs_p{today() + n * DAY:%Y%m%d}" for n in days]


def lines(caplog: pytest.LogCaptureFixture, reason: str) -> list[str]:
    messages = [line.getMessage() for line in caplog.records if line.name == "auditlog"]
    return [message for message in messages if message.startswith(f"{reason}:")]


async def test_missing_partition_is_made_and_the_batch_repeated_at_once(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing waits, nothing is counted as a failure, and somebody is told to look after it."""
    partition(dsn)
    async with AuditLog(dsn, settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        assert await audit.flush(20)
        assert (audit.stats().written, audit.stats().retries) == (20, 0)
    assert stored_once(dsn, 20)
    assert partitions(dsn) == names(0)
    (line,) = lines(caplog, "auditlog.partition_made")
    assert MAINTAIN in line
    assert "logstore.logs" in line


async def test_each_missing_window_of_a_batch_is_made(dsn: str) -> None:
    """In the order in which the server meets them, for tables beside each other."""
    for table in ("logs", "quota_logs"):
        partition(dsn, table)
    batch = batch_of(on(0, 2, 1, 2), [], good(2, 3))
    async with target_of(dsn) as target:
        await target.write(batch)
    assert partitions(dsn) == names(0, 1, 2)
    assert len(partitions(dsn, "quota_logs")) == 1
    assert len(rows(dsn)) == 4
    assert trail.ledger_agrees(dsn)


async def test_many_missing_windows_take_several_attempts(any_dsn: str) -> None:
    """One attempt is bounded; each makes some of them, so there is an end."""
    partition(any_dsn, ahead="30 days")
    days = range(MAX_MADE + 3)
    async with AuditLog(any_dsn, settings=quick(batch_age_s=0.2)) as audit:
        for day in days:
            audit.submit(dated(today() + day * DAY + DAY / 2))
        assert await audit.flush(20)
        assert audit.stats().retries == 1
    assert partitions(any_dsn) == names(*days)
    assert len(rows(any_dsn)) == len(days)


async def test_writers_that_meet_it_at_once_store_every_row(any_dsn: str) -> None:
    """As at midnight on the first of a month that nobody has thought of."""
    partition(any_dsn)
    start = threading.Barrier(4)

    def work(number: int) -> None:
        with AuditLog(any_dsn, settings=quick()) as audit:
            start.wait(10)
            for record in numbered(range(number * 50, number * 50 + 50)):
                audit.submit(record)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert stored_once(any_dsn, 200)
    assert partitions(any_dsn) == names(0)


async def test_row_of_a_retired_or_far_date_is_set_aside_alone(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As it was recorded, with the reason; the others are stored, and nothing waits.

    So is one of a partition that was restored, though retention took what is before and after it.
    """
    partition(dsn, windows=[today(), today() - 10 * DAY])
    retired(dsn, "logs_old", today() - 2 * DAY)
    async with AuditLog(dsn, settings=quick(batch_age_s=0.2)) as audit:
        for number, day in enumerate((0, -2, 0, 400, -700, -10, 401, 1)):
            audit.submit(dated(today() + day * DAY + DAY / 2, user=str(number)))
        assert await audit.flush(20)
        stats = audit.stats()
        assert (stats.written, stats.dead_lettered, stats.dropped) == (4, 4, 0)
        assert trail.adds_up(stats)
    assert trail.users(dsn) == ["0", "2", "5", "7"]
    with psycopg.connect(dsn) as conn:
        letters = find_letters(conn, limit=9)
    assert {letter.sqlstate for letter in letters} == {"23514"}
    reasons = sorted(letter.reason.partition(":")[0] for letter in letters)
    assert reasons == [
        *["its date is too far ahead of the server's clock"] * 2,
        *["retention took the partition for its date"] * 2,
    ]
    assert "audit.reduced" not in str(trail.fetch(dsn, "SELECT metadata FROM logstore.logs"))
    (line,) = lines(caplog, "auditlog.row_rejected")
    assert "its date" in line


async def test_row_set_aside_is_stored_once_its_partition_may_be_there(any_dsn: str) -> None:
    """One that was restored is found; one whose clock was right after all is made."""
    partition(any_dsn, windows=[today()])
    old, far = on(-5, 9)
    async with target_of(any_dsn) as target:
        for row in (old, far):
            assert classify(await refusal(target, batch_of([row]))) is Fault.DATA
        await target.bury([letter_of(0, row, "23514", "r", "host:1") for row in (old, far)])
    with closing(psycopg.connect(any_dsn, autocommit=True)) as conn:
        letters = [fetch(conn, each) for each in letter_ids(conn)]
        assert _outcomes(conn, letters) == [Outcome.REFUSED] * 2
        assert trail.fetch(any_dsn, "SELECT attempts FROM logstore.dead_letters") == [1, 1]
        add_partitions(any_dsn, [today() - 5 * DAY])
        execute(any_dsn, "UPDATE logstore.partitioning SET ahead = '1 month'")
        assert _outcomes(conn, letters) == [Outcome.STORED] * 2
        assert letter_ids(conn) == []
    assert partitions(any_dsn) == names(-5, 0, 9)
    assert len(rows(any_dsn)) == 2
    assert trail.ledger_agrees(any_dsn)


def _outcomes(conn: psycopg.Connection[Any], letters: list[Any]) -> list[Outcome]:
    return [replay(conn, letter).outcome for letter in letters]


async def test_letter_stays_where_its_partition_cannot_be_had(any_server: Server) -> None:
    """The remedy says why, and nothing is changed."""
    with any_server.role() as role, any_server.database() as dsn:
        partition(dsn)
        _grant_writing(dsn, role)
        execute(dsn, f'GRANT SELECT, UPDATE, DELETE ON logstore.dead_letters TO "{role}"')
        letter = letter_of(0, good(0, 1)[0], "23514", "r", "host:1")
        async with target_of(dsn) as target:
            await target.bury([letter])
        with closing(psycopg.connect(as_role(dsn, role), autocommit=True)) as conn:
            with pytest.raises(PartitionError, match="GRANT EXECUTE ON FUNCTION"):
                replay(conn, letter)
            assert trail.fetch(dsn, "SELECT attempts FROM logstore.dead_letters") == [0]
        execute(dsn, _EXECUTE.format(role))
        with closing(psycopg.connect(as_role(dsn, role), autocommit=True)) as conn:
            assert replay(conn, letter).outcome is Outcome.STORED


_EXECUTE = 'GRANT EXECUTE ON FUNCTION logstore.ensure_partition(text, timestamptz) TO "{}"'


def _grant_writing(dsn: str, role: str) -> None:
    execute(dsn, f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
    execute(dsn, f'GRANT INSERT ON ALL TABLES IN SCHEMA logstore TO "{role}"')
    execute(dsn, f'GRANT SELECT (batch_id) ON logstore.batches TO "{role}"')


async def test_rows_wait_for_the_right_to_have_one_made(server: Server) -> None:
    """The writer's role has the rights of a writer and no more, which is what is recommended."""
    with server.role() as role, server.database() as dsn:
        partition(dsn)
        _grant_writing(dsn, role)
        async with AuditLog(as_role(dsn, role), settings=quick()) as audit:
            for record in numbered(range(20)):
                audit.submit(record)
            await trail.failing(audit, HealthStatus.FAILED)
            assert "GRANT EXECUTE ON FUNCTION logstore.ensure_partition" in audit.health().remedy
            assert MAINTAIN in audit.health().remedy
            await trail.change(dsn, _EXECUTE.format(role))
            assert await audit.flush(20)
            assert audit.health().status is HealthStatus.OK
            assert audit.stats().dropped == audit.stats().dead_lettered == 0
        assert stored_once(dsn, 20)


@pytest.mark.parametrize(
    ("breaks", "mends", "remedy"),
    [
        (
            "ALTER FUNCTION logstore.ensure_partition(text, timestamptz) RENAME TO other",
            "ALTER FUNCTION logstore.other(text, timestamptz) RENAME TO ensure_partition",
            "auditlog migrate",
        ),
        (
            "ALTER TABLE logstore.partitioning RENAME ahead TO other",
            "ALTER TABLE logstore.partitioning RENAME other TO ahead",
            MAINTAIN,
        ),
        (
            "DELETE FROM logstore.partitioning",
            "CREATE TABLE logstore.anything PARTITION OF logstore.logs DEFAULT",
            "create it",
        ),
    ],
    ids=["older schema", "a defect", "somebody else's partitions"],
)
async def test_rows_wait_whatever_is_in_the_way(
    any_dsn: str, breaks: str, mends: str, remedy: str
) -> None:
    """And go on by themselves when there is a partition, however it came to be."""
    partition(any_dsn)
    execute(any_dsn, breaks)
    async with AuditLog(any_dsn, settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        await trail.failing(audit, HealthStatus.FAILED)
        assert remedy in audit.health().remedy
        await trail.change(any_dsn, mends)
        assert await audit.flush(20)
    assert stored_once(any_dsn, 20)


async def test_rows_wait_for_the_end_of_a_detach(dsn: str) -> None:
    """It was interrupted: rows of its range are refused, and another partition cannot be made."""
    partition(dsn, windows=[today()])
    (name,) = names(0)
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn, autocommit=True) as conn:
        reader.execute("SELECT FROM logstore.logs")
        conn.execute("SET lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute(f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{name} CONCURRENTLY")
    async with AuditLog(dsn, settings=quick()) as audit:
        audit.submit(numbered([0])[0])
        await trail.failing(audit, HealthStatus.FAILED)
        assert "detach" in audit.health().remedy
        assert MAINTAIN in audit.health().remedy
        finalize = f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{name} FINALIZE"
        await trail.change(dsn, f"{finalize}; ALTER TABLE logstore.{name} RENAME TO gone")
        assert await audit.flush(20)
    assert stored_once(dsn, 1)


async def test_rows_wait_for_a_lock(any_dsn: str) -> None:
    """As of VACUUM on the table, which no writer waits for otherwise."""
    partition(any_dsn)
    async with AuditLog(any_dsn, settings=quick()) as audit:
        with psycopg.connect(any_dsn) as vacuum:
            vacuum.execute("LOCK TABLE logstore.logs IN SHARE UPDATE EXCLUSIVE MODE")
            audit.submit(numbered([0])[0])
            await trail.failing(audit, HealthStatus.FAILED)
            assert "lock" in audit.health().remedy
        assert await audit.flush(20)
    assert stored_once(any_dsn, 1)


async def test_merge_that_cannot_name_the_row_is_halved(dsn: str) -> None:
    """Of a replay some rows are there, and the server says nothing of the one that it refuses."""
    partition(dsn, windows=[today() - DAY, today()])
    # So many that they come to the index before the server has seen the last row.
    stored, unstored, old = on(*[0] * 1000), on(0, 0, 0, 0), on(-9)
    async with target_of(dsn) as target:
        await target.write(batch_of(stored))
        replayed = batch_of([*stored, *unstored, *old], replay=True)
        error = await refusal(target, replayed)
        assert (classify(error), bad_row(error)) == (Fault.DATA, None)
        assert await _refused(target, replayed) == old
    assert len(rows(dsn)) == 1004
    assert trail.ledger_agrees(dsn)


async def _refused(target: CopyTarget, batch: Batch) -> list[bytes]:
    """What is left when a batch is halved until each part is written or alone."""
    try:
        await target.write(batch)
    except psycopg.DataError:
        if batch.size == 1:
            return batch.rows[0]
        parts = batch.parts(batch.size // 2)
        return [row for part in parts for row in await _refused(target, part)]
    return []


async def test_spool_from_before_is_shipped_into_partitions(any_dsn: str, tmp_path: Path) -> None:
    """A row keeps its date: it has a partition, gets one, or is set aside."""
    settings = quick(spool_dir=str(tmp_path), durability="spool")
    away = "host=127.0.0.1 port=1 dbname=nowhere"
    async with AuditLog(away, settings=settings) as audit:
        for number, day in enumerate((-40, -3, -2, -1, 0)):
            audit.submit(dated(today() + day * DAY + DAY / 2, user=str(number)))
    partition(any_dsn, windows=[today() - 3 * DAY, today() - DAY])

    async def resolve() -> str:
        return any_dsn

    shipped = await ship(settings, resolve, patience_s=20)
    assert (shipped.rows, shipped.dead_letters, shipped.lost) == (4, 1, 0)
    assert trail.users(any_dsn) == ["1", "2", "3", "4"]
    assert partitions(any_dsn) == names(-3, -2, -1, 0)


async def test_malformed_row_is_refused_for_its_form(any_dsn: str) -> None:
    """Its date is read where it need not stand, so no partition is made for that."""
    partition(any_dsn, windows=[today() - 9 * DAY])
    row = changed(0, good(0, 1)[0], log_id=b"x" * 300)
    async with target_of(any_dsn) as target:
        error = await refusal(target, batch_of([row]))
        assert (error.sqlstate, bad_row(error)) == ("22P04", (0, 0))
    assert partitions(any_dsn) == names(-9)


def test_recording_within_a_transaction_says_what_is_missing(any_dsn: str) -> None:
    """The caller's transaction is not the place to make one; a CHECK of theirs is another thing."""
    partition(any_dsn)
    audit = AuditLog(any_dsn)
    with psycopg.connect(any_dsn) as conn, pytest.raises(psycopg.errors.CheckViolation) as caught:
        audit.record_within(conn, "user.removed")
    assert MAINTAIN in "".join(caught.value.__notes__)
    add_partitions(any_dsn, [today()])
    execute(any_dsn, "ALTER TABLE logstore.logs ADD CONSTRAINT theirs CHECK (event_type = 'x')")
    with psycopg.connect(any_dsn) as conn, pytest.raises(psycopg.errors.CheckViolation) as caught:
        audit.record_within(conn, "user.removed")
    assert "partition" not in "".join(getattr(caught.value, "__notes__", []))


async def test_runway_is_seen_after_a_commit(any_dsn: str) -> None:
    """A service tells that partitions end, days before rows have none; others have none to tell."""
    partition(any_dsn, windows=[today(), today() + DAY])
    async with AuditLog(any_dsn, settings=quick()) as audit:
        assert audit.runways() == {}
        await _commit(audit)
        assert list(audit.runways()) == ["logs"]
        assert DAY.total_seconds() <= audit.runways()["logs"] <= 2 * DAY.total_seconds()
        health = audit.health()
        assert health.status is HealthStatus.DEGRADED
        assert "logstore.logs has partitions for 1." in health.reason
        assert MAINTAIN in health.remedy
        add_partitions(any_dsn, [today() + day * DAY for day in range(9)])
        await _commit(audit)
        assert audit.runways()["logs"] <= 2 * DAY.total_seconds()
        audit._chain.target.looks_at = 0.0
        await _commit(audit)
        assert audit.runways()["logs"] > 7 * DAY.total_seconds()
        assert audit.health().status is HealthStatus.OK


async def _commit(audit: AuditLog) -> None:
    audit.submit(numbered([0])[0])
    assert await audit.flush(20)
    # The look is behind the rows, and ends before the writer is at rest.
    await trail.until(lambda: audit._chain.target.looks_at > 0)
    await asyncio.sleep(0)


async def test_runway_that_cannot_be_asked_is_unknown(
    any_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Silently, and the connection is kept."""
    execute(any_dsn, "DROP FUNCTION logstore.covered_until(text)")
    caplog.set_level(logging.DEBUG)
    async with AuditLog(any_dsn, settings=quick()) as audit:
        for _ in range(3):
            audit._chain.target.looks_at = 0.0
            await _commit(audit)
        assert (audit.runways(), audit.health().status) == ({}, HealthStatus.OK)
        assert not [line for line in caplog.records if line.name == "auditlog"]
    assert len(rows(any_dsn)) == 3


async def test_partition_is_made_through_a_pooler(
    any_dsn: str, pgbouncer: Callable[[str], str]
) -> None:
    """Nothing of it is left in the server's session, which is another client's next."""
    partition(any_dsn)
    async with AuditLog(pgbouncer(any_dsn), settings=quick()) as audit:
        for record in numbered(range(20)):
            audit.submit(record)
        assert await audit.flush(20)
        assert audit.stats().retries == 0
    assert stored_once(any_dsn, 20)
    with psycopg.connect(pgbouncer(any_dsn)) as conn:
        assert conn.execute("SHOW lock_timeout").fetchone() == ("0",)
