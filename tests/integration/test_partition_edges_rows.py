"""Rows on the edges of partitions: of their ranges, of time itself, of their being attached."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import psycopg

import trail
from auditlog import AuditLog, LogRecord
from auditlog.partitions.windows import name, window
from auditlog.sink.database.faults import Fault, bad_row, classify, sqlstate_of
from partitioned import DAY, add_partitions, partition, partitions, today
from poison import batch_of, changed, good, refusal, target_of
from trail import execute, fetch, quick, rows

TICK = timedelta(microseconds=1)
SINCE = datetime(2000, 1, 1, tzinfo=UTC)
THIS_MONTH, NEXT_MONTH = window("month", datetime.now(UTC))
GATE = 4711
"""Advisory lock that a COPY waits for, at its first row."""


def in_microseconds(instant: datetime) -> bytes:
    return ((instant - SINCE) // TICK).to_bytes(8, "big", signed=True)


def dated(row: bytes, instant: datetime) -> bytes:
    """The tuple with another log_date."""
    return changed(0, row, log_date=in_microseconds(instant))


def rows_by_partition(dsn: str) -> dict[str, int]:
    query = (
        "SELECT tableoid::regclass::text || ' ' || count(*) FROM logstore.logs GROUP BY tableoid"
    )
    told: Iterable[str] = fetch(dsn, query)
    counts = dict(line.rsplit(" ", 1) for line in told)
    return {leaf.rpartition(".")[2]: int(count) for leaf, count in counts.items()}


async def test_copy_that_began_before_its_partition_is_repeated(dsn: str) -> None:
    """PostgreSQL shows it to the next statement only; no row waits, and none is set aside."""
    partition(dsn, windows=[today()])
    execute(
        dsn,
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS"
        f" 'BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW; END';"
        " CREATE TRIGGER wait BEFORE INSERT ON logstore.logs FOR EACH ROW"
        " WHEN (NEW.user_id = 'first') EXECUTE FUNCTION public.wait()",
    )
    with psycopg.connect(dsn, autocommit=True) as gate:
        gate.execute("SELECT pg_advisory_lock(%s)", [GATE])
        async with AuditLog(dsn, settings=quick(batch_age_s=0.1)) as audit:
            for user, instant in (("first", today() + DAY / 2), ("second", today() + 3 * DAY / 2)):
                at_us = int(instant.timestamp() * 1e6)
                audit.submit(LogRecord(user_id=user, request_url="/", log_date=at_us))
            await asyncio.to_thread(until_somebody_waits, gate)
            add_partitions(dsn, [today() + DAY])
            gate.execute("SELECT pg_advisory_unlock_all()")
            assert await audit.flush(20)
            stats = audit.stats()
        assert (stats.written, stats.retries, stats.dead_lettered, stats.dropped) == (2, 0, 0, 0)
    assert trail.users(dsn) == ["first", "second"]
    assert len(partitions(dsn)) == 2
    assert trail.ledger_agrees(dsn)


def until_somebody_waits(conn: psycopg.Connection) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while conn.execute(query).fetchone() == (0,):
        conn.execute("SELECT pg_sleep(0.005)")


async def test_rows_around_the_end_of_a_month_and_their_replay(dsn: str) -> None:
    """Each is in the partition of its own date to the microsecond, and a retry finds it there."""
    partition(dsn, step="month", ahead="2 months", windows=[THIS_MONTH, NEXT_MONTH])
    instants = [THIS_MONTH, NEXT_MONTH - TICK, NEXT_MONTH, NEXT_MONTH + TICK]
    sent = [dated(row, at) for row, at in zip(good(0, 4), instants, strict=True)]
    async with target_of(dsn) as target:
        await target.write(batch_of(sent))
        expected = {name("logs", "month", THIS_MONTH): 2, name("logs", "month", NEXT_MONTH): 2}
        assert rows_by_partition(dsn) == expected
        # The answer was lost, and the month has ended when it is sent again.
        await target.write(batch_of(sent, replay=True))
        assert rows_by_partition(dsn) == expected
        unsent = dated(good(0, 1)[0], NEXT_MONTH - TICK)
        await target.write(batch_of([*sent, unsent], replay=True))
    assert len(rows(dsn)) == 5
    assert trail.ledger_agrees(dsn)


async def test_identity_is_stored_once_in_a_partition(dsn: str) -> None:
    """With another date it is another row, refused as that; in another partition it is taken."""
    partition(dsn, step="month", ahead="2 months", windows=[THIS_MONTH, NEXT_MONTH])
    (row,) = good(0, 1)
    async with target_of(dsn) as target:
        for replay, instant in ((False, THIS_MONTH), (True, THIS_MONTH), (False, NEXT_MONTH)):
            await target.write(batch_of([dated(row, instant)], replay=replay))
        for replay in (False, True):
            other = batch_of([dated(row, THIS_MONTH + DAY)], replay=replay)
            error = await refusal(target, other)
            assert (classify(error), sqlstate_of(error)) == (Fault.DATA, "23505")
    assert rows_by_partition(dsn) == {
        name("logs", "month", THIS_MONTH): 1,
        name("logs", "month", NEXT_MONTH): 1,
    }


ENDS_OF_TIME = {
    "infinity": b"\x7f" + b"\xff" * 7,
    "-infinity": b"\x80" + b"\0" * 7,
    "294276 AD": (9_223_371_331_199_999_999).to_bytes(8, "big"),
    "4714 BC": (-211_813_488_000_000_000).to_bytes(8, "big", signed=True),
    "10000 AD": in_microseconds(datetime(9999, 12, 31, tzinfo=UTC) + timedelta(hours=23)),
}


async def test_rows_of_the_ends_of_time_are_set_aside_alone(dsn: str) -> None:
    """No partition is made for one; a legacy partition, which has no beginning, takes the first."""
    partition(dsn, windows=[today()])
    usual = [dated(row, today()) for row in good(0, 3)]
    strange = [
        changed(0, row, log_date=date)
        for row, date in zip(good(0, 5), ENDS_OF_TIME.values(), strict=True)
    ]
    async with target_of(dsn) as target:
        for row in strange:
            error = await refusal(target, batch_of([*usual, row]))
            assert (classify(error), bad_row(error)) == (Fault.DATA, (0, len(usual)))
    assert partitions(dsn) == [name("logs", "day", today())]
    execute(
        dsn,
        "SELECT logstore.make_partition('logstore.logs', 'logs_legacy', '-infinity',"
        f" '{(today() - 9 * DAY).isoformat()}')",
    )
    async with target_of(dsn) as target:
        for date, row in zip(ENDS_OF_TIME, strange, strict=True):
            if date in ("-infinity", "4714 BC"):
                await target.write(batch_of([row]))
    assert rows_by_partition(dsn)["logs_legacy"] == 2
