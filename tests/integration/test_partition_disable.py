from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from auditlog.errors import PartitionError
from auditlog.partitions.conversion import leftovers
from auditlog.partitions.conversion.bounding import Range, bind
from auditlog.partitions.conversion.disabling import disable
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.tables import TABLES
from conversion_scene import DRESSED, LIVE, OLD, clients, facts, fill, kill_before, stored
from databases import Server, as_role
from trail import execute, fetch

NOW = datetime.now(UTC)
BEGUN = NOW - timedelta(days=90)
LATER = NOW + timedelta(days=45)
EVENTS = "SELECT event_type FROM logstore.logs WHERE event_type LIKE 'audit.part%%' ORDER BY log_id"
RELATIONS = "SELECT relname::text FROM pg_class WHERE relname LIKE 'logs%%' ORDER BY 1"


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with maintenance(dsn) as conn:
        yield conn


@pytest.fixture
def any_conn(any_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with maintenance(any_dsn) as conn:
        yield conn


def test_rows_sent_while_a_table_is_disabled_are_stored(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """Of the old and of newer partitions; at no moment one of them is seen twice or not at all."""
    fill(dsn, 50_000, BEGUN, NOW)
    enable(conn, "logs", "month")
    fill(dsn, 50_000, LATER, LATER + timedelta(days=30))
    with clients(dsn, ahead=LATER - NOW) as seen:
        report = disable(conn, "logs")
    assert report.result == "done"
    assert seen.errors == []
    assert seen.counts == {100_000}
    assert stored(dsn, LIVE) == seen.sent
    assert stored(dsn, OLD) == 100_000
    print(  # noqa: T201  # a figure to look at, and none to fail for
        f"waited {report.waited_s * 1e3:.1f} ms for the lock, held it {report.locked_s * 1e3:.1f}"
        f" ms; a client's slowest statement took {seen.slowest_s * 1e3:.1f} ms"
    )


@pytest.mark.parametrize("table", [table.name for table in TABLES])
def test_table_is_afterwards_what_it_was(
    dsn: str, conn: psycopg.Connection[Any], table: str
) -> None:
    """In every word of the catalog, and nothing is left beside it."""
    before, relations = facts(conn, f"logstore.{table}"), fetch(dsn, RELATIONS)
    enable(conn, table, "day", ahead=Span(days=5))
    assert disable(conn, table).result == "done"
    assert facts(conn, f"logstore.{table}") == before
    assert fetch(dsn, RELATIONS) == relations
    assert fetch(dsn, "SELECT table_name FROM logstore.partitioning") == []


def test_what_an_operator_has_added_is_there_afterwards(server: Server) -> None:
    """Whether it was there before the table was partitioned, or was added meanwhile."""
    with server.role() as reader, server.database() as dsn:
        dress = sql.SQL(DRESSED).format(reader=sql.Identifier(reader))
        with maintenance(dsn) as conn:
            conn.execute(dress)
            before = facts(conn)
            enable(conn, "logs", "month")
            assert disable(conn, "logs").result == "done"
            assert facts(conn) == before


def test_what_was_added_meanwhile_is_kept(server: Server) -> None:
    """The table that was partitioned is the model, and not what is left of the one before."""
    with server.role() as reader, server.database() as dsn:
        dress = sql.SQL(DRESSED).format(reader=sql.Identifier(reader))
        with maintenance(dsn) as conn:
            enable(conn, "logs", "month")
            conn.execute(dress)
            meanwhile = facts(conn)
            assert disable(conn, "logs").result == "done"
            assert {name for _, name, _ in meanwhile - facts(conn)} == set()
            assert {name for _, name, _ in facts(conn) - meanwhile} == {
                "logs_pkey",
                "logstore.logs_pkey",
            }


def test_largest_partition_becomes_the_table(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """So the fewest rows are moved, even where retention has taken the oldest."""
    enable(any_conn, "logs", "month")
    fill(any_dsn, 3, NOW, NOW)
    fill(any_dsn, 5_000, LATER, LATER)
    report = disable(any_conn, "logs")
    assert report.rows_moved == 5  # two of them tell of enabling and disabling
    assert stored(any_dsn, OLD) == 5_003
    assert fetch(any_dsn, EVENTS) == [
        "audit.partitioning.enabled",
        "audit.partitioning.disabled",
        "audit.partition.merged",
    ]


@pytest.mark.parametrize("stage", ["examine", "swap", "move", "clear"])
def test_killed_run_is_finished_by_the_next(any_dsn: str, stage: str) -> None:
    """Wherever it is killed, all rows are to be read and others can be written."""
    dsn = any_dsn
    fill(dsn, 100, BEGUN, NOW)
    with maintenance(dsn) as conn:
        before = facts(conn)
        enable(conn, "logs", "month")
        fill(dsn, 100, LATER, LATER)
        kill_before(dsn, "disable", stage)
        assert stored(dsn, OLD) == 200
        fill(dsn, 100, NOW, LATER, tenant="between")
        assert disable(conn, "logs").result == "done"
        assert facts(conn) == before
        assert leftovers.find(conn, "logs") == []
        assert disable(conn, "logs").result == "already"
    assert stored(dsn, OLD) + stored(dsn, "between") == 300
    assert (
        fetch(
            dsn,
            "SELECT relname FROM pg_class JOIN pg_inherits ON inhparent = oid"
            " WHERE relname = 'logs'",
        )
        == []
    )


def test_half_disabled_table_is_not_enabled(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """It has to become a plain one first."""
    enable(any_conn, "logs", "month")
    fill(any_dsn, 1, LATER, LATER)
    kill_before(any_dsn, "disable", "move")
    report = enable(any_conn, "logs", "month")
    assert report.result == "refused"
    (remedy,) = [one.remedy for one in report.findings if one.code == "inherited"]
    assert remedy.startswith("end that: auditlog partitions disable")


def test_table_of_others_that_inherits_is_left_alone(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """It was not a partition."""
    execute(any_dsn, "CREATE TABLE logstore.own () INHERITS (logstore.logs)")
    execute(any_dsn, "INSERT INTO logstore.own (instance_id, log_id) VALUES ('old', '1')")
    assert disable(any_conn, "logs").result == "already"
    assert fetch(any_dsn, "SELECT count(*) FROM logstore.own") == [1]


@pytest.mark.parametrize("stage", ["bound", "validate", "swap"])
def test_what_a_killed_enable_has_left_is_removed(any_dsn: str, stage: str) -> None:
    """Whoever does not want to go on can go back."""
    dsn = any_dsn
    with maintenance(dsn) as conn:
        before = facts(conn)
        kill_before(dsn, "enable", stage)
        assert disable(conn, "logs").result == "done"
        assert facts(conn) == before
        assert leftovers.find(conn, "logs") == []


def test_bound_whose_date_has_come_is_removed(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """Rows are accepted again."""
    bind(any_conn, "logs", Range(None, NOW - timedelta(days=1)))
    assert disable(any_conn, "logs").result == "done"
    fill(any_dsn, 1, NOW, NOW)
    assert stored(any_dsn, OLD) == 1


def test_row_that_was_replayed_meanwhile_is_stored_once(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """A spool that is read again while partitions are merged: the same row, in both places."""
    enable(any_conn, "logs", "month")
    fill(any_dsn, 10, LATER, LATER)
    kill_before(any_dsn, "disable", "move")
    fill(any_dsn, 10, LATER, LATER)
    report = disable(any_conn, "logs")
    assert stored(any_dsn, OLD) == 10
    assert report.rows_moved < 10


def test_rows_with_one_identity_are_both_kept(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """A plain table cannot have them; they stay to be read until somebody has decided."""
    fill(any_dsn, 1000, NOW, NOW)
    enable(any_conn, "logs", "month")
    copy = "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES ('t', '1', '{}')"
    for date in (NOW, LATER):
        execute(any_dsn, copy.format(date))
    with pytest.raises(PartitionError, match="have the identity of other rows"):
        disable(any_conn, "logs")
    count = "SELECT count(*) FROM logstore.logs WHERE instance_id = 't'"
    assert fetch(any_dsn, count) == [2]
    with any_conn.transaction():
        any_conn.execute("SET LOCAL auditlog.maintenance = 'on'")
        any_conn.execute(
            "UPDATE logstore.logs SET log_id = '2' WHERE instance_id = 't' AND log_date = %s",
            [LATER],
        )
    assert disable(any_conn, "logs").result == "done"
    assert fetch(any_dsn, count) == [2]


@pytest.mark.parametrize(
    ("setup", "code"),
    [
        ("CREATE TABLE logstore.other PARTITION OF {} DEFAULT", "foreign"),
        ("CREATE MATERIALIZED VIEW public.of_day AS SELECT log_date FROM {}", "dependent"),
    ],
)
def test_what_stands_in_the_way_is_told_and_nothing_is_changed(
    any_dsn: str, any_conn: psycopg.Connection[Any], setup: str, code: str
) -> None:
    """Each with its remedy."""
    enable(any_conn, "logs", "month")
    execute(any_dsn, setup.replace("{}", "logstore.logs"))
    before = facts(any_conn)
    report = disable(any_conn, "logs")
    human = {one.code: one.remedy for one in report.findings if one.severity == "human"}
    assert report.result == "refused"
    assert human.get(code)
    assert facts(any_conn) == before


def test_it_is_a_way_out_where_rows_have_no_partition(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """Not even the row that tells of it needs one."""
    enable(any_conn, "logs", "month")
    any_conn.execute("ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_legacy")
    with pytest.raises(psycopg.errors.CheckViolation, match="no partition"):
        fill(any_dsn, 1, NOW, NOW)
    assert disable(any_conn, "logs").result == "done"
    fill(any_dsn, 1, NOW, NOW)
    assert stored(any_dsn, OLD) == 1


def test_rows_that_are_hidden_are_not_taken_for_none(server: Server) -> None:
    """Who does not see them all would drop partitions that have some."""
    with server.role() as owner, server.database() as dsn:
        with maintenance(dsn) as conn:
            enable(conn, "logs", "month")
        fill(dsn, 5, LATER, LATER)
        execute(
            dsn,
            f"GRANT USAGE, CREATE ON SCHEMA logstore TO {owner};"
            f" ALTER TABLE logstore.logs OWNER TO {owner};"
            " ALTER TABLE logstore.logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        )
        with maintenance(as_role(dsn, owner)) as conn:
            report = disable(conn, "logs")
            assert report.result == "refused"
            assert "row_security" in {one.code for one in report.findings}
        assert stored(dsn, OLD) == 5


def test_budget_of_locks_is_looked_at_before(
    any_conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that runs out of them fails, and everybody else's with it."""
    enable(any_conn, "logs", "day", ahead=Span(days=9))
    monkeypatch.setattr("auditlog.partitions.conversion.preflight._LOCK_BUDGET", "SELECT 100")
    report = disable(any_conn, "logs")
    assert report.result == "refused"
    assert "locks" in {one.code for one in report.findings if one.severity == "human"}


def test_reader_that_does_not_end_holds_up_the_move_only(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """Rows stay where they are, to be read; and when the reader has ended the next run goes on."""
    fill(any_dsn, 1000, NOW, NOW)
    enable(any_conn, "logs", "month")
    fill(any_dsn, 10, LATER, LATER)
    with psycopg.connect(any_dsn) as reader:

        def hold(stage: str, _about: str) -> None:
            if stage == "move":
                reader.execute("SELECT count(*) FROM logstore.logs")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("auditlog.partitions.conversion.disabling.TRIES", 1)
            with pytest.raises(PartitionError, match="cannot be locked: process"):
                disable(any_conn, "logs", on_step=hold)
        assert stored(any_dsn, OLD) == 1010
    assert disable(any_conn, "logs").rows_moved >= 10
    assert stored(any_dsn, OLD) == 1010
