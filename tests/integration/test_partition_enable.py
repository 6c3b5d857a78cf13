import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from auditlog.errors import PartitionError
from auditlog.partitions.conversion import leftovers
from auditlog.partitions.conversion.bounding import Range, bind
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.conversion.preflight import MARGIN, end_of_legacy, examine
from auditlog.partitions.maintaining import maintain, preview
from auditlog.partitions.model import TableConfig
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.status import partitioned
from auditlog.partitions.windows import window
from auditlog.tables import TABLES
from conversion_scene import DRESSED, LIVE, OLD, clients, facts, fill, kill_before, stored, unread
from databases import Server, as_role
from trail import execute, fetch

NOW = datetime.now(UTC)
BEGUN = NOW - timedelta(days=90)
PARTS = """
    SELECT c.relname || ' ' || pg_get_expr(c.relpartbound, c.oid)
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'logstore.logs'::regclass ORDER BY c.oid
"""
EVENTS = "SELECT event_type FROM logstore.logs WHERE event_type LIKE 'audit.part%%' ORDER BY log_id"


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with maintenance(dsn) as conn:
        yield conn


@pytest.fixture
def any_conn(any_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with maintenance(any_dsn) as conn:
        yield conn


@pytest.fixture(scope="module")
def plain(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """A table to look at; every test leaves it as it was."""
    with server.database() as dsn, maintenance(dsn) as conn:
        yield conn


def test_rows_sent_while_a_table_is_enabled_are_stored(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """Nobody gets an error, and whoever counts the old rows counts all of them at any moment."""
    fill(dsn, 100_000, BEGUN, NOW)
    with clients(dsn) as seen:
        report = enable(conn, "logs", "month")
    assert report.result == "done"
    assert seen.errors == []
    assert seen.counts == {100_000}
    assert stored(dsn, LIVE) == seen.sent
    print(  # noqa: T201  # a figure to look at, and none to fail for
        f"waited {report.waited_s * 1e3:.1f} ms for the lock, held it {report.locked_s * 1e3:.1f}"
        f" ms; a client's slowest statement took {seen.slowest_s * 1e3:.1f} ms"
    )


def test_old_rows_become_the_first_partition_and_none_is_moved(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """The same file on disk, bounds without a gap, the settings and the deed written down."""
    fill(any_dsn, 10, BEGUN, NOW)
    (before,) = fetch(
        any_dsn, "SELECT relfilenode FROM pg_class WHERE oid = 'logstore.logs'::regclass"
    )
    report = enable(any_conn, "logs", "month", ahead=Span(months=6))
    (after,) = fetch(
        any_dsn, "SELECT relfilenode FROM pg_class WHERE oid = 'logstore.logs_legacy'::regclass"
    )
    assert before == after
    end = report.end_of_legacy
    assert end is not None
    assert end == end_of_legacy(any_conn, "logs", "month")
    parts = fetch(any_dsn, PARTS)
    assert f"logs_legacy FOR VALUES FROM ('-infinity') TO ('{end:%Y-%m-%d} 00:00:00+00')" in parts
    assert [part.split()[0] for part in parts if "legacy" not in part] == list(report.partitions)
    assert fetch(any_dsn, "SELECT logstore.covered_until('logs')") >= [Span(months=6).after(NOW)]
    known = "SELECT step || ' ' || ahead::text FROM logstore.partitioning WHERE table_name = 'logs'"
    assert fetch(any_dsn, known) == ["month 6 mons"]
    assert fetch(any_dsn, EVENTS) == ["audit.partitioning.enabled"]


@pytest.mark.parametrize("table", [table.name for table in TABLES])
def test_everything_that_a_table_has_is_there_afterwards(
    conn: psycopg.Connection[Any], table: str
) -> None:
    """All but the primary key, which each partition has for itself."""
    before = facts(conn, f"logstore.{table}")
    assert enable(conn, table, "week").result == "done"
    missing = before - facts(conn, f"logstore.{table}")
    assert {(kind, name.removeprefix("logstore.")) for kind, name, _ in missing} == {
        ("constraint", f"{table}_pkey"),
        ("index", f"{table}_pkey"),
    }
    assert facts(conn, f"logstore.{table}") <= before


def test_what_an_operator_has_added_is_there_afterwards(server: Server) -> None:
    """Columns, statistics, indexes, triggers, policies, grants, views, publications."""
    with server.role() as reader, server.database() as dsn:
        dress = sql.SQL(DRESSED).format(reader=sql.Identifier(reader))
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(dress)
        with maintenance(dsn) as conn:
            before = facts(conn)
            assert enable(conn, "logs", "month").result == "done"
            lost = {(kind, name) for kind, name, _ in before - facts(conn)}
        assert {name for _, name in lost} <= {"logs_pkey", "logstore.logs_pkey"}
        assert fetch(dsn, "SELECT prrelid::regclass::text FROM pg_publication_rel") == [
            "logstore.logs"
        ]
        fill(dsn, 5, NOW, NOW, tenant="mine")
        fill(dsn, 7, NOW, NOW, tenant="theirs")
        with psycopg.connect(as_role(dsn, reader), autocommit=True) as conn:
            conn.execute("SET app.tenant = 'mine'")
            assert conn.execute("SELECT count(*) FROM logstore.logs").fetchone() == (5,)
            # A partition that is named does not know its parent's policies.
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("SELECT count(*) FROM logstore.logs_legacy")


def test_old_rows_are_not_read_under_the_lock(conn: psycopg.Connection[Any]) -> None:
    """The server has the proof from before."""
    with unread(conn, "logs_legacy"):
        enable(conn, "logs", "month")


@pytest.mark.parametrize("name", ["logs", "logs_legacy", "logs_next"])
def test_rows_can_be_changed_nowhere(any_conn: psycopg.Connection[Any], name: str) -> None:
    """The guard is on the table, on the old partition, and on the ones to come."""
    made = enable(any_conn, "logs", "month").partitions
    place = made[0] if name == "logs_next" else name
    for statement in ("DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET message = ''"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            any_conn.execute(sql.SQL(statement).format(sql.Identifier("logstore", place)))


def test_enabling_again_changes_the_settings_only(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """The step is that of partitions to come, and the change is written down."""
    enable(any_conn, "logs", "month")
    parts = fetch(any_dsn, PARTS)
    assert enable(any_conn, "logs", "month").result == "already"
    assert enable(any_conn, "logs", "day").result == "already"
    assert fetch(any_dsn, PARTS) == parts
    assert fetch(any_dsn, "SELECT step FROM logstore.partitioning") == ["day"]
    assert fetch(any_dsn, EVENTS) == ["audit.partitioning.enabled", "audit.partitioning.changed"]


@pytest.mark.parametrize("step", ["day", "week", "month"])
def test_end_of_legacy_is_a_boundary_beyond_all_rows(any_dsn: str, step: Any) -> None:
    """And far enough from now for whoever was killed to come back; clocks ahead move it."""
    for latest in (BEGUN, NOW + MARGIN[step] / 3):
        fill(any_dsn, 3, latest - timedelta(hours=1), latest + timedelta(hours=1))
        with maintenance(any_dsn) as conn:
            end = end_of_legacy(conn, "logs", step)
        newest = max(NOW, latest)
        assert window(step, end)[0] == end
        assert newest + MARGIN[step] <= end <= newest + MARGIN[step] + timedelta(days=33)


@pytest.mark.parametrize(
    ("setup", "code"),
    [
        ("ALTER TABLE {} SET UNLOGGED", "unlogged"),
        ("CREATE TABLE public.child () INHERITS ({})", "inherited"),
        ("ALTER TABLE {} DROP CONSTRAINT logs_pkey", "key"),
        ("ALTER TABLE {} ADD number bigint GENERATED ALWAYS AS IDENTITY", "identity"),
        ("ALTER TABLE {} ADD number bigserial", "owned_sequence"),
        ("CREATE UNIQUE INDEX one ON {} (user_id)", "unique_index"),
        ("ALTER TABLE {} ADD CHECK (log_level > 0) NOT VALID", "unvalidated"),
        ("ALTER TABLE {} ADD CHECK (log_level > 0) NO INHERIT", "not_inherited"),
        (
            "CREATE TABLE public.tenants (id text PRIMARY KEY); ALTER TABLE {} ADD FOREIGN KEY"
            " (instance_id) REFERENCES public.tenants",
            "refers",
        ),
        (
            "CREATE TABLE public.notes (i text, l text, FOREIGN KEY (i, l) REFERENCES {})",
            "referred_to",
        ),
        ("CREATE MATERIALIZED VIEW public.of_day AS SELECT log_date FROM {}", "dependent"),
        ("CREATE TABLE public.copies (original {})", "dependent"),
        (
            "CREATE FUNCTION public.f() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM {}; END",
            "dependent",
        ),
        ("CREATE RULE quiet AS ON DELETE TO {} DO INSTEAD NOTHING", "rule"),
        ("CREATE PUBLICATION trail FOR TABLE {}", "publication_by_leaf"),
        ("CREATE PUBLICATION trail FOR ALL TABLES", "publication_by_leaf"),
        ("CREATE TABLE logstore.logs_legacy ()", "taken_name"),
        ("CREATE TABLE logstore.logs_partitioned ()", "taken_name"),
        (
            "ALTER TABLE {} ALTER log_date DROP NOT NULL;"
            " INSERT INTO {} (instance_id, log_id, log_date) VALUES ('t', '1', NULL)",
            "null_dates",
        ),
        (
            "INSERT INTO {} (instance_id, log_id, log_date) VALUES ('t', '1', 'infinity')",
            "infinite_dates",
        ),
        (
            "INSERT INTO {} (instance_id, log_id, log_date) VALUES ('t', '1', '20990101')",
            "future_dates",
        ),
        (
            "INSERT INTO {} (instance_id, log_id, log_date) VALUES ('t', '1', '200000-01-01')",
            "future_dates",
        ),
        ("ALTER TABLE {} DROP COLUMN message CASCADE", "missing_column"),
    ],
)
def test_what_stands_in_the_way_is_told_and_nothing_is_changed(
    plain: psycopg.Connection[Any], setup: str, code: str
) -> None:
    """By the look beforehand and by the deed alike, each with its remedy."""
    with plain.transaction(force_rollback=True):
        plain.execute(setup.replace("{}", "logstore.logs").encode())
        before = facts(plain)
        report = enable(plain, "logs", "month")
        found = examine(plain, "logs", "month")
        assert facts(plain) == before
    assert report.result == "refused"
    assert report.findings == tuple(found)
    human = {one.code: one.remedy for one in found if one.severity == "human"}
    assert human.get(code)


def test_invalid_index_stands_in_the_way(any_dsn: str, any_conn: psycopg.Connection[Any]) -> None:
    """It would be built anew while everybody waits."""
    fill(any_dsn, 2, NOW, NOW)
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(
            any_dsn, "CREATE UNIQUE INDEX CONCURRENTLY one ON logstore.logs (instance_id, log_date)"
        )
    assert "invalid_index" in {one.code for one in enable(any_conn, "logs", "month").findings}


def test_only_the_owner_can(server: Server) -> None:
    """Anybody else is told who that is."""
    with server.role() as stranger, server.database() as dsn:
        execute(dsn, f"GRANT USAGE ON SCHEMA logstore TO {stranger}")
        with maintenance(as_role(dsn, stranger)) as conn:
            report = enable(conn, "logs", "month")
    assert report.result == "refused"
    assert {"not_owner", "no_right"} == {one.code for one in report.findings}


def test_owner_need_be_no_superuser(server: Server) -> None:
    """Nor the owner of the schema: CREATE on it and the tables of maintenance are enough."""
    with server.role() as owner, server.database() as dsn:
        for statement in (
            "GRANT USAGE, CREATE ON SCHEMA logstore TO {0}",
            "ALTER TABLE logstore.logs OWNER TO {0}",
            "GRANT INSERT ON logstore.batches TO {0}",
            "GRANT ALL ON logstore.partitioning, logstore.retirements, logstore.holds TO {0}",
            "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA logstore TO {0}",
        ):
            execute(dsn, statement.format(owner))
        with maintenance(as_role(dsn, owner)) as conn:
            assert enable(conn, "logs", "month").result == "done"
        owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 'logs%%'"
        assert fetch(dsn, owners) == [owner]


def test_column_that_may_be_null_becomes_one_that_may_not(
    dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """Where no row has a null; nothing is looked at twice."""
    execute(dsn, "ALTER TABLE logstore.logs ALTER log_date DROP NOT NULL")
    fill(dsn, 3, BEGUN, NOW)
    assert enable(conn, "logs", "month").result == "done"
    assert stored(dsn, OLD) == 3


def test_rows_of_minus_infinity_are_taken_along(dsn: str, conn: psycopg.Connection[Any]) -> None:
    """Nothing is older than the first partition."""
    execute(
        dsn,
        "INSERT INTO logstore.logs (instance_id, log_id, log_date)"
        " VALUES ('old', '1', '-infinity'), ('old', '2', '4713-01-01 BC')",
    )
    assert enable(conn, "logs", "month").result == "done"
    assert stored(dsn, OLD) == 2


@pytest.mark.parametrize("stage", ["examine", "prepare", "bound", "validate", "swap"])
def test_killed_run_is_finished_by_the_next(any_dsn: str, stage: str) -> None:
    """Wherever it is killed rows are accepted, and afterwards nothing is left of it."""
    dsn = any_dsn
    fill(dsn, 100, BEGUN, NOW)
    kill_before(dsn, "enable", stage)
    fill(dsn, 100, NOW, NOW, tenant="between")
    with maintenance(dsn) as conn:
        assert enable(conn, "logs", "month").result == "done"
        assert leftovers.find(conn, "logs") == []
        constraints = [
            name for kind, name, _ in facts(conn, "logstore.logs_legacy") if kind == "constraint"
        ]
    assert "logs_partition_bound" not in constraints
    assert stored(dsn, OLD) + stored(dsn, "between") == 200
    assert fetch(dsn, "SELECT to_regclass('logstore.logs_partitioned')::text") == [None]


def test_proof_of_a_killed_run_is_used_again(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """A table of a terabyte is not read twice."""
    kill_before(any_dsn, "enable", "swap")
    end = "SELECT oid FROM pg_constraint WHERE conname = 'logs_partition_bound' AND convalidated"
    (left,) = fetch(any_dsn, end)
    kill_before(any_dsn, "enable", "swap")
    assert fetch(any_dsn, end) == [left]
    assert [one.code for one in leftovers.find(any_conn, "logs")] == ["bound_left", "scaffold_left"]


def test_bound_whose_date_has_come_is_replaced(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """It refuses every row; the next run takes it away, whatever it does then."""
    bind(any_conn, "logs", Range(None, NOW - timedelta(days=1)))
    with pytest.raises(psycopg.errors.CheckViolation, match="logs_partition_bound"):
        fill(any_dsn, 1, NOW, NOW)
    assert [one.code for one in leftovers.find(any_conn, "logs")] == ["bound_left"]
    assert enable(any_conn, "logs", "month").result == "done"
    fill(any_dsn, 1, NOW, NOW)
    assert stored(any_dsn, OLD) == 1


def test_maintenance_clears_what_a_killed_run_left(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """Or the bound would refuse every row, once its date has come."""
    kill_before(any_dsn, "enable", "swap")
    assert partitioned(any_conn) == ["logs"]
    config = {"logs": TableConfig("logs")}
    (shown,) = preview(any_dsn, config)
    assert shown.plan is not None
    codes = {finding.code for finding in shown.plan.findings}
    assert codes >= {"bound_left", "scaffold_left"}
    maintain(any_dsn, config)
    assert leftovers.find(any_conn, "logs") == []
    assert partitioned(any_conn) == []


def test_failed_run_leaves_nothing_behind(any_dsn: str, any_conn: psycopg.Connection[Any]) -> None:
    """Here a row comes between the look at the rows and the promise that there is none."""
    before = facts(any_conn)

    def add_row(stage: str, _about: str) -> None:
        if stage == "bound":
            fill(any_dsn, 1, NOW + timedelta(days=400), NOW + timedelta(days=400))

    with pytest.raises(PartitionError, match="run this again"):
        enable(any_conn, "logs", "month", on_step=add_row)
    assert facts(any_conn) == before
    assert leftovers.find(any_conn, "logs") == []


def test_two_at_once_do_not_meet(any_dsn: str, any_conn: psycopg.Connection[Any]) -> None:
    """The second is told that the first is at work."""

    def second(stage: str, _about: str) -> None:
        if stage == "swap":
            with maintenance(any_dsn) as other:
                assert enable(other, "logs", "month").result == "busy"

    assert enable(any_conn, "logs", "month", on_step=second).result == "done"


def test_swap_waits_in_short_turns_for_who_has_the_table(
    any_dsn: str, any_conn: psycopg.Connection[Any]
) -> None:
    """A reader that does not end holds the swap up, and a writer only for as long as one turn."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
        " AND relation = 'logstore.logs'::regclass"
    )
    with psycopg.connect(any_dsn) as reader:

        def hold(stage: str, _about: str) -> None:
            if stage == "swap":
                reader.execute("SELECT FROM logstore.logs LIMIT 1")

        def run() -> None:
            reports.append(enable(any_conn, "logs", "month", on_step=hold))

        reports: list[Any] = []
        thread = threading.Thread(target=run)
        thread.start()
        while fetch(any_dsn, waiting) != [1]:
            assert thread.is_alive()
        fill(any_dsn, 1, NOW, NOW)  # queues behind the swap until its turn is over
        assert not reports
        reader.rollback()
        thread.join(30)
    assert [report.result for report in reports] == ["done"]
    assert stored(any_dsn, OLD) == 1
