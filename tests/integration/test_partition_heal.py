from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from auditlog.errors import PartitionError
from auditlog.partitions.conversion import leftovers
from auditlog.partitions.conversion.bounding import Range, bind
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.conversion.healing import heal
from auditlog.partitions.identity import RefusedError
from auditlog.partitions.model import Operation
from auditlog.partitions.session import maintenance
from auditlog.partitions.windows import window
from conversion_scene import LIVE, OLD, clients, fill, stored, unread
from trail import execute, fetch

NOW = datetime.now(UTC)
MONTH = window("month", NOW + timedelta(days=1))
LOWER, UPPER = MONTH
EVENTS = "SELECT event_type FROM logstore.logs WHERE event_type LIKE 'audit.part%%' ORDER BY log_id"
PARTS = """
    SELECT c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid)
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'logstore.logs'::regclass ORDER BY 1
"""


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with polluted(dsn) as conn:
        yield conn


@pytest.fixture
def any_conn(any_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with polluted(any_dsn) as conn:
        yield conn


@contextmanager
def polluted(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Maintenance had stopped before the table had partitions for the time that it is."""
    with maintenance(dsn) as conn:
        enable(conn, "logs", "month")
        conn.execute("ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_legacy")
        conn.execute("DROP TABLE logstore.logs_legacy")
        conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
        yield conn


def operation(conn: psycopg.Connection[Any], lower: datetime, upper: datetime) -> Operation:
    (oid,) = conn.execute("SELECT 'logstore.logs_rest'::regclass::oid").fetchone() or ()
    return Operation("heal", "logs", "logs_rest", "a test", lower, upper, oid)


def test_rows_sent_while_a_default_is_healed_are_stored(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """None is moved, nobody gets an error, and the DEFAULT is a partition like the others."""
    fill(dsn, 50_000, max(LOWER, NOW - timedelta(days=3)), NOW)
    (before,) = fetch(dsn, "SELECT pg_relation_filenode('logstore.logs_rest')")
    with clients(dsn) as seen:
        heal(conn, operation(conn, LOWER, UPPER))
    assert seen.errors == []
    assert seen.counts == {50_000}
    assert stored(dsn, LIVE) == seen.sent
    name = f"logs_p{LOWER:%Y%m}"
    assert fetch(dsn, f"SELECT pg_relation_filenode('logstore.{name}')") == [before]
    assert (
        f"{name} FOR VALUES FROM ('{LOWER:%Y-%m-%d} 00:00:00+00')"
        f" TO ('{UPPER:%Y-%m-%d} 00:00:00+00')"
    ) in fetch(dsn, PARTS)
    assert fetch(dsn, EVENTS) == ["audit.partition.healed"]
    bounds = "SELECT count(*) FROM pg_constraint WHERE conname LIKE '%%_partition_bound'"
    assert fetch(dsn, bounds) == [0]
    comment = f"SELECT obj_description('logstore.{name}'::regclass)"
    assert fetch(dsn, comment) == ["auditlog partition of logs"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        execute(dsn, f"TRUNCATE logstore.{name}")


def test_its_rows_are_not_read_under_the_lock(conn: psycopg.Connection[Any]) -> None:
    """The server has the proof from before."""
    with unread(conn, "logs_rest"):
        heal(conn, operation(conn, LOWER, UPPER))


def test_rows_of_another_time_are_not_left_out(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """It stays the DEFAULT, and takes every row as before."""
    fill(any_dsn, 10, NOW, NOW)
    fill(any_dsn, 1, LOWER - timedelta(days=40), LOWER)
    with pytest.raises(PartitionError, match="of another time"):
        heal(any_conn, operation(any_conn, LOWER, UPPER))
    fill(any_dsn, 1, LOWER - timedelta(days=50), LOWER)
    assert stored(any_dsn, OLD) == 12
    assert "logs_rest DEFAULT" in fetch(any_dsn, PARTS)
    assert leftovers.find(any_conn, "logs") == []


def test_another_table_is_not_taken_for_it(any_dsn: str, any_conn: psycopg.Connection[Any]) -> None:
    """Neither one under its name, nor one that is attached otherwise."""
    planned = operation(any_conn, LOWER, UPPER)
    any_conn.execute("DROP TABLE logstore.logs_rest")
    any_conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
    with pytest.raises(RefusedError):
        heal(any_conn, planned)
    any_conn.execute("ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_rest")
    with pytest.raises(RefusedError):
        heal(any_conn, operation(any_conn, LOWER, UPPER))
    assert leftovers.find(any_conn, "logs") == []


def test_range_that_is_taken_is_refused(dsn: str, conn: psycopg.Connection[Any]) -> None:
    """Nothing is changed, and rows of any time are accepted."""
    with pytest.raises(psycopg.errors.InvalidObjectDefinition):
        heal(conn, operation(conn, LOWER, UPPER + timedelta(days=90)))
    fill(dsn, 1, LOWER - timedelta(days=40), LOWER)
    assert "logs_rest DEFAULT" in fetch(dsn, PARTS)


def test_name_that_is_taken_is_left_alone(any_dsn: str, any_conn: psycopg.Connection[Any]) -> None:
    """The partition keeps its own."""
    execute(any_dsn, f"CREATE TABLE logstore.logs_p{LOWER:%Y%m} ()")
    heal(any_conn, operation(any_conn, LOWER, UPPER))
    assert any(part.startswith("logs_rest FOR VALUES") for part in fetch(any_dsn, PARTS))


def test_what_a_killed_run_has_left_is_used_or_removed(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """Rows from outside its range are refused meanwhile, which is told."""
    bind(any_conn, "logs_rest", Range(LOWER, UPPER))
    assert [one.code for one in leftovers.find(any_conn, "logs")] == ["bound_left"]
    leftovers.clear(any_conn, "logs")
    fill(any_dsn, 1, LOWER - timedelta(days=40), LOWER)
    bind(any_conn, "logs_rest", Range(LOWER, UPPER))
    heal(any_conn, operation(any_conn, LOWER - timedelta(days=60), UPPER))
    assert stored(any_dsn, OLD) == 1
    assert leftovers.find(any_conn, "logs") == []
