"""What `status` finds in a real database; that one table cannot be read hides no other."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from auditlog.partitions import planning
from auditlog.partitions.configuration.config import load
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.maintaining import maintain
from auditlog.partitions.planning import LOCKS, WAITS_FOR
from auditlog.partitions.retention import holding
from auditlog.partitions.session import maintenance
from auditlog.partitions.status import TableStatus, gaps, partitioned, status
from trail import execute

HOUR = timedelta(hours=1)
DOCUMENT = (Path(__file__).parents[2] / "docs" / "partitions.md").read_text()


@pytest.fixture
def all_partitioned(dsn: str) -> str:
    with maintenance(dsn) as conn:
        for table in ("logs", "execution_logs", "quota_logs"):
            enable(conn, table, "month")
    return dsn


def status_of(dsn: str, table: str = "logs", host_now: datetime | None = None) -> TableStatus:
    return next(each for each in status(dsn, load(), host_now=host_now) if each.table == table)


def test_a_table_is_well_after_it_was_enabled(all_partitioned: str) -> None:
    """It is covered for three months, and nobody is needed."""
    for found in status(all_partitioned, load()):
        assert found.state is not None
        assert (found.needs_somebody, found.is_runway_short) == (False, False), found.findings
        assert timedelta(days=80) < found.runway < timedelta(days=125)
        assert gaps(found.state) == found.orphans == found.pending == []
        assert 0 < found.state.locks_needed < found.state.locks_available
        assert found.state.maintained_at is None
    before = datetime.now(UTC)
    assert not any(report.error for report in maintain(all_partitioned, load()))
    ran = status_of(all_partitioned)
    assert ran.state is not None
    assert ran.state.maintained_at is not None
    assert ran.state.maintained_at >= before - HOUR


def test_which_tables_are_partitioned(any_dsn: str) -> None:
    """In the order of the trail; no other partitioned table of the schema."""
    with maintenance(any_dsn) as conn:
        assert partitioned(conn) == []
        enable(conn, "quota_logs", "day")
        enable(conn, "logs", "month")
        conn.execute("CREATE TABLE logstore.other (day date) PARTITION BY RANGE (day)")
        assert partitioned(conn) == ["logs", "quota_logs"]


def test_a_table_that_is_gone_hides_no_other(any_dsn: str) -> None:
    """It says what is wrong with it, and needs somebody."""
    with maintenance(any_dsn) as conn:
        enable(conn, "logs", "month")
    execute(any_dsn, "DROP TABLE logstore.execution_logs CASCADE")
    found = {each.table: each for each in status(any_dsn, load())}
    assert found["execution_logs"].error
    assert found["execution_logs"].needs_somebody
    assert not found["logs"].needs_somebody


def test_a_detach_that_was_broken_off_is_pending_and_then_an_orphan(dsn: str) -> None:
    """Between its two commits the rows are out of sight; afterwards the table is there still."""
    with maintenance(dsn) as conn:
        enable(conn, "logs", "month")
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn, autocommit=True) as conn:
        reader.execute("SELECT count(*) FROM logstore.logs")
        conn.execute("SET statement_timeout = '50ms'")
        with pytest.raises(errors.QueryCanceled):
            conn.execute(
                "ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_legacy CONCURRENTLY"
            )
        assert [leaf.name for leaf in status_of(dsn).pending] == ["logs_legacy"]
        assert status_of(dsn).covered_until is None
        assert status_of(dsn).needs_somebody
    execute(dsn, "ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_legacy FINALIZE")
    assert [each.partition for each in status_of(dsn).orphans] == ["logs_legacy"]


def test_a_clock_that_differs_needs_somebody(any_dsn: str) -> None:
    """This machine's, by more than an hour; nothing would be retired."""
    with maintenance(any_dsn) as conn:
        enable(conn, "logs", "month")
    now = datetime.now(UTC)
    assert not status_of(any_dsn, host_now=now + HOUR / 2).needs_somebody
    off = status_of(any_dsn, host_now=now + 24 * HOUR)
    assert off.needs_somebody
    assert "clock" in {finding.code for finding in off.findings}


def test_holds_are_part_of_it(any_dsn: str) -> None:
    """Those of the table and of all; not those of another, nor those that were released."""
    with maintenance(any_dsn) as conn:
        enable(conn, "logs", "month")
        kept = [holding.place(conn, reason="all"), holding.place(conn, table="logs", reason="it")]
        holding.place(conn, table="quota_logs", reason="another")
        gone = holding.place(conn, reason="over")
        holding.release(conn, gone.hold_id, reason="settled")
    state = status_of(any_dsn).state
    assert state is not None
    assert {hold.hold_id for hold in state.holds} == {hold.hold_id for hold in kept}


def test_looking_locks_nobody_out(any_dsn: str) -> None:
    """While somebody has the tables for himself, one can look: that is when it is asked for."""
    with maintenance(any_dsn) as conn:
        enable(conn, "logs", "month")
    with psycopg.connect(any_dsn) as conn:
        conn.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
        found = status_of(any_dsn)
    assert (found.error, found.needs_somebody) == (None, False)


def test_the_document_has_the_lock_of_each_step() -> None:
    """As `plan` prints it."""
    rows = re.findall(r"^\| ([a-z]+) \| (.*?) \| (.*?) \|$", DOCUMENT, re.MULTILINE)
    told = {kind: (lock, waits) for kind, lock, waits in rows if kind in LOCKS}
    assert told == {kind: (LOCKS[kind], WAITS_FOR[kind]) for kind in LOCKS}


def test_every_finding_is_documented() -> None:
    """Whoever sees a code finds it in the document."""
    folder = Path(planning.__file__).parent
    sources = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    codes = set(re.findall(r'Finding\(\s*"([a-z_]+)"', sources))
    assert len(codes) > 10, "the pattern finds nothing any more"
    listed = set(re.findall(r"`([a-z_]+)`", DOCUMENT.partition("## What is found")[2]))
    assert codes - listed == set()
