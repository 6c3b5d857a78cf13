"""What a partition has lost of its table is seen from the catalog, and given back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from auditlog.errors import PartitionError
from auditlog.partitions.creating import create, repair
from auditlog.partitions.reading.drift import drift
from auditlog.partitions.session import maintenance
from databases import Server, as_role
from monthly_scene import INSERT, MAY, dressing, methods, month_after, monthly_databases
from trail import execute

LEAF, OTHER = "logs_p203105", "logs_p203106"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass"


@pytest.fixture(scope="module")
def cut(server: Server) -> Iterator[Server]:
    with _cut(server) as cut:
        yield cut


@pytest.fixture(scope="module")
def any_cut(any_server: Server) -> Iterator[Server]:
    with _cut(any_server) as cut:
        yield cut


@contextmanager
def _cut(server: Server) -> Iterator[Server]:
    """A server whose new databases have `logs` with two partitions."""
    with monthly_databases(server) as monthly, monthly.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            create(conn, "logs", LEAF, *MAY)
            create(conn, "logs", OTHER, MAY[1], month_after(MAY[1]))
        yield replace(server, template=str(conninfo_to_dict(dsn)["dbname"]))


@pytest.fixture
def conn(cut: Server) -> Iterator[psycopg.Connection]:
    with cut.database() as dsn, maintenance(dsn) as conn:
        yield conn


@pytest.fixture
def any_dsn(any_cut: Server) -> Iterator[str]:
    with any_cut.database() as dsn:
        yield dsn


@pytest.fixture
def any_conn(any_dsn: str) -> Iterator[psycopg.Connection]:
    with maintenance(any_dsn) as conn:
        yield conn


LOST = {
    "guard dropped": ("DROP TRIGGER append_only ON {}", "guard"),
    "guard disabled": ("ALTER TABLE {} DISABLE TRIGGER append_only", "guard"),
    "guard only on replicas": ("ALTER TABLE {} ENABLE REPLICA TRIGGER append_only", "guard"),
    "guard against less": (
        "CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE ON {}"
        " FOR EACH STATEMENT EXECUTE FUNCTION logstore.refuse_change()",
        "guard",
    ),
    "grant": ("GRANT SELECT ON {} TO PUBLIC", "grants"),
    "grant on a column": ("GRANT INSERT (log_id) ON {} TO PUBLIC", "grants"),
    "owner": ("ALTER TABLE {} OWNER TO pg_monitor", "owner"),
    "row security": ("ALTER TABLE {} ENABLE ROW LEVEL SECURITY", "row security"),
    "forced": ("ALTER TABLE {} FORCE ROW LEVEL SECURITY", "row security"),
    "policy": ("CREATE POLICY theirs ON {} USING (true)", "row security"),
    "policy of the table": (
        "CREATE POLICY ours ON logstore.logs USING (true);"
        " CREATE POLICY ours ON logstore.logs_p203106 USING (true);"
        " CREATE POLICY ours ON {} USING (false)",
        "row security",
    ),
    "policy for others": (
        "CREATE POLICY ours ON logstore.logs TO pg_monitor;"
        " CREATE POLICY ours ON logstore.logs_p203106 TO pg_monitor;"
        " CREATE POLICY ours ON {} TO PUBLIC",
        "row security",
    ),
    "key": ("ALTER TABLE {} DROP CONSTRAINT logs_p203105_pkey", "primary key"),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_is_lost_is_seen_and_given_back(any_conn: psycopg.Connection, lost: str) -> None:
    """On that partition only; twice is as good as once; Python and SQL see the same."""
    statement, word = LOST[lost]
    any_conn.execute(statement.format(f"logstore.{LEAF}").encode())
    assert drift(any_conn, "logs") == {_oid(any_conn, LEAF): (word,)}
    assert bool(dressing(any_conn, LEAF)) == (word != "primary key")
    repair(any_conn, "logs", LEAF)
    assert drift(any_conn, "logs") == {}
    assert dressing(any_conn, LEAF) == []
    repair(any_conn, "logs", LEAF)


def test_index_of_the_table_is_built_on_each_partition(conn: psycopg.Connection) -> None:
    """While rows are written; the table's own is valid when the last partition has it."""
    conn.execute(
        "CREATE UNIQUE INDEX \"Theirs 'x'\" ON ONLY logstore.logs (log_date, lower(log_id))"
        " INCLUDE (message) WHERE user_id > '%'"
    )
    expected = ("index Theirs 'x'",)
    leaves = _oid(conn, LEAF), _oid(conn, OTHER)
    assert drift(conn, "logs") == dict.fromkeys(leaves, expected)
    repair(conn, "logs", LEAF)
    assert drift(conn, "logs") == {leaves[1]: expected}
    assert conn.execute(VALID, ["logstore.\"Theirs 'x'\""]).fetchone() == (False,)
    repair(conn, "logs", OTHER)
    assert drift(conn, "logs") == {}
    assert conn.execute(VALID, ["logstore.\"Theirs 'x'\""]).fetchone() == (True,)
    assert sorted(methods(conn, LEAF)) == sorted(methods(conn, OTHER))
    assert set(methods(conn, "logs")) < set(methods(conn, LEAF))


def test_index_that_is_there_already_is_taken(conn: psycopg.Connection) -> None:
    """Whoever has built it beforehand; only one that is the same."""
    conn.execute("CREATE INDEX theirs ON ONLY logstore.logs (message)")
    conn.execute(f"CREATE INDEX other ON logstore.{LEAF} (message) WHERE message > ''")
    conn.execute(f"CREATE INDEX built ON logstore.{LEAF} (message)")
    before = len(methods(conn, LEAF))
    repair(conn, "logs", LEAF)
    assert list(drift(conn, "logs")) == [_oid(conn, OTHER)]
    assert len(methods(conn, LEAF)) == before


def test_build_that_did_not_end_is_begun_again(any_conn: psycopg.Connection) -> None:
    """What it has left is dropped: an invalid index is written to and never read."""
    any_conn.execute("CREATE INDEX logs_theirs ON ONLY logstore.logs (message)")
    any_conn.execute(f"CREATE INDEX {LEAF}_theirs ON logstore.{LEAF} (message)")
    any_conn.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass",
        [f"logstore.{LEAF}_theirs"],
    )
    before = len(methods(any_conn, LEAF))
    repair(any_conn, "logs", LEAF)
    assert list(drift(any_conn, "logs")) == [_oid(any_conn, OTHER)]
    assert len(methods(any_conn, LEAF)) == before


def test_key_over_rows_that_are_there_twice_is_an_error(any_conn: psycopg.Connection) -> None:
    """Nothing is deleted to mend it; and a second try says the same again."""
    any_conn.execute(f"ALTER TABLE logstore.{LEAF} DROP CONSTRAINT {LEAF}_pkey")
    for _ in range(2):
        any_conn.execute(INSERT, [MAY[0]])
    for _ in range(2):
        with pytest.raises(PartitionError, match="has rows twice"):
            repair(any_conn, "logs", LEAF)
    assert drift(any_conn, "logs") == {_oid(any_conn, LEAF): ("primary key",)}
    assert any_conn.execute("SELECT count(*) FROM logstore.logs").fetchone() == (2,)


def test_settings_of_the_session_are_as_before(any_conn: psycopg.Connection) -> None:
    """A build may wait longer than anything else, and only a build."""
    any_conn.execute("CREATE INDEX theirs ON ONLY logstore.logs (message)")
    before = any_conn.execute("SHOW lock_timeout").fetchone()
    repair(any_conn, "logs", LEAF)
    assert any_conn.execute("SHOW lock_timeout").fetchone() == before


def test_repair_that_gets_no_lock_changes_nothing(any_dsn: str) -> None:
    """It ends after the session's lock_timeout."""
    with psycopg.connect(any_dsn) as writer, maintenance(any_dsn) as conn:
        conn.execute(f"DROP TRIGGER append_only ON logstore.{LEAF}")
        writer.execute(INSERT, [MAY[0]])
        conn.execute("SET lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            repair(conn, "logs", LEAF)
        assert drift(conn, "logs") == {_oid(conn, LEAF): ("guard",)}


def test_what_is_no_partition_of_the_table_is_left_alone(any_conn: psycopg.Connection) -> None:
    """A table that was detached meanwhile, another's, one that is not there."""
    any_conn.execute(f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{LEAF}")
    any_conn.execute(f"DROP TRIGGER append_only ON logstore.{LEAF}")
    for name in (LEAF, "quota_logs", "nothing"):
        repair(any_conn, "logs", name)
    repair(any_conn, "nothing", OTHER)
    assert drift(any_conn, "logs") == {}
    assert len(dressing(any_conn, LEAF)) == 1


def test_any_role_sees_the_drift(cut: Server) -> None:
    """Only the catalog is read, without a right on schema, tables or functions."""
    with cut.role() as role, cut.database() as dsn:
        execute(dsn, f"GRANT SELECT ON logstore.{LEAF} TO PUBLIC")
        with maintenance(as_role(dsn, role)) as conn:
            assert list(drift(conn, "logs").values()) == [("grants",)]


def test_drift_of_a_table_that_is_not_partitioned_is_none(any_conn: psycopg.Connection) -> None:
    """Nor of one that is not there."""
    assert drift(any_conn, "quota_logs") == drift(any_conn, "nothing") == {}


def _oid(conn: psycopg.Connection, name: str) -> int:
    row = conn.execute("SELECT %s::regclass::oid::bigint", [f"logstore.{name}"]).fetchone()
    assert row is not None
    return row[0]
