"""Where an archive is restored to: a table for its owner alone, or its place as a partition."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from archive_scene import LEAF, LOWER, UPPER, archived, ask, contents, fill, grow, make_leaf
from auditlog.errors import PartitionError
from auditlog.partitions.archive import archive, fingerprint, restore
from auditlog.partitions.session import maintenance, only_run
from databases import Server, as_role
from partitioned import partition, partitions, today

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(any_dsn: str) -> Iterator[Conn]:
    """Maintenance of a database that has a leaf with awkward rows beside its plain table."""
    with maintenance(any_dsn) as connection:
        make_leaf(connection)
        fill(connection)
        yield connection


@contextmanager
def cut_by_month(dsn: str) -> Iterator[Conn]:
    """Maintenance of a database whose `logs` has partitions, the archived leaf is none of them."""
    partition(dsn, step="month", windows=[today()])
    with maintenance(dsn) as connection:
        make_leaf(connection)
        fill(connection)
        yield connection


@pytest.fixture
def cut(any_dsn: str) -> Iterator[Conn]:
    """Such a database on one server."""
    with cut_by_month(any_dsn) as connection:
        yield connection


def test_restored_table_is_for_its_owner_alone(any_server: Server, tmp_path: Path) -> None:
    """Whatever default privileges say; and nobody changes what is in it by mistake."""
    with any_server.role() as role, any_server.database() as dsn, maintenance(dsn) as conn:
        make_leaf(conn)
        fill(conn)
        conn.execute(
            sql.SQL(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA logstore GRANT SELECT ON TABLES TO {role};"
                "ALTER DEFAULT PRIVILEGES IN SCHEMA logstore GRANT SELECT ON TABLES TO PUBLIC;"
                "GRANT USAGE ON SCHEMA logstore TO {role}"
            ).format(role=sql.Identifier(role))
        )
        restore(conn, archived(conn, tmp_path).uri, into="back")
        with (
            psycopg.connect(as_role(dsn, role)) as reader,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            reader.execute("SELECT FROM logstore.back")
        for change in ("DELETE FROM logstore.back", "TRUNCATE logstore.back"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                conn.execute(change.encode())
        # Or the roles could not be dropped.
        conn.execute(sql.SQL("DROP OWNED BY {role}").format(role=sql.Identifier(role)))


def test_restored_table_has_key_indexes_and_bounds(conn: Conn, tmp_path: Path) -> None:
    """So it can be asked as the table is, and attached without a scan."""
    restore(conn, archived(conn, tmp_path).uri, into="back")
    indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'logstore' AND tablename = %s"
    assert ask(conn, indexes, "back") == ask(conn, indexes, "logs")
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("INSERT INTO logstore.back (instance_id, log_id) VALUES ('t', 'new')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO logstore.back SELECT * FROM logstore.back LIMIT 1")


def test_taken_name_is_left_alone(conn: Conn, tmp_path: Path) -> None:
    """A second restore of the same archive, or the name of a table of the trail."""
    made = archived(conn, tmp_path)
    restore(conn, made.uri)
    for into in (None, "logs", "logstore.logs"):
        with pytest.raises(PartitionError, match="give another name with --into"):
            restore(conn, made.uri, into=into)
    assert restore(conn, made.uri, into="logstore.second").table == "logstore.second"


def test_any_name_is_a_name(conn: Conn, tmp_path: Path) -> None:
    """It is quoted, and nothing else; what PostgreSQL would cut is refused."""
    made = archived(conn, tmp_path)
    for name in ('x"; DROP TABLE logstore.logs; --', "Mixed Case", "é" * 31, "%s{}"):
        assert restore(conn, made.uri, into=name).table == f"logstore.{name}"
        assert contents(conn, name) == contents(conn, LEAF)
    for name in ("x" * 64, "é" * 32, "logstore.", "a\0b"):
        with pytest.raises(PartitionError, match="is no name for a table"):
            restore(conn, made.uri, into=name)
    assert ask(conn, "SELECT to_regclass('logstore.logs') IS NOT NULL")


def test_attached_archive_is_a_partition_again(dsn: str, tmp_path: Path) -> None:
    """Rows are read through the table, and it is dressed as other partitions are."""
    with cut_by_month(dsn) as cut:
        original = contents(cut, LEAF)
        made = archived(cut, tmp_path)
        cut.execute("DROP TABLE logstore.logs_p202612")
        restored = restore(cut, made.uri, attach=True)
        assert restored.is_attached
        assert restored.table == "logstore.logs_p202612"
        assert LEAF in partitions(dsn)
        assert contents(cut, LEAF) == original
        assert fingerprint(cut, LEAF) == made.fingerprint
        assert ask(cut, "SELECT count(*) FROM logstore.logs WHERE instance_id = 't'") == 23
        comment = ask(cut, "SELECT obj_description('logstore.logs_p202612'::regclass)")
        assert comment == "auditlog partition of logs"
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            cut.execute("TRUNCATE logstore.logs_p202612")


def test_range_that_is_not_free_is_refused(cut: Conn, any_dsn: str, tmp_path: Path) -> None:
    """Before anything is loaded, and nothing is left; the name that is taken as well."""
    made = archived(cut, tmp_path)
    with pytest.raises(PartitionError, match="give another name"):
        restore(cut, made.uri, attach=True)
    restore(cut, made.uri, attach=True, into="first")
    before = partitions(any_dsn)
    with pytest.raises(PartitionError, match="is not free"):
        restore(cut, made.uri, attach=True, into="second")
    wider = archive(cut, LEAF, table="logs", lower=None, upper=UPPER, to=str(tmp_path))
    with pytest.raises(PartitionError, match="is not free"):
        restore(cut, wider.uri, attach=True, into="third")
    assert partitions(any_dsn) == before


def test_plain_table_has_no_partitions_to_attach_to(conn: Conn, tmp_path: Path) -> None:
    """With the command that makes it a partitioned one."""
    with pytest.raises(PartitionError, match="auditlog partitions enable logs"):
        restore(conn, archived(conn, tmp_path).uri, attach=True, into="back")


def test_what_retention_took_comes_back_under_a_hold_only(cut: Conn, tmp_path: Path) -> None:
    """The next run would take it again; a hold of one tenant in that range is enough."""
    made = archived(cut, tmp_path)
    cut.execute("DROP TABLE logstore.logs_p202612")
    cut.execute(
        "INSERT INTO logstore.retirements (retirement_id, table_name, partition_name,"
        " partition_oid, lower_bound, upper_bound, state)"
        " VALUES (gen_random_uuid(), 'logs', 'logs_p202612', 1, %s, %s, 'dropped')",
        [LOWER, UPPER],
    )
    hold = (
        "INSERT INTO logstore.holds (hold_id, table_name, instance_id, from_date, until_date,"
        " reason, released_at) VALUES (gen_random_uuid(), %s, 't', %s, 'infinity', 'matter', %s)"
    )
    cut.execute(hold, ["logs", UPPER, None])  # begins where the partition ends
    cut.execute(hold, ["quota_logs", LOWER, None])
    cut.execute(hold, ["logs", LOWER, LOWER])  # released
    with pytest.raises(PartitionError, match="auditlog hold add"):
        restore(cut, made.uri, attach=True)
    assert restore(cut, made.uri, into="beside").rows == 23
    cut.execute(hold, [None, LOWER, None])
    assert restore(cut, made.uri, attach=True).is_attached


def test_attach_waits_for_no_run_of_maintenance(cut: Conn, any_dsn: str, tmp_path: Path) -> None:
    """It says so at once; a table beside is made all the same."""
    made = archived(cut, tmp_path)
    with maintenance(any_dsn) as other, only_run(other, "logs"):
        with pytest.raises(PartitionError, match="maintenance of logs is at work"):
            restore(cut, made.uri, attach=True, into="back")
        assert restore(cut, made.uri, into="beside").rows == 23


def test_failed_attach_leaves_nothing(cut: Conn, any_dsn: str, tmp_path: Path) -> None:
    """Rows that are outside of the bounds, found while the partition was being loaded."""
    cut.execute("INSERT INTO logstore.logs_p202612 VALUES ('t', 'late', '2027-01-01')")
    made = archived(cut, tmp_path)
    before = partitions(any_dsn)
    with pytest.raises(PartitionError, match="nothing was restored"):
        restore(cut, made.uri, attach=True, into="back")
    assert partitions(any_dsn) == before
    assert ask(cut, "SELECT to_regclass('logstore.back') IS NULL")


def test_writers_go_on_while_an_archive_is_attached(
    cut: Conn, any_dsn: str, tmp_path: Path
) -> None:
    """All of its load is one transaction, whose locks are those that no writer waits for."""
    grow(cut, 5_000)
    made = archived(cut, tmp_path)
    written = []

    def write(_done: int, _of: int | None) -> None:
        if not written:
            with psycopg.connect(any_dsn) as writer:
                writer.execute("SET lock_timeout = '5s'")
                writer.execute(
                    "INSERT INTO logstore.logs (instance_id, log_id) VALUES ('w', 'meanwhile')"
                )
            written.append(True)

    restore(cut, made.uri, attach=True, into="back", on_progress=write)
    assert written
    assert ask(cut, "SELECT count(*) FROM logstore.logs WHERE instance_id = 'w'") == 1
