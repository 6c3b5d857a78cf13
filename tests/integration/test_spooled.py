"""Records in the spool: shipped while all is well, kept while nothing else is, stored once."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trail
from auditlog import AuditLog, HealthStatus, LogRecord, Outcome, Settings
from proxies import Proxy
from trail import numbered, quick

NOWHERE = "host=127.0.0.1 port=1 dbname=nobody connect_timeout=2"


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


def spooling(directory: Path, **changes: object) -> Settings:
    return quick(durability="spool", spool_dir=str(directory), **changes)


def submit(audit: AuditLog, numbers: range) -> None:
    assert {audit.submit(record) for record in numbered(numbers)} == {Outcome.SPOOLED}


async def recover(dsn: str, directory: Path, count: int) -> AuditLog:
    """Start another log on the same folder, and wait until it has brought so many rows home."""
    async with AuditLog(dsn, settings=spooling(directory)) as audit:
        await trail.until(lambda: audit.stats().recovered >= count)
    return audit


async def test_spooled_records_are_shipped(any_dsn: str, tmp_path: Path) -> None:
    """By the ordinary road, and nothing stays behind."""
    async with AuditLog(any_dsn, settings=spooling(tmp_path / "spool")) as audit:
        submit(audit, range(3000))
        assert trail.adds_up(audit.stats())
        assert await audit.flush(20)
        stats = audit.stats()
        assert (stats.submitted, stats.written, stats.spooled) == (3000, 3000, 0)
    assert trail.stored_once(any_dsn, 3000)
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_backlog_does_not_wait_between_its_turns(any_dsn: str, tmp_path: Path) -> None:
    """It is shipped in turns smaller than a batch; the rest of it is due all the same."""
    settings = spooling(tmp_path, batch_age_s=3600.0)
    async with AuditLog(any_dsn, settings=settings) as audit:
        submit(audit, range(1100))
        await trail.until(lambda: audit.stats().written >= 1000)
    assert trail.stored_once(any_dsn, 1100)


async def test_spool_outlives_an_outage(proxy: Proxy, any_dsn: str, tmp_path: Path) -> None:
    """More than the queue could hold, and none of it in memory."""
    settings = spooling(tmp_path, max_queued_rows=10)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        submit(audit, range(100))
        assert await audit.flush(20)
        proxy.fall_silent()
        submit(audit, range(100, 2000))
        assert audit.stats().pending == 0
        assert audit.stats().spooled == 1900
        proxy.cut()
        proxy.speak()
        assert await audit.flush(20)
    assert trail.stored_once(any_dsn, 2000)


async def test_what_is_left_at_the_end_is_recovered(any_dsn: str, tmp_path: Path) -> None:
    """The database was away until the process had to end."""
    async with AuditLog(NOWHERE, settings=spooling(tmp_path, drain_timeout_s=0.1)) as audit:
        submit(audit, range(500))
    stats = audit.stats()
    assert (stats.spooled, stats.dropped, stats.written) == (500, 0, 0)
    after = await recover(any_dsn, tmp_path, 500)
    assert (after.stats().submitted, after.stats().recovered) == (0, 500)
    assert trail.stored_once(any_dsn, 500)
    assert os.listdir(tmp_path) == []  # on a loop


@pytest.mark.parametrize("overflow", ["drop_low_priority", "drop_newest", "block"])
async def test_memory_mode_spools_what_finds_no_room(
    proxy: Proxy, any_dsn: str, tmp_path: Path, overflow: str
) -> None:
    """The queue first, the spool for the rest; nothing is dropped, and nobody is held up."""
    proxy.fall_silent()
    settings = quick(spool_dir=str(tmp_path), max_queued_rows=50, on_overflow=overflow)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        outcomes = [audit.submit(record) for record in numbered(range(300))]
        assert outcomes == [Outcome.ACCEPTED] * 50 + [Outcome.SPOOLED] * 250
        assert trail.adds_up(audit.stats())
        proxy.cut()
        proxy.speak()
        assert await audit.flush(20)
    assert audit.stats().written == 300
    assert trail.stored_once(any_dsn, 300)


async def test_memory_mode_spools_what_is_left_at_the_end(
    proxy: Proxy, any_dsn: str, tmp_path: Path
) -> None:
    """The batch under way, whose fate is not known, and the queue behind it."""
    settings = quick(
        spool_dir=str(tmp_path), batch_rows=10, drain_timeout_s=0.2, statement_timeout_s=20
    )
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        audit.submit(*numbered(range(1)))
        assert await audit.flush(20)
        proxy.take_no_more()
        proxy.lose_answers = 1
        for record in numbered(range(1, 25)):
            audit.submit(record)
        await trail.until(lambda: proxy.lost == 1)
    stats = audit.stats()
    assert (stats.spooled, stats.dropped, stats.pending) == (24, 0, 0)
    await recover(any_dsn, tmp_path, 24)
    assert trail.stored_once(any_dsn, 25)


@pytest.mark.parametrize("durability", ["memory", "spool"])
async def test_end_does_not_wait_for_a_database_that_is_away(
    any_dsn: str, tmp_path: Path, durability: str
) -> None:
    """What the spool keeps need not be drained: a deployment is not held up by an outage."""
    settings = quick(durability=durability, spool_dir=str(tmp_path), drain_timeout_s=1e6)
    async with asyncio.timeout(30), AuditLog(NOWHERE, settings=settings) as audit:
        for record in numbered(range(100)):
            audit.submit(record)
    assert (audit.stats().spooled, audit.stats().dropped) == (100, 0)
    await recover(any_dsn, tmp_path, 100)
    assert trail.stored_once(any_dsn, 100)


async def test_unknown_outcome_of_a_spooled_batch(
    proxy: Proxy, any_dsn: str, tmp_path: Path
) -> None:
    """Committed, the answer lost, the process ended: the next one finds it stored."""
    settings = spooling(tmp_path, drain_timeout_s=0.2)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        submit(audit, range(1))
        assert await audit.flush(20)
        proxy.take_no_more()
        proxy.lose_answers = 1
        submit(audit, range(1, 11))
        await trail.until(lambda: proxy.lost == 1)
    assert audit.stats().spooled == 10
    await recover(any_dsn, tmp_path, 10)
    assert trail.stored_once(any_dsn, 11)


async def test_a_log_goes_on_with_what_it_had_left_itself(any_dsn: str, tmp_path: Path) -> None:
    """Closed while the database was away, and used again by the same process."""
    away = Proxy(any_dsn)
    audit = AuditLog(away.dsn, settings=spooling(tmp_path, drain_timeout_s=0.2))
    away.fall_silent()
    async with audit:
        submit(audit, range(20))
    assert audit.stats().spooled == 20
    away.cut()
    away.speak()
    async with audit:
        submit(audit, range(20, 40))
        assert await audit.flush(20)
        await trail.until(lambda: len(trail.users(any_dsn)) == 40)
    away.refuse()
    assert trail.adds_up(audit.stats())
    assert trail.stored_once(any_dsn, 40)


async def test_no_room_in_the_spool_is_the_queues_turn(any_dsn: str, tmp_path: Path) -> None:
    """And when that is full, too, it is counted and told."""
    settings = spooling(tmp_path, spool_max_bytes=20_000, max_queued_rows=20, drain_timeout_s=0.1)
    async with AuditLog(NOWHERE, settings=settings) as audit:
        outcomes = [audit.submit(record) for record in numbered(range(1000))]
        assert set(outcomes) == {Outcome.SPOOLED, Outcome.ACCEPTED, Outcome.DROPPED}
        assert audit.health().status is not HealthStatus.OK
        assert trail.adds_up(audit.stats())
    stats = audit.stats()
    assert trail.adds_up(stats)
    assert stats.pending == 0
    await recover(any_dsn, tmp_path, stats.spooled)
    assert len(trail.users(any_dsn)) == outcomes.count(Outcome.SPOOLED)


async def test_folder_that_cannot_be_made(any_dsn: str, tmp_path: Path) -> None:
    """Requests go on as in memory mode, and health says what to do."""
    (tmp_path / "file").write_text("no folder")
    async with AuditLog(any_dsn, settings=spooling(tmp_path / "file" / "spool")) as audit:
        assert audit.submit(LogRecord(user_id="000000")) is Outcome.ACCEPTED
        assert await audit.flush(20)
        assert audit.health().status is HealthStatus.DEGRADED
        assert "spool_dir" in audit.health().remedy
    assert trail.stored_once(any_dsn, 1)


VICTIM = """
import sys, threading
from auditlog import AuditLog, Settings, LogRecord
dsn, directory, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
audit = AuditLog(dsn, settings=Settings(
    durability="spool", spool_dir=directory, batch_age_s=0.01, life_rows=False))
for number in range(count):
    audit.submit(LogRecord(user_id=f"{number:06}"))
print("submitted", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("target", ["reachable", "away"])
async def test_killed_process_loses_nothing(any_dsn: str, tmp_path: Path, target: str) -> None:
    """SIGKILL right after the last submit, whatever the writer was doing."""
    dsn = any_dsn if target == "reachable" else NOWHERE
    arguments = [sys.executable, "-c", VICTIM, dsn, str(tmp_path), "2000"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as victim:  # noqa: ASYNC220  # ours
        assert victim.stdout is not None
        await asyncio.to_thread(victim.stdout.readline)
        victim.send_signal(signal.SIGKILL)
    async with AuditLog(any_dsn, settings=spooling(tmp_path)):
        await trail.until(lambda: len(trail.users(any_dsn)) == 2000)
        await trail.until(lambda: not any(tmp_path.iterdir()))
    assert trail.stored_once(any_dsn, 2000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_child_of_a_fork_has_a_lane_of_its_own(any_dsn: str, tmp_path: Path) -> None:
    """The parent's records are shipped by the parent, and only by it."""
    program = VICTIM.replace(
        'print("submitted", flush=True)\nthreading.Event().wait()',
        "import os\npid = os.fork()\n"
        "for number in range(count, count + 100):\n"
        "    audit.submit(LogRecord(user_id=f'{number + (0 if pid else 100):06}'))\n"
        "if pid: os.waitpid(pid, 0)",
    )
    arguments = [sys.executable, "-c", program, any_dsn, str(tmp_path), "1000"]
    subprocess.run(arguments, check=True, timeout=60)  # our own program
    assert trail.stored_once(any_dsn, 1200)
    assert os.listdir(tmp_path) == []  # on a loop
