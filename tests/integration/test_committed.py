"""`durability="commit"` at the log itself: rows of a ticket are in the table when it says so."""

import asyncio
from collections.abc import Iterator

import pytest

import trail
from auditlog import AuditLog, LogRecord, Outcome
from auditlog.ticket import Ticket
from proxies import Proxy
from trail import numbered, quick

NOWHERE = "host=127.0.0.1 port=1 dbname=nobody connect_timeout=2"


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


async def commit(audit: AuditLog, *records: LogRecord) -> bool:
    ticket = Ticket()
    for record in records:
        audit.submit(record, ticket)
    return await audit.durable(ticket)


async def test_committed_means_that_it_can_be_read(any_dsn: str) -> None:
    """However long a batch may otherwise wait."""
    settings = quick(durability="commit", batch_age_s=60.0, commit_timeout_s=20.0)
    async with AuditLog(any_dsn, settings=settings) as audit:
        for number in range(5):
            assert await commit(audit, *numbered(range(number, number + 1)))
            assert len(trail.users(any_dsn)) == number + 1


async def test_start_waits_for_the_database(proxy: Proxy, any_dsn: str) -> None:
    """So that the first request is not refused while a connection is made; but not for ever."""
    proxy.fall_silent()
    settings = quick(durability="commit", life_rows=True, connect_timeout_s=20.0)
    audit = AuditLog(proxy.dsn, settings=settings)
    starting = asyncio.create_task(audit.start())
    await asyncio.sleep(0.05)
    assert not starting.done()
    proxy.speak()
    async with asyncio.timeout(20):
        await starting
    query = "SELECT event_type FROM logstore.logs"
    assert trail.fetch(any_dsn, query) == ["audit.start"]
    await audit.aclose()
    impatient = quick(
        durability="commit", life_rows=True, connect_timeout_s=0.05, drain_timeout_s=0.05
    )
    async with asyncio.timeout(20), AuditLog(NOWHERE, settings=impatient):
        pass


async def test_rows_that_come_together_share_a_commit(any_dsn: str) -> None:
    """A hundred requests at once are a few transactions and not a hundred."""
    settings = quick(durability="commit", batch_age_s=60.0, commit_timeout_s=20.0)
    async with AuditLog(any_dsn, settings=settings) as audit:
        assert await commit(audit, LogRecord(user_id="first"))
        before = audit.stats().batches
        records = numbered(range(100))
        assert all(await asyncio.gather(*(commit(audit, record) for record in records)))
        assert audit.stats().batches - before <= 5
    assert len(trail.users(any_dsn)) == 101


def test_a_thread_waits_as_well(any_dsn: str) -> None:
    """Under a writer of its own thread, as a threaded server has it."""
    settings = quick(durability="commit", batch_age_s=60.0, commit_timeout_s=20.0)
    with AuditLog(any_dsn, settings=settings) as audit:
        ticket = Ticket()
        audit.submit(LogRecord(user_id="000000"), ticket)
        assert audit.durable_in_thread(ticket)
        assert trail.stored_once(any_dsn, 1)


async def test_too_late_is_a_refusal_and_the_row_is_stored_all_the_same(
    proxy: Proxy, any_dsn: str
) -> None:
    """It was refused, not forgotten; and the next ones are refused without a wait."""
    settings = quick(durability="commit", commit_timeout_s=0.05)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        proxy.fall_silent()
        assert not await commit(audit, *numbered(range(1)))
        ticket = Ticket()
        audit.submit(*numbered(range(1, 2)), ticket)
        waiting = audit.durable(ticket)
        with pytest.raises(StopIteration) as answer:  # it does not wait for anything
            waiting.send(None)
        assert answer.value.value is False
        assert audit.stats().refused == 2
        proxy.cut()
        proxy.speak()
        assert await audit.flush(20)
        assert await commit(audit, *numbered(range(2, 3)))
        assert audit.stats().refused == 2
    assert trail.stored_once(any_dsn, 3)


async def test_a_row_that_is_lost_refuses_its_own_request_only(any_dsn: str) -> None:
    """The database is well: one client's record must not close the service to the others."""
    trail.execute(
        any_dsn,
        "ALTER TABLE logstore.logs ADD CONSTRAINT refused CHECK (user_id <> '000001');"
        "DROP TABLE logstore.dead_letters",
    )
    settings = quick(durability="commit", batch_age_s=60.0, commit_timeout_s=20.0)
    async with AuditLog(any_dsn, settings=settings) as audit:
        answers = [await commit(audit, record) for record in numbered(range(3))]
        assert answers == [True, False, True]
        assert (audit.stats().refused, audit.stats().dropped_by_reason) == (1, {"rejected": 1})


async def test_a_row_that_is_dropped_is_not_durable(any_dsn: str) -> None:
    """Evicted by an important one, refused by a full queue, or no record at all."""
    settings = quick(durability="commit", max_queued_rows=1, drain_timeout_s=0.05)
    async with AuditLog(NOWHERE, settings=settings) as audit:
        evicted, kept, refused, nonsense = Ticket(), Ticket(), Ticket(), Ticket()
        assert audit.submit(LogRecord(low_priority=True), evicted) is Outcome.ACCEPTED
        assert audit.submit(LogRecord(), kept) is Outcome.ACCEPTED
        assert audit.submit(LogRecord(), refused) is Outcome.DROPPED
        assert audit.submit("no record", nonsense) is Outcome.DROPPED  # type: ignore[arg-type]
        for ticket in (evicted, refused, nonsense):
            assert not ticket.wait(0)
            assert await asyncio.wait_for(ticket.awaited(60), 10) is False
    assert not kept.wait(0)


async def test_poison_among_the_committed(any_dsn: str) -> None:
    """The others are committed; the refused row is kept, which is durable too."""
    trail.execute(
        any_dsn, "ALTER TABLE logstore.logs ADD CONSTRAINT refused CHECK (user_id <> '000001')"
    )
    settings = quick(durability="commit", batch_age_s=60.0, commit_timeout_s=20.0)
    async with AuditLog(any_dsn, settings=settings) as audit:
        records = numbered(range(3))
        assert all(await asyncio.gather(*(commit(audit, record) for record in records)))
        assert audit.stats().dead_lettered == 1
    assert trail.users(any_dsn) == ["000000", "000002"]
    assert trail.fetch(any_dsn, "SELECT count(*) FROM logstore.dead_letters") == [1]


async def test_block_waits_for_room(proxy: Proxy, any_dsn: str) -> None:
    """Those before the handler wait on the loop; nothing is lost when the database is back."""
    settings = quick(on_overflow="block", max_queued_rows=10, block_timeout_s=20.0)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        proxy.fall_silent()
        for record in numbered(range(10)):
            await audit.room()
            assert audit.submit(record) is Outcome.ACCEPTED
        waiting = asyncio.create_task(audit.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        proxy.cut()
        proxy.speak()
        async with asyncio.timeout(20):
            await waiting
        assert audit.submit(*numbered(range(10, 11))) is Outcome.ACCEPTED
    assert trail.stored_once(any_dsn, 11)


async def test_block_in_a_thread_and_on_a_loop(proxy: Proxy, any_dsn: str) -> None:
    """A thread is held up in `submit`; an event loop never, whose writer would be held up too."""
    settings = quick(on_overflow="block", max_queued_rows=5, block_timeout_s=20.0)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        proxy.fall_silent()
        outcomes = [audit.submit(record) for record in numbered(range(6))]
        assert outcomes == [Outcome.ACCEPTED] * 5 + [Outcome.DROPPED]
        thread = asyncio.create_task(asyncio.to_thread(audit.submit, *numbered(range(5, 6))))
        proxy.cut()
        proxy.speak()
        async with asyncio.timeout(20):
            assert await thread is Outcome.ACCEPTED
    assert trail.stored_once(any_dsn, 6)
    assert trail.gaps(any_dsn) == {"overflow": 1}


async def test_block_does_not_wait_for_ever() -> None:
    """Then the newest is dropped."""
    settings = quick(
        on_overflow="block", max_queued_rows=1, block_timeout_s=0.01, drain_timeout_s=0.05
    )
    async with AuditLog(NOWHERE, settings=settings) as audit:
        audit.submit(LogRecord())
        await audit.room()
        assert await asyncio.to_thread(audit.submit, LogRecord()) is Outcome.DROPPED
