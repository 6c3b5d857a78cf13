"""What retention took is explained by its entry, as far as the entry goes, and nothing else is."""

import json
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from auditlog import AuditLog, LogRecord
from auditlog.cli.app import app
from auditlog.query.reconcile import reconcile
from auditlog.query.reconciliation import Reconciliation
from auditlog.query.verdicts import conclusion, is_well, verdicts
from databases import Server, as_role
from partitioned import DAY, partition, partitions, retired, today
from trail import execute, quick

FIRST, SECOND, THIRD = (today() + n * DAY for n in (-3, -2, -1))
NOON = DAY / 2


@pytest.fixture
def trail_dsn(any_dsn: str) -> str:
    """A trail of three days."""
    return three_days(any_dsn)


def three_days(dsn: str) -> str:
    """A partition each: five rows, ten rows, fifteen rows, a batch for each day."""
    partition(dsn, windows=[FIRST, SECOND, THIRD])
    for day, count in ((FIRST, 5), (SECOND, 10), (THIRD, 15)):
        store(dsn, *(day + NOON + second * timedelta(seconds=1) for second in range(count)))
    return dsn


def store(dsn: str, *instants: datetime, tenant: str = "default") -> None:
    """One batch."""
    with AuditLog(dsn, settings=quick(batch_age_s=0.2, instance_id=tenant)) as audit:
        for instant in instants:
            audit.submit(LogRecord(log_date=round(instant.timestamp() * 1e6)))


def look(dsn: str, **asked: Any) -> Reconciliation:
    with psycopg.connect(dsn) as conn:
        return reconcile(conn, **asked)


def figures(found: Reconciliation) -> tuple[int, int, int]:
    """Of `logs`: retired at most, missing, unexplained."""
    table = found.tables[0]
    return table.retired_at_most, table.missing, table.unexplained


def name(day: datetime) -> str:
    return f"logs_p{day:%Y%m%d}"


def drop(dsn: str, day: datetime) -> None:
    execute(dsn, f"DROP TABLE logstore.{name(day)}")


def test_partition_that_was_dropped_by_hand_is_missing(trail_dsn: str) -> None:
    """In the place where its rows were."""
    drop(trail_dsn, SECOND)
    found = look(trail_dsn)
    assert figures(found) == (0, 10, 0)
    (place,) = (span for span in found.tables[0].spans if span.missing)
    assert (place.start or "").startswith(f"{SECOND:%Y-%m-%d} 12:00")
    assert not is_well(found)


def test_partition_that_retention_dropped_is_explained(trail_dsn: str) -> None:
    """The figure is shown, and nothing is the matter."""
    drop(trail_dsn, SECOND)
    retired(trail_dsn, name(SECOND), SECOND, rows=10)
    found = look(trail_dsn)
    assert figures(found) == (10, 0, 0)
    assert is_well(found, strict=True)
    assert "20 in the table, 10 retired, 30 by the ledger" in verdicts(found)[0].detail
    assert "is there or was retired (10)" in conclusion(found)


@pytest.mark.parametrize(("claimed", "missing", "unexplained"), [(7, 3, 0), (0, 10, 0), (12, 0, 2)])
def test_entry_explains_as_many_rows_as_it_says(
    trail_dsn: str, claimed: int, missing: int, unexplained: int
) -> None:
    """What is gone beyond that is missing; what is claimed beyond the ledger, nobody wrote."""
    drop(trail_dsn, SECOND)
    retired(trail_dsn, name(SECOND), SECOND, rows=claimed)
    assert figures(look(trail_dsn)) == (claimed, missing, unexplained)


def test_entry_explains_nothing_of_another_time(trail_dsn: str) -> None:
    """As many rows as it says are gone, elsewhere."""
    retired(trail_dsn, name(SECOND), SECOND - 30 * DAY, rows=10)
    drop(trail_dsn, SECOND)
    assert figures(look(trail_dsn)) == (10, 10, 10)


def test_batch_across_two_partitions_is_told_apart_from_what_is_gone(any_dsn: str) -> None:
    """Its rows of the one day were retired, and those of the other are there."""
    partition(any_dsn, windows=[FIRST, SECOND, THIRD])
    store(any_dsn, FIRST + NOON, SECOND - timedelta(seconds=1), SECOND, SECOND + NOON)
    store(any_dsn, THIRD + NOON)
    drop(any_dsn, FIRST)
    retired(any_dsn, name(FIRST), FIRST, rows=2)
    assert figures(look(any_dsn)) == (2, 0, 0)
    with psycopg.connect(any_dsn) as conn:
        conn.execute("SET LOCAL auditlog.maintenance = 'on'")
        conn.execute("DELETE FROM logstore.logs WHERE log_date = %s", [SECOND])
    assert figures(look(any_dsn)) == (2, 1, 0)


@pytest.mark.parametrize("state", ["detached", "archived"])
def test_detached_partition_is_retired_until_it_is_put_back(dsn: str, state: str) -> None:
    """Its rows are in none of the tables, though they are in the database."""
    three_days(dsn)
    leaf = f"logstore.{name(SECOND)}"
    retired(dsn, name(SECOND), SECOND, state=state, rows=10)
    assert figures(look(dsn)) == (0, 0, 0)
    execute(dsn, f"ALTER TABLE logstore.logs DETACH PARTITION {leaf}")
    assert figures(look(dsn)) == (10, 0, 0)
    bounds = f"FROM ('{SECOND.isoformat()}') TO ('{THIRD.isoformat()}')"
    execute(dsn, f"ALTER TABLE logstore.logs ATTACH PARTITION {leaf} FOR VALUES {bounds}")
    assert figures(look(dsn)) == (0, 0, 0)
    execute(dsn, "UPDATE logstore.retirements SET state = 'attached'")
    assert figures(look(dsn)) == (0, 0, 0)
    drop(dsn, SECOND)
    assert figures(look(dsn)) == (0, 10, 0)


def test_partition_that_was_restored_and_retired_again_counts_once(trail_dsn: str) -> None:
    """There are two entries for the same rows."""
    drop(trail_dsn, SECOND)
    for _ in range(2):
        retired(trail_dsn, name(SECOND), SECOND, rows=10)
    assert figures(look(trail_dsn)) == (10, 0, 0)


def test_detach_under_way_is_told_and_hides_nothing_elsewhere(dsn: str) -> None:
    """Nobody has counted its rows, so whether some are missing there cannot be told yet."""
    three_days(dsn)
    retired(dsn, name(SECOND), SECOND, state="detaching")
    assert figures(look(dsn)) == (0, 0, 0)
    assert is_well(look(dsn), strict=True)
    _interrupt_detach(dsn, name(SECOND))
    drop(dsn, FIRST)
    found = look(dsn)
    assert figures(found) == (0, 5, 0)
    (notice,) = (v for v in verdicts(found) if v.state == "notice")
    assert (notice.name, notice.figure) == ("logs", 1)
    assert "auditlog partitions maintain" in notice.detail


def _interrupt_detach(dsn: str, leaf: str) -> None:
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn, autocommit=True) as conn:
        reader.execute("SELECT FROM logstore.logs")
        conn.execute("SET lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute(
                f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{leaf} CONCURRENTLY".encode()
            )


@pytest.mark.parametrize("state", ["deleting", "deleted"])
def test_rows_of_a_tenant_that_were_deleted_are_explained(any_dsn: str, state: str) -> None:
    """As many as were deleted so far; and the rest of the partition, when that goes too."""
    partition(any_dsn, windows=[FIRST, SECOND])
    for tenant in ("a", "b"):
        store(any_dsn, FIRST + NOON, FIRST + NOON * 1.5, tenant=tenant)
    execute(
        any_dsn,
        "BEGIN; SET LOCAL auditlog.maintenance = 'on';"
        " DELETE FROM logstore.logs WHERE instance_id = 'a'; COMMIT",
    )
    assert figures(look(any_dsn)) == (0, 2, 0)
    retired(any_dsn, name(FIRST), FIRST, state=state, rows=2)
    execute(any_dsn, "UPDATE logstore.retirements SET instance_id = 'a'")
    assert figures(look(any_dsn)) == (2, 0, 0)
    drop(any_dsn, FIRST)
    retired(any_dsn, name(FIRST), FIRST, rows=2)
    assert figures(look(any_dsn)) == (4, 0, 0)


def test_retirement_across_the_border_makes_a_range(trail_dsn: str) -> None:
    """How many of its rows lie within, nobody knows any more."""
    drop(trail_dsn, SECOND)
    retired(trail_dsn, name(SECOND), SECOND, rows=10)
    noon = SECOND + NOON
    for asked in (
        {"since": SECOND},
        {"since": noon + timedelta(seconds=3)},
        {"until": THIRD},
        {"until": noon + timedelta(seconds=3)},
        {"since": THIRD},
        {"until": SECOND},
    ):
        found = look(trail_dsn, **asked)
        assert figures(found)[1:] == (0, 0), asked
        assert is_well(found, strict=True)
    assert "0 to 10 retired, " in verdicts(look(trail_dsn, since=noon))[0].detail
    assert figures(look(trail_dsn, since=THIRD))[0] == 0


def test_partition_cannot_leave_while_rows_are_counted(trail_dsn: str) -> None:
    """It would be in the one half of the answer and not in the other."""
    detach = f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{name(SECOND)}"

    def step(_: str) -> None:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            execute(trail_dsn, f"SET lock_timeout = '10ms'; {detach}")

    with psycopg.connect(trail_dsn) as conn:
        assert figures(reconcile(conn, step=step)) == (0, 0, 0)
    execute(trail_dsn, detach)
    assert len(partitions(trail_dsn)) == 2


def test_role_that_may_read_the_table_needs_no_right_to_partitions(any_server: Server) -> None:
    """Nor to what was detached: the entry says how many rows it has."""
    with any_server.role() as role, any_server.database() as dsn:
        partition(dsn, windows=[FIRST, SECOND])
        store(dsn, FIRST + NOON, SECOND + NOON)
        execute(dsn, f'GRANT USAGE ON SCHEMA logstore TO "{role}"')
        for table in ("logs", "execution_logs", "quota_logs", "batches", "retirements"):
            execute(dsn, f'GRANT SELECT ON logstore.{table} TO "{role}"')
        retired(dsn, name(FIRST), FIRST, state="detached", rows=1)
        execute(dsn, f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{name(FIRST)}")
        assert figures(look(as_role(dsn, role))) == (1, 0, 0)


def test_command_shows_what_was_retired(trail_dsn: str) -> None:
    """As a column of the document, and in the line of the table."""
    drop(trail_dsn, SECOND)
    retired(trail_dsn, name(SECOND), SECOND, rows=10)
    result = CliRunner().invoke(app, ["reconcile", "--dsn", trail_dsn, "--json"])
    assert result.exit_code == 0
    (logs, *_) = json.loads(result.stdout)["tables"]
    assert (logs["stored"], logs["retired"], logs["missing"]) == (20, 10, 0)
    assert "10 retired" in CliRunner().invoke(app, ["reconcile", "--dsn", trail_dsn]).stdout
