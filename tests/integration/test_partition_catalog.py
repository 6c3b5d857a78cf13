"""What the catalog of a real server says of a table, whoever has cut it and whoever asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from auditlog.errors import PartitionError
from auditlog.partitions.model import Hold, Leaf, Plan, TableConfig, TableState
from auditlog.partitions.planning import plan
from auditlog.partitions.reading.catalog import read
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from databases import Server, as_role
from retiring_scene import cut, fill, month, partition

LOGS = TableConfig("logs")


def seen(dsn: str, config: TableConfig = LOGS) -> TableState:
    with maintenance(dsn) as conn:
        return read(conn, config)


def planned(state: TableState, config: TableConfig = LOGS) -> Plan:
    return plan(state, config, host_now=state.now)


def names(state: TableState) -> list[str]:
    return [leaf.name for leaf in state.leaves]


@contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def run(dsn: str, *statements: str) -> None:
    with connected(dsn) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def bounds(ago: int) -> str:
    return f"FROM ('{month(ago).isoformat()}') TO ('{month(ago - 1).isoformat()}')"


def test_a_plain_table_is_one(dsn: str) -> None:
    """As every database has it before anything is enabled."""
    state = seen(dsn)
    assert not state.is_partitioned
    assert (state.leaves, state.unread, state.standing_down) == ((), {}, None)
    assert abs(state.now - datetime.now(UTC)) < timedelta(minutes=1)


def test_partitions_are_read_in_order_with_bounds_and_sizes(dsn: str) -> None:
    """And nothing is wrong with what was made a moment ago."""
    cut(dsn, [2, 0, 1, -1])
    fill(dsn, 1, 1000)
    state = seen(dsn)
    assert names(state) == [partition(ago) for ago in (2, 1, 0, -1)]
    assert [(leaf.lower, leaf.upper) for leaf in state.leaves] == [
        (month(ago), month(ago - 1)) for ago in (2, 1, 0, -1)
    ]
    empty, full, *_ = state.leaves
    assert full.size_bytes > empty.size_bytes > 0
    assert state.size_bytes >= sum(leaf.size_bytes for leaf in state.leaves)
    assert {leaf.drift for leaf in state.leaves} == {()}
    assert (state.step, state.ahead, state.maintained_at) == ("month", Span(months=3), None)
    assert state.locks_needed > 4 * 8
    assert state.locks_available >= 6400
    assert (state.foreign, state.default, state.retired_until) == ((), None, None)
    assert not state.is_analyzed


def test_rows_are_estimated_and_the_table_is_analysed(any_dsn: str) -> None:
    """By the planner's figures, after ANALYZE."""
    cut(any_dsn, [1, 0])
    fill(any_dsn, 1, 50)
    assert [leaf.rows for leaf in seen(any_dsn).leaves] == [-1, -1]
    run(any_dsn, "ANALYZE logstore.logs")
    state = seen(any_dsn)
    assert [leaf.rows for leaf in state.leaves] == [50, 0]
    assert state.is_analyzed


def test_settings_of_the_database_do_not_matter(any_dsn: str) -> None:
    """A time zone with minutes, and dates that are written the other way round."""
    cut(any_dsn, [1, 0, -1])
    before = seen(any_dsn)
    name = psycopg.conninfo.conninfo_to_dict(any_dsn)["dbname"]
    for setting in ("timezone = 'Asia/Kathmandu'", "datestyle = 'SQL, DMY'", "search_path = x"):
        run(any_dsn, f'ALTER DATABASE "{name}" SET {setting}')
    after = seen(any_dsn)
    assert replace(after, now=before.now, connections=before.connections) == before


def test_what_is_none_of_ours_is_told_with_the_reason(dsn: str) -> None:
    """And its range is nobody else's."""
    cut(dsn, [0])
    part = "CREATE TABLE {} PARTITION OF logstore.logs FOR VALUES {} {}"
    far = "FROM (MINVALUE) TO ('2001-01-01 00:00:00+00')"
    run(
        dsn,
        "CREATE SCHEMA other",
        part.format("logstore.unmarked", bounds(1), ""),
        part.format("logstore.divided", bounds(2), "PARTITION BY HASH (instance_id)"),
        part.format("other.elsewhere", bounds(3), ""),
        "CREATE UNLOGGED TABLE logstore.unlogged (LIKE logstore.logs INCLUDING ALL)",
        f"ALTER TABLE logstore.logs ATTACH PARTITION logstore.unlogged FOR VALUES {bounds(4)}",
        part.format("logstore.lowest", far, ""),
        "COMMENT ON TABLE logstore.lowest IS 'auditlog partition of logs'",
        part.format("logstore.highest", f"FROM ('{month(-9).isoformat()}') TO (MAXVALUE)", ""),
        "COMMENT ON TABLE logstore.highest IS 'auditlog partition of logs'",
    )
    state = seen(dsn)
    assert names(state) == [partition(0)]
    found = {each.name: (each.why, each.lower, each.upper) for each in state.foreign}
    assert found == {
        "unmarked": ("it does not bear this package's mark", month(1), month(0)),
        "divided": ("it is partitioned itself", month(2), month(1)),
        "elsewhere": ("it is in schema other", month(3), month(2)),
        "unlogged": ("it is unlogged: a crash of the server empties it", month(4), month(3)),
        "lowest": ("its lower bound is MINVALUE", None, datetime(2001, 1, 1, tzinfo=UTC)),
        "highest": ("its upper bound is MAXVALUE", month(-9), None),
    }


def test_a_default_is_looked_into(any_dsn: str) -> None:
    """Rows, and from when to when; not where Python has no such dates."""
    cut(any_dsn, [1, 0, -1], default=True)
    assert seen(any_dsn).default is not None
    assert getattr(seen(any_dsn).default, "rows", None) == 0
    insert = "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES ('t', '{}', '{}')"
    run(any_dsn, insert.format(1, month(3)), insert.format(2, month(2) + timedelta(days=1)))
    default = seen(any_dsn).default
    assert default is not None
    assert (default.name, default.rows) == ("logs_rest", 2)
    assert (default.first, default.last) == (month(3), month(2) + timedelta(days=1))
    run(any_dsn, insert.format(3, "infinity"))
    default = seen(any_dsn).default
    assert default is not None
    assert (default.rows, default.first, default.last) == (3, None, None)


def test_an_interrupted_detach_is_seen(dsn: str) -> None:
    """Though PostgreSQL's own function for partitions leaves it out."""
    cut(dsn, [2, 1, 0])
    with psycopg.connect(dsn) as reader, connected(dsn) as conn:
        reader.execute("SELECT count(*) FROM logstore.logs")
        conn.execute("SET statement_timeout = '500ms'")
        detach = f"DETACH PARTITION logstore.{partition(2)} CONCURRENTLY"
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute(f"ALTER TABLE logstore.logs {detach}".encode())
    assert [leaf.is_detaching for leaf in seen(dsn).leaves] == [True, False, False]


def test_names_and_orphans_are_found(any_dsn: str) -> None:
    """What is in a partition's way, and what used to be one."""
    cut(any_dsn, [2, 1, 0])
    run(
        any_dsn,
        "CREATE VIEW logstore.logs_p209901 AS SELECT 1",
        "CREATE TABLE logstore.logs_p20990203 ()",
        "CREATE TABLE logstore.logs_p209901_notes ()",
        f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{partition(2)}",
    )
    state = seen(any_dsn)
    assert state.taken_names == {
        "logs_p209901": "view",
        "logs_p20990203": "table",
        partition(2): "table",
    }
    (orphan,) = state.retirements
    assert (orphan.retirement_id, orphan.partition, orphan.exists) == (None, partition(2), True)


RETIREMENT = (
    "INSERT INTO logstore.retirements (retirement_id, table_name, partition_name, partition_oid,"
    " instance_id, lower_bound, upper_bound, state)"
    " VALUES (gen_random_uuid(), 'logs', %s, %s, %s, %s, %s, %s)"
)


def test_what_is_recorded_is_read(any_dsn: str) -> None:
    """Holds that were not released, retirements that are not over, and where they have come to."""
    cut(any_dsn, [1, 0])
    (leaf, _) = seen(any_dsn).leaves
    with connected(any_dsn) as conn:
        conn.execute(
            "INSERT INTO logstore.holds (hold_id, table_name, instance_id, from_date, until_date,"
            " reason, released_at) VALUES"
            " ('00000000-0000-4000-8000-000000000001', NULL, 't', '-infinity', 'infinity', 'a',"
            "  NULL),"
            " ('00000000-0000-4000-8000-000000000002', 'logs', NULL, '2026-01-01 00:00+00',"
            "  '10000-01-01', 'b', NULL),"
            " (gen_random_uuid(), 'quota_logs', NULL, '-infinity', 'infinity', 'other', NULL),"
            " (gen_random_uuid(), NULL, NULL, '-infinity', 'infinity', 'over', now())"
        )
        for entry in (
            ("logs_legacy", 7, None, "-infinity", month(9), "dropped"),
            ("logs_gone", 8, None, month(9), month(8), "archived"),
            ("logs_back", 9, None, month(7), month(6), "attached"),
            (leaf.name, leaf.oid, "t", leaf.lower, leaf.upper, "deleting"),
        ):
            conn.execute(RETIREMENT, entry)
        conn.execute("UPDATE logstore.partitioning SET ahead = '1 year 2 months 3 days 4 hours'")
    state = seen(any_dsn)
    assert [replace(hold, hold_id="") for hold in state.holds] == [
        Hold("", None, "t", None, None, "a"),
        Hold("", "logs", None, datetime(2026, 1, 1, tzinfo=UTC), None, "b"),
    ]
    assert [(each.partition, each.exists, each.is_attached) for each in state.retirements] == [
        ("logs_gone", False, False),
        (leaf.name, True, True),
    ]
    assert state.retired_until == month(8)
    assert state.ahead == Span(months=14, days=4)


def test_tenants_are_looked_for_below_their_cutoff(any_dsn: str) -> None:
    """In closed partitions, and in one that the cutoff lies in for what is before it."""
    cut(any_dsn, [3, 2, 1, 0])
    for ago in (3, 2, 0):
        fill(any_dsn, ago, 10, tenant="a")
    fill(any_dsn, 1, 10, tenant="b")
    config = replace(LOGS, tenants={"a": Span(days=8), "b": Span(months=9), "c": Span(days=8)})
    found = {partition(3): frozenset({"a"}), partition(2): frozenset({"a"})}
    assert seen(any_dsn, config).tenants_present == found
    now = seen(any_dsn).now
    straddled = month(2) + timedelta(days=1)
    days = (now - straddled).days
    assert seen(any_dsn, replace(LOGS, tenants={"a": Span(days=days)})).tenants_present == found
    younger = {"a": Span(days=days + 2)}
    del found[partition(2)]
    assert seen(any_dsn, replace(LOGS, tenants=younger)).tenants_present == found


def test_any_name_of_a_partition_is_read(any_dsn: str) -> None:
    """Also one that looks like a place for a parameter."""
    cut(any_dsn, [3, 0], default=True)
    fill(any_dsn, 3, 10, tenant="a")
    fill(any_dsn, 9, 1)
    odd = '%s %(tenants)s {} "$1"'
    for name in (partition(3), "logs_rest"):
        quoted = f'"{name} {odd}"'.replace('"$1"', '""$1""')
        run(any_dsn, f"ALTER TABLE logstore.{name} RENAME TO {quoted}")
    state = seen(any_dsn, replace(LOGS, tenants={"a": Span(days=8)}))
    assert state.unread == {}
    assert state.tenants_present == {f"{partition(3)} {odd}": frozenset({"a"})}
    assert state.default is not None
    assert state.default.rows == 1


def test_locked_tables_hold_nothing_up(dsn: str) -> None:
    """Nor does the table itself; only sizes are not known then, and that is said."""
    cut(dsn, [1, 0])
    with psycopg.connect(dsn) as other, maintenance(dsn) as conn:
        other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
        conn.execute("SET lock_timeout = '50ms'")
        state = read(conn, LOGS)
    assert names(state) == [partition(1), partition(0)]
    assert list(state.unread) == ["sizes"]
    assert "create" in {operation.kind for operation in planned(state).operations}


def test_rows_that_are_locked_are_left_for_the_next_run(any_dsn: str) -> None:
    """Those of a DEFAULT and those of tenants."""
    cut(any_dsn, [1, 0], default=True)
    fill(any_dsn, 1, 5, tenant="a")
    fill(any_dsn, 3, 5)
    config = replace(LOGS, tenants={"a": Span(days=7)})
    with psycopg.connect(any_dsn) as other, maintenance(any_dsn) as conn:
        other.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
        conn.execute("SET lock_timeout = '50ms'")
        state = read(conn, config)
    assert set(state.unread) == {"sizes", "rows of logs_rest", "rows of tenants"}
    assert (state.default and state.default.rows, state.tenants_present) == (None, {})


def test_a_role_that_may_read_catalogs_only_is_told_so(any_server: Server) -> None:
    """It sees the partitions, gets no plan, and learns what it lacks."""
    with any_server.role() as role, any_server.database() as dsn:
        cut(dsn, [1, 0], default=True)
        fill(dsn, 3, 1)
        config = replace(LOGS, tenants={"a": Span(days=8)})
        state = seen(as_role(dsn, role), config)
        assert names(state) == [partition(1), partition(0)]
        assert set(state.unread) == {
            "partitioning",
            "holds",
            "retirements",
            "rows of logs_rest",
            "rows of tenants",
        }
        result = planned(state, config)
        assert result.operations == ()
        remedies = [each.remedy for each in result.findings if each.code == "unread"]
        assert any("GRANT SELECT ON logstore.holds TO" in remedy for remedy in remedies)
        run(dsn, f"GRANT USAGE ON SCHEMA logstore TO {role}")
        for name in ("partitioning", "holds", "retirements"):
            run(dsn, f"GRANT SELECT ON logstore.{name} TO {role}")
        assert planned(seen(as_role(dsn, role), config), config).operations != ()


def test_sessions_in_the_way_are_named(any_dsn: str) -> None:
    """Once their transaction is older than a second; nothing of their query but its first words."""
    cut(any_dsn, [1, 0])
    with psycopg.connect(any_dsn, application_name="analyst") as reader:
        reader.execute("SELECT count(*), pg_sleep(1.1), 'secret' FROM logstore.logs")
        (blocker,) = seen(any_dsn).blockers
    assert blocker.application == "analyst"
    assert blocker.relation in ("logs", partition(1), partition(0))
    assert "secret" not in blocker.query


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (
            [
                "CREATE SCHEMA timescaledb_information",
                "CREATE TABLE timescaledb_information.hypertables"
                " (hypertable_schema name, hypertable_name name)",
                "INSERT INTO timescaledb_information.hypertables VALUES ('logstore', 'logs')",
            ],
            "TimescaleDB",
        ),
        (
            [
                "SET allow_system_table_mods = on",
                "CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass)",
                "INSERT INTO pg_catalog.pg_dist_partition VALUES ('logstore.logs')",
            ],
            "Citus",
        ),
        (
            [
                'CREATE SCHEMA "100%s"',
                'CREATE TABLE "100%s".part_config (parent_table text)',
                """INSERT INTO "100%s".part_config VALUES ('logstore.logs')""",
            ],
            "pg_partman",
        ),
        (["ALTER TABLE logstore.logs RENAME COLUMN log_date TO day"], "RANGE (day)"),
        (
            [
                "DROP TABLE logstore.logs",
                "CREATE TABLE logstore.logs (log_date timestamptz, name text)"
                " PARTITION BY HASH (log_date, lower(name))",
            ],
            "HASH (log_date, an expression)",
        ),
    ],
)
def test_a_table_of_somebody_else_is_left_alone(
    any_dsn: str, statements: list[str], named: str
) -> None:
    """Whoever manages it, whatever is to be done; the other tables are not his."""
    cut(any_dsn, [1])
    run(any_dsn, *statements)
    state = seen(any_dsn)
    assert named in str(state.standing_down)
    assert planned(state).operations == ()
    assert seen(any_dsn, TableConfig("quota_logs")).standing_down is None


def test_a_schema_that_is_missing_is_told(empty_dsn: str) -> None:
    """With the command that makes it."""
    with maintenance(empty_dsn) as conn, pytest.raises(PartitionError, match="auditlog migrate"):
        read(conn, LOGS)


def test_an_older_schema_is_told(any_dsn: str) -> None:
    """Likewise."""
    run(any_dsn, "DROP TABLE logstore.holds")
    with maintenance(any_dsn) as conn, pytest.raises(PartitionError, match="auditlog migrate"):
        read(conn, LOGS)


def test_a_plan_is_made_from_what_is_there(dsn: str) -> None:
    """The names, bounds and identities of the partitions that a run is going to touch."""
    cut(dsn, [6, 5, 2, 1, 0, -1])
    config = replace(LOGS, retain=Span(months=3), drop_without_archive=True)
    state = seen(dsn, config)
    result = planned(state, config)
    by_kind: dict[str, list[str]] = {}
    for operation in result.operations:
        by_kind.setdefault(operation.kind, []).append(operation.partition)
    assert by_kind["detach"] == [partition(6), partition(5)]
    assert by_kind["create"][:2] == [partition(-2), partition(-3)]
    leaves: dict[str, Leaf] = {leaf.name: leaf for leaf in state.leaves}
    for operation in result.operations:
        if operation.kind == "detach":
            leaf = leaves[operation.partition]
            assert (operation.oid, operation.lower, operation.upper) == (
                leaf.oid,
                leaf.lower,
                leaf.upper,
            )
