"""What a log writes about itself: lives and losses, in the trail they belong to."""

from collections.abc import Iterator
from typing import Any

import pytest

import trail
from auditlog import AuditLog, LogRecord
from proxies import Proxy
from trail import numbered, quick


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


def told(dsn: str) -> list[dict[str, Any]]:
    """The log's own rows, in the order in which they were made."""
    rows = [row for row in trail.rows(dsn) if str(row["event_type"]).startswith("audit.")]
    return sorted(rows, key=lambda row: row["log_id"])


async def test_life_is_framed(any_dsn: str) -> None:
    """A start before the first record, a stop with the counters after the last, of one run."""
    async with AuditLog(any_dsn, settings=quick(life_rows=True)) as audit:
        for record in numbered(range(7)):
            audit.submit(record)
    start, stop = told(any_dsn)
    assert (start["event_type"], stop["event_type"]) == ("audit.start", "audit.stop")
    assert start["metadata"]["audit.run_id"] == stop["metadata"]["audit.run_id"]
    assert stop["metadata"]["audit.submitted"] == stop["metadata"]["audit.written"] == 7
    assert audit.stats().submitted == audit.stats().written == 7
    batches = trail.batches(any_dsn)
    assert [batch["logs"] for batch in batches] == [1, 7, 1]
    assert trail.ledger_agrees(any_dsn)


async def test_nothing_to_say_without_a_record(any_dsn: str) -> None:
    """A log that wrote nothing has no life in the trail."""
    async with AuditLog(any_dsn, settings=quick(life_rows=True)):
        pass
    assert told(any_dsn) == []


async def test_each_life_has_its_own_run(any_dsn: str) -> None:
    """Closed and used again by the same process."""
    audit = AuditLog(any_dsn, settings=quick(life_rows=True))
    for _ in range(2):
        async with audit:
            audit.submit(LogRecord())
    rows = told(any_dsn)
    assert [row["event_type"] for row in rows] == ["audit.start", "audit.stop"] * 2
    assert len({row["metadata"]["audit.run_id"] for row in rows}) == 2


async def test_losses_are_told_by_tenant_and_reason(proxy: Proxy, any_dsn: str) -> None:
    """When the database is back, each tenant's in its own rows, with the times of the records."""
    proxy.fall_silent()
    async with AuditLog(proxy.dsn, settings=quick(max_queued_rows=5)) as audit:
        for number in range(12):
            audit.submit(LogRecord(instance_id=f"tenant-{number % 2}", log_date=1_000_000 + number))
        audit.lose(ValueError("of the application"))
        proxy.cut()
        proxy.speak()
        assert await audit.flush(20)
        rows = told(any_dsn)
    gaps = {
        (row["instance_id"], row["metadata"]["audit.gap.reason"]): row["metadata"] for row in rows
    }
    assert {key: gap["audit.gap.count"] for key, gap in gaps.items()} == {
        ("tenant-0", "overflow"): 3,
        ("tenant-1", "overflow"): 4,
        ("default", "capture"): 1,
    }
    first = gaps["tenant-1", "overflow"]
    assert first["audit.gap.first"] == "1970-01-01T00:00:01.000005+00:00"
    assert first["audit.gap.last"] == "1970-01-01T00:00:01.000011+00:00"
    assert audit.stats().dropped == 8


async def test_loss_that_could_not_be_told_is_told_later(proxy: Proxy, any_dsn: str) -> None:
    """The database stayed away until the end; the next life of the log says so."""
    audit = AuditLog(proxy.dsn, settings=quick(max_queued_rows=5, drain_timeout_s=0.2))
    proxy.fall_silent()
    async with audit:
        for record in numbered(range(8)):
            audit.submit(record)
    assert audit.stats().dropped_by_reason == {"overflow": 3, "shutdown": 5}
    proxy.cut()
    proxy.speak()
    async with audit:
        audit.submit(LogRecord(user_id="later"))
    assert trail.gaps(any_dsn) == {"overflow": 3, "shutdown": 5}


async def test_losses_go_to_the_spool_at_the_end(
    proxy: Proxy, any_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With the stop, for the next process that finds the folder."""
    folder = tmp_path_factory.mktemp("spool")
    settings = quick(spool_dir=str(folder), drain_timeout_s=0.2, life_rows=True)
    proxy.fall_silent()
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        audit.submit(LogRecord())
        audit.lose(ValueError("of the application"))
    async with AuditLog(any_dsn, settings=quick(spool_dir=str(folder))) as after:
        await trail.until(lambda: after.stats().recovered == audit.stats().spooled)
    types = [row["event_type"] for row in told(any_dsn)]
    assert sorted(types) == ["audit.gap", "audit.start", "audit.stop"]
    assert trail.gaps(any_dsn) == {"capture": 1}


async def test_own_row_that_is_refused_holds_up_nothing(any_dsn: str) -> None:
    """A constraint of the operator's that no event of ours passes."""
    trail.execute(
        any_dsn,
        "ALTER TABLE logstore.logs ADD CONSTRAINT c CHECK (event_type NOT LIKE 'audit.%')",
    )
    async with AuditLog(any_dsn, settings=quick(life_rows=True)) as audit:
        for record in numbered(range(5)):
            audit.submit(record)
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 5)
    assert audit.stats().dead_lettered == 0
