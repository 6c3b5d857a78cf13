"""Partitions on servers that are short of something: a standby, one with few locks."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from auditlog.cli.failures import Exit
from auditlog.errors import PartitionError
from auditlog.partitions import locking
from auditlog.partitions.conversion.disabling import disable
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.maintaining import maintain, preview
from auditlog.partitions.model import TableConfig
from auditlog.partitions.retention import detaching
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.status import status
from auditlog.postgres import embedded
from auditlog.postgres.embedded import EmbeddedServer
from auditlog.postgres.migrate import migrate
from commands import CommandLine
from databases import postgres_program
from retiring_scene import QUICK, attached, cut, fill, states, tables
from trail import execute, fetch

PLAIN = {"logs": TableConfig("logs")}
FEW_LOCKS = {
    "max_locks_per_transaction": 10,
    "max_connections": 8,
    "max_prepared_transactions": 1,
    "max_wal_senders": 0,
    "max_worker_processes": 0,
    "autovacuum_max_workers": 1,
    "autovacuum_worker_slots": 1,
    "autovacuum": "off",
    "fsync": "off",
}
NO_LOCK_LEFT, REMEDY = "out of shared memory", "raise max_locks_per_transaction"
ROWS = 10
FIRST_ROOM, MORE_ROOM = 4, 8
"""Locks that are left to maintenance: too few to see the table; and how many more each time."""


@contextmanager
def started() -> Iterator[EmbeddedServer]:
    """A server of its own, whose table logs is partitioned by month."""
    with TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the server runs as another user
        with embedded.start(Path(folder, "data")) as server:
            migrate(server.dsn)
            with maintenance(server.dsn) as conn:
                assert enable(conn, "logs", "month").result == "done"
            yield server


def as_server(server: EmbeddedServer, program: str, *arguments: object) -> None:
    """Run a program of PostgreSQL's as whoever owns the data; root may not."""
    subprocess.run(
        [postgres_program(program), *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
        user=server.path.stat().st_uid if os.geteuid() == 0 else None,
    )


@contextmanager
def standby_of(primary: EmbeddedServer) -> Iterator[tuple[str, Callable[[], None]]]:
    """A standby that follows it: its DSN, and what promotes it."""
    folder = primary.path / "standby"
    control = ("-w", "-D", folder)
    as_server(
        primary, "pg_basebackup", "-D", folder, "-R", "-d", primary.dsn, "-c", "fast", "--no-sync"
    )
    for lock in folder.glob(".s.PGSQL.*.lock"):  # that of the primary's socket
        lock.unlink()
    as_server(primary, "pg_ctl", "start", *control, "-o", f"-h '' -k {folder}", "-l", os.devnull)
    try:
        dsn = make_conninfo(primary.dsn, host=str(folder))
        yield dsn, lambda: as_server(primary, "pg_ctl", "promote", *control)
    finally:
        as_server(primary, "pg_ctl", "stop", *control, "-m", "immediate")


def test_standby_is_left_to_its_primary(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Everything says so in one line; a DSN that names both finds the one that takes writes."""
    auditlog = CommandLine(monkeypatch, capfd)
    with started() as primary, standby_of(primary) as (dsn, promote):
        for look in (maintain, preview, status):
            with pytest.raises(PartitionError, match=r"is a standby.*DSN of the primary"):
                look(dsn, PLAIN)
        for command in (
            ("partitions", "maintain"),
            ("partitions", "plan"),
            ("partitions", "status"),
            ("partitions", "enable", "quota_logs", "--by", "day"),
            ("partitions", "disable", "logs"),
            ("hold", "add", "--reason", "matter"),
        ):
            result = auditlog(*command, dsn=dsn)
            assert (result.returncode, result.stdout) == (Exit.NOT_WELL, ""), command
            assert "standby" in result.stderr, result.stderr
            assert result.stderr.count("\n") == 1, result.stderr
        both = make_conninfo(
            primary.dsn,
            host=",".join(str(conninfo_to_dict(each)["host"]) for each in (dsn, primary.dsn)),
            target_session_attrs="read-write",
        )
        (report,) = maintain(both, PLAIN)
        assert report.error is None
        promote()
        (report,) = maintain(dsn, PLAIN)
        assert report.error is None
        assert report.covered_until is not None


@pytest.fixture(scope="module")
def short_of_locks() -> Iterator[EmbeddedServer]:
    """A server with as few locks as PostgreSQL lets one have."""
    with started() as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            for name, value in FEW_LOCKS.items():
                conn.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        options = ("-o", f"-h '' -k {server.path}", "-l", os.devnull)
        as_server(server, "pg_ctl", "restart", "-w", "-D", server.path, *options)
        yield server


@contextmanager
def database(server: EmbeddedServer, name: str) -> Iterator[str]:
    """A migrated database on it."""
    execute(server.dsn, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    dsn = make_conninfo(server.dsn, dbname=name)
    migrate(dsn)
    yield dsn


class Hog:
    """A session that holds all locks which the server has, but for some."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn

    def leave(self, room: int) -> None:
        with suppress(psycopg.errors.OutOfMemory):
            self._conn.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 100000) AS n")
        self._conn.execute("SELECT pg_advisory_unlock(n) FROM generate_series(1, %s) AS n", [room])

    def leave_all(self) -> None:
        self._conn.execute("SELECT pg_advisory_unlock_all()")


def test_run_without_locks_does_each_step_whole_or_not(short_of_locks: EmbeddedServer) -> None:
    """Whatever it runs out in: it says what would help, and the next run goes on from there."""
    with database(short_of_locks, "cut") as dsn:
        maintained_with_little_room(dsn)


def maintained_with_little_room(dsn: str) -> None:
    """Maintain again and again, with a few more locks each time, until all is done."""
    cut(dsn, (6, 5, 4, 0))
    for ago in (6, 5, 4):
        fill(dsn, ago, ROWS)
    troubles: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        hog = Hog(conn)
        for room in range(FIRST_ROOM, 100, MORE_ROOM):
            hog.leave(room)
            (report,) = maintain(dsn, {"logs": QUICK})
            hog.leave_all()
            told = [each.detail for each in report.outcomes if each.result == "failed"]
            told += [report.error] if report.error else []
            if not told:
                break
            troubles += told
            assert_whole(dsn)
    assert {each.result for each in report.outcomes} == {"done"}
    assert len(troubles) > 3, "it was never short of locks"
    assert {NO_LOCK_LEFT in each and REMEDY in each for each in troubles} == {True}, troubles
    assert_whole(dsn)
    with maintenance(dsn) as conn:
        assert {state for _, state, _, _ in states(conn)} == {"dropped"}


def assert_whole(dsn: str) -> None:
    """Every partition is attached, or detached with an entry; every row is there or dropped."""
    with maintenance(dsn) as conn:
        left = set(tables(conn)) - set(attached(conn))
        entered = {name: state for name, state, _, _ in states(conn)}
        assert left == {name for name, state in entered.items() if state != "dropped"}
        dropped = sum(rows or 0 for _, state, rows, _ in states(conn) if state == "dropped")
        rows = sum(count_rows(dsn, name) for name in tables(conn))
    assert rows + dropped == 3 * ROWS


def count_rows(dsn: str, name: str) -> int:
    """Those of the test; maintenance writes its own into the table."""
    query = f"SELECT count(*) FROM logstore.{name} WHERE instance_id = 'tenant'"  # noqa: S608  # ours
    (count,) = fetch(dsn, query)
    return int(count)


def test_transaction_that_was_prepared_and_left_is_named(
    short_of_locks: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no process, and outlives every restart: who waits for it says which it is."""
    monkeypatch.setattr(detaching, "CONCURRENT_WAIT_S", 0.2)
    monkeypatch.setattr(locking, "TRIES", 1)
    with database(short_of_locks, "prepared") as dsn:
        cut(dsn, (6, 0))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("BEGIN; SELECT count(*) FROM logstore.logs; PREPARE TRANSACTION 'left'")
            (report,) = maintain(dsn, {"logs": QUICK})
            found = {(each.operation.kind, each.result): each.detail for each in report.outcomes}
            assert found["detach", "waiting"].startswith("prepared transaction left has logs")
            assert "ROLLBACK PREPARED" in found["detach", "waiting"]
            assert ("create", "done") in found
            conn.execute("ROLLBACK PREPARED 'left'")
        (report,) = maintain(dsn, {"logs": QUICK})
        assert {each.result for each in report.outcomes} == {"done"}


def test_table_of_too_many_partitions_is_not_turned_back(
    short_of_locks: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The way back would need more locks than there are; with fewer partitions it does not."""
    dsn, auditlog = short_of_locks.dsn, CommandLine(monkeypatch, capfd)
    many = TableConfig("logs", by="day", ahead=Span(days=200))
    (report,) = maintain(dsn, {"logs": many})
    assert report.error is None
    with pytest.raises(psycopg.errors.OutOfMemory):
        execute(dsn, "SELECT count(*) FROM logstore.logs")
    (found,) = status(dsn, {"logs": many})
    assert "locks" in {each.code for each in found.findings if each.severity == "human"}
    refused = auditlog("partitions", "disable", "logs", dsn=dsn)
    assert refused.returncode == Exit.NOT_WELL
    assert REMEDY in refused.stdout
    # Even where the look beforehand is too hopeful, all of it is done or nothing.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditlog.partitions.conversion.preflight._LOCK_BUDGET", "SELECT 1000000")
        before = attached_to(dsn)
        failed = auditlog("partitions", "disable", "logs", dsn=dsn)
        assert failed.returncode == Exit.NOT_WELL
        assert REMEDY in failed.stdout
        assert attached_to(dsn) == before
    for name in before[3:]:
        execute(dsn, f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{name}")
        execute(dsn, f"DROP TABLE logstore.{name}")
    with maintenance(dsn) as conn:
        report = disable(conn, "logs")
    assert report.result == "done", report


def attached_to(dsn: str) -> list[str]:
    with maintenance(dsn) as conn:
        return attached(conn)
