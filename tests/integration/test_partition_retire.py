from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from auditlog.partitions import locking
from auditlog.partitions.applying import apply
from auditlog.partitions.archive import verify
from auditlog.partitions.model import OperationKind, Outcome
from auditlog.partitions.retention import deleting, detaching, retiring
from auditlog.partitions.retention.holding import place, release
from auditlog.partitions.session import maintenance
from databases import Server, as_role
from retiring_scene import (
    OLDER,
    OLDEST,
    QUICK,
    attached,
    cut_server,
    fill,
    month,
    operation,
    partition,
    states,
    tables,
    told,
)

DEFAULT = "CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT"
LEAF = sql.Identifier("logstore", partition(OLDEST))
IMPLIED = "implied by existing constraints"


@pytest.fixture(scope="module")
def cut_database(server: Server) -> Iterator[Server]:
    with cut_server(server) as cut:
        yield cut


@pytest.fixture(scope="module")
def any_cut_database(any_server: Server) -> Iterator[Server]:
    with cut_server(any_server) as cut:
        yield cut


@pytest.fixture
def dsn(cut_database: Server) -> Iterator[str]:
    with cut_database.database() as dsn:
        yield dsn


@pytest.fixture
def any_dsn(any_cut_database: Server) -> Iterator[str]:
    with any_cut_database.database() as dsn:
        yield dsn


@pytest.fixture
def conn(any_dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with maintenance(any_dsn) as conn:
        yield conn


@pytest.fixture
def each_conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with maintenance(dsn) as conn:
        yield conn


@pytest.fixture(scope="module")
def unchanged(any_cut_database: Server) -> Iterator[psycopg.Connection[Any]]:
    """For tests of what is not done: every one leaves it as it was."""
    with any_cut_database.database() as dsn, maintenance(dsn) as conn:
        yield conn


def done(
    conn: psycopg.Connection[Any], kind: Any, ago: int = OLDEST, config: Any = QUICK, **more: Any
) -> Outcome:
    """Do one step about the partition of a month."""
    return apply(conn, operation(conn, kind, ago, **more), config)


def change(conn: psycopg.Connection[Any], statement: LiteralString) -> None:
    """Do something to the oldest partition, as its owner."""
    with conn.transaction():
        conn.execute("SET LOCAL auditlog.maintenance = 'on'")
        conn.execute(sql.SQL(statement).format(LEAF))


def count(conn: psycopg.Connection[Any], table: str) -> int:
    row = conn.execute(
        sql.SQL("SELECT count(*) FROM logstore.{}").format(sql.Identifier(table))
    ).fetchone()
    assert row is not None
    return int(row[0])


def rows_of(conn: psycopg.Connection[Any], ago: int) -> int:
    """Rows of a month as whoever reads the table sees them."""
    row = conn.execute(
        "SELECT count(*) FROM logstore.logs WHERE log_date >= %s AND log_date < %s",
        [month(ago), month(ago - 1)],
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_detached_partition_is_nobodys_and_accounted_for(
    each_conn: psycopg.Connection[Any],
) -> None:
    """Its rows are counted, its rights are gone, and the trail tells of it."""
    change(each_conn, "GRANT SELECT ON {} TO PUBLIC")
    change(each_conn, "GRANT UPDATE (message) ON {} TO PUBLIC")
    outcome = done(each_conn, "detach")
    assert (outcome.result, outcome.rows) == ("done", 100)
    assert partition(OLDEST) not in attached(each_conn)
    assert states(each_conn) == [(partition(OLDEST), "detached", 100, False)]
    assert rows_of(each_conn, OLDEST) == 0
    acl = each_conn.execute(
        "SELECT (SELECT count(*) FROM aclexplode(relacl) WHERE grantee <> relowner),"
        " (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND attacl IS NOT NULL)"
        " FROM pg_class AS c WHERE oid = %s::oid",
        [operation(each_conn, "drop", OLDEST).oid],
    ).fetchone()
    assert acl == (0, 0)
    (evidence,) = told(each_conn, "audit.partition.detached")
    assert evidence == {
        "audit.partition": partition(OLDEST),
        "audit.lower": month(OLDEST).isoformat(),
        "audit.upper": month(OLDEST - 1).isoformat(),
        "audit.rows": 100,
    }


def test_dates_that_python_does_not_know_are_counted(any_dsn: str) -> None:
    """A legacy partition begins at -infinity, and so may its rows."""
    with maintenance(any_dsn) as conn:
        conn.execute(
            "SELECT logstore.make_partition('logstore.logs', 'logs_legacy', '-infinity', %s)",
            [month(OLDEST)],
        )
        conn.execute(
            "INSERT INTO logstore.logs (instance_id, log_id, log_date)"
            " VALUES ('t', '1', '-infinity'), ('t', '2', '4713-01-01 BC')"
        )
        legacy = replace(
            operation(conn, "detach", OLDEST),
            partition="logs_legacy",
            lower=None,
            upper=month(OLDEST),
            oid=conn.execute("SELECT 'logstore.logs_legacy'::regclass::oid::bigint").fetchone()[0],  # type: ignore[index]
        )
        assert apply(conn, legacy, QUICK).rows == 2
        assert apply(conn, replace(legacy, kind="attach"), QUICK).result == "done"
        assert apply(conn, legacy, QUICK).rows == 2
        assert apply(conn, replace(legacy, kind="drop"), QUICK).rows == 2
        first = conn.execute(
            "SELECT DISTINCT first_log_date::text, lower_bound::text FROM logstore.retirements"
        ).fetchall()
    assert first == [("-infinity", "-infinity")]


def test_a_default_partition_makes_the_detach_a_plain_one(dsn: str) -> None:
    """PostgreSQL detaches nothing concurrently beside a DEFAULT (55000)."""
    with maintenance(dsn) as conn:
        conn.execute(DEFAULT)
        outcome = done(conn, "detach")
        assert (outcome.result, outcome.rows) == ("done", 100)
        assert states(conn) == [(partition(OLDEST), "detached", 100, False)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"oid": 1}, "another table"),
        ({"partition": "logs_p190001"}, "no table"),
        ({"upper": month(OLDEST - 1) - timedelta(days=1)}, "other bounds"),
        ({"lower": None}, "other bounds"),
    ],
)
@pytest.mark.parametrize("kind", ["detach", "delete"])
def test_partition_that_is_not_what_was_planned_is_left_alone(
    unchanged: psycopg.Connection[Any], kind: Any, change: dict[str, Any], said: str
) -> None:
    """Its OID, name and bounds are compared in the transaction that would do it."""
    planned = operation(unchanged, kind, OLDEST, tenant="tenant", before=month(1))
    outcome = apply(unchanged, replace(planned, **change), QUICK)
    assert outcome.result == "refused"
    assert said in outcome.detail
    assert rows_of(unchanged, OLDEST) == 100


def test_partition_without_our_mark_is_left_alone(conn: psycopg.Connection[Any]) -> None:
    """Whoever took the mark away wants to keep it."""
    change(conn, "COMMENT ON TABLE {} IS 'mine'")
    for kind in ("detach", "delete"):
        outcome = done(conn, kind, tenant="tenant", before=month(1))
        assert outcome.result == "refused"
        assert "mark" in outcome.detail
    assert rows_of(conn, OLDEST) == 100


@pytest.mark.parametrize("kind", ["detach", "delete"])
def test_partition_that_still_takes_rows_is_left_alone(
    unchanged: psycopg.Connection[Any], kind: Any
) -> None:
    """Whatever a plan says: the server's clock has the last word."""
    outcome = done(unchanged, kind, 0, tenant="tenant", before=month(-1))
    assert (outcome.result, "still takes rows" in outcome.detail) == ("refused", True)


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"table": "logs"},
        {"instance_id": "tenant"},
        {"end": month(OLDEST) + timedelta(seconds=1)},
        {"start": month(OLDEST - 1) - timedelta(seconds=1)},
    ],
)
def test_hold_keeps_a_partition(conn: psycopg.Connection[Any], held: dict[str, Any]) -> None:
    """From being detached, dropped or robbed of a tenant's rows, until it is released."""
    planned = {"tenant": "tenant", "before": month(OLDEST - 1)}
    done(conn, "detach", OLDER)
    hold = place(conn, reason="file 4711", **held)
    for kind in ("detach", "delete"):
        outcome = done(conn, kind, **planned)
        assert (outcome.result, hold.hold_id in outcome.detail) == ("refused", True)
    assert rows_of(conn, OLDEST) == 100
    assert conn.execute("SELECT count(*) FROM logstore.retirements").fetchone() == (1,)
    release(conn, hold.hold_id, reason="settled")
    assert done(conn, "delete", **planned).rows == 100
    assert done(conn, "detach").result == "done"


@pytest.mark.parametrize(
    "held",
    [
        {"table": "quota_logs"},
        {"end": month(OLDEST)},
        {"start": month(OLDEST - 1)},
    ],
)
def test_hold_on_something_else_keeps_nothing(
    conn: psycopg.Connection[Any], held: dict[str, Any]
) -> None:
    """Bounds of holds, like those of partitions, exclude their upper end."""
    place(conn, reason="file 4711", **held)
    assert done(conn, "detach").result == "done"
    assert done(conn, "drop").result == "done"


def test_dropped_partition_leaves_its_story(each_conn: psycopg.Connection[Any]) -> None:
    """The entry ends and the trail tells, in the transaction of the DROP; a second drop is none."""
    planned = operation(each_conn, "drop", OLDEST)
    done(each_conn, "detach")
    outcome = apply(each_conn, planned, QUICK)
    assert (outcome.result, outcome.rows) == ("done", 100)
    assert partition(OLDEST) not in tables(each_conn)
    assert states(each_conn) == [(partition(OLDEST), "dropped", 100, True)]
    (evidence,) = told(each_conn, "audit.partition.dropped")
    assert (evidence["audit.partition"], evidence["audit.rows"]) == (partition(OLDEST), 100)
    assert apply(each_conn, planned, QUICK).result == "already"


def test_nothing_is_dropped_that_was_not_archived(conn: psycopg.Connection[Any]) -> None:
    """Unless the settings say so; nor what is still attached."""
    careful = replace(QUICK, drop_without_archive=False)
    attached_still = done(conn, "drop", config=careful)
    assert (attached_still.result, rows_of(conn, OLDEST)) == ("refused", 100)
    done(conn, "detach")
    outcome = done(conn, "drop", config=careful)
    assert (outcome.result, "detached, not archived" in outcome.detail) == ("refused", True)
    assert done(conn, "drop", config=replace(QUICK, archive="/elsewhere")).result == "refused"
    assert count(conn, partition(OLDEST)) == 100


def test_archived_partition_is_dropped(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    """The entry says where it is, and what is there agrees."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    assert [done(conn, kind, config=config).result for kind in ("detach", "archive", "drop")] == [
        "done"
    ] * 3
    entry = conn.execute(
        "SELECT archive_uri, manifest_sha256, checksum, rows FROM logstore.retirements"
    ).fetchone()
    assert entry is not None
    verified = verify(entry[0], known=[entry[1]])
    assert (verified.problem, entry[3]) == (None, 100)
    (evidence,) = told(conn, "audit.partition.dropped")
    assert (evidence["audit.archive"], evidence["audit.checksum"]) == (entry[0], entry[2])


def test_late_row_refuses_the_drop_and_is_archived_by_the_next_run(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Row and checksum are compared under the lock of the drop."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    done(conn, "detach", config=config)
    done(conn, "archive", config=config)
    change(
        conn,
        "INSERT INTO {0} (instance_id, log_id, log_date)"
        " SELECT 'late', log_id, log_date FROM {0} LIMIT 1",
    )
    outcome = done(conn, "drop", config=config)
    assert (outcome.result, "101 rows" in outcome.detail) == ("refused", True)
    assert states(conn) == [(partition(OLDEST), "detached", 100, False)]
    assert done(conn, "archive", config=config).rows == 101
    assert done(conn, "drop", config=config).rows == 101


def test_changed_row_refuses_the_drop(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    """As many rows are not the same rows."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    done(conn, "detach", config=config)
    done(conn, "archive", config=config)
    change(conn, "UPDATE {} SET message = 'another'")
    assert done(conn, "drop", config=config).result == "refused"
    assert count(conn, partition(OLDEST)) == 100


def test_archive_of_an_earlier_run_is_read_again_before_the_drop(
    conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Whatever happened to it meanwhile: without it nothing is dropped."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    done(conn, "detach", config=config)
    done(conn, "archive", config=config)
    (data,) = [path for path in tmp_path.rglob("*") if path.is_file() and "data" in path.name]
    data.write_bytes(data.read_bytes()[:-9] + b"\x00" + data.read_bytes()[-8:])
    outcome = done(conn, "drop", config=config, retirement_id="of an earlier run")
    assert (outcome.result, "not whole any more" in outcome.detail) == ("refused", True)
    assert states(conn) == [(partition(OLDEST), "detached", 100, False)]


@pytest.mark.parametrize("moved", [{"lower": month(OLDEST + 9)}, {"upper": month(OLDEST)}])
def test_bounds_that_are_not_those_of_the_rows_lead_past_no_hold(
    conn: psycopg.Connection[Any], moved: dict[str, datetime]
) -> None:
    """A detached partition has its bounds from its entry, and that can be changed by hand."""
    done(conn, "detach")
    place(conn, start=month(OLDEST), end=month(OLDEST - 1), reason="file 4711")
    bounds = {"lower": month(OLDEST + 8), "upper": month(OLDEST + 7), **moved}
    conn.execute(
        "UPDATE logstore.retirements SET lower_bound = %(lower)s, upper_bound = %(upper)s", bounds
    )
    outcome = apply(conn, replace(operation(conn, "drop", OLDEST), **bounds), QUICK)
    assert (outcome.result, "set them right" in outcome.detail) == ("refused", True)
    assert count(conn, partition(OLDEST)) == 100


def test_hold_that_is_being_placed_is_seen_by_the_drop(
    conn: psycopg.Connection[Any], any_dsn: str
) -> None:
    """The drop waits for the transaction of the hold, and then sees it."""
    done(conn, "detach")
    drop = operation(conn, "drop", OLDEST)
    patient = replace(QUICK, lock_timeout_s=20)
    with maintenance(any_dsn) as other, ThreadPoolExecutor(1) as thread:
        with other.transaction():
            other.execute(
                "INSERT INTO logstore.holds (hold_id, reason) VALUES (gen_random_uuid(), 'file')"
            )
            dropping = thread.submit(apply, conn, drop, patient)
            while not (dropping.done() or _waits(other, conn.info.backend_pid)):
                other.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.005)")
        outcome = dropping.result(20)
    assert (outcome.result, "hold" in outcome.detail) == ("refused", True)
    assert count(conn, partition(OLDEST)) == 100


def _waits(conn: psycopg.Connection[Any], pid: int) -> bool:
    """Tell whether a session waits for a lock."""
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    return conn.execute(query, [pid]).fetchone() == (True,)


def test_drop_takes_nothing_along(conn: psycopg.Connection[Any]) -> None:
    """A view on the partition is somebody's; the outcome says what to do about it."""
    done(conn, "detach")
    change(conn, "CREATE VIEW public.mine AS SELECT log_id FROM {}")
    outcome = done(conn, "drop")
    assert (outcome.result, "view" in outcome.detail) == ("failed", True)
    assert count(conn, partition(OLDEST)) == 100
    assert states(conn) == [(partition(OLDEST), "detached", 100, False)]


@pytest.mark.parametrize("default", [False, True])
def test_partition_comes_back_without_a_scan(dsn: str, default: bool) -> None:
    """DETACH CONCURRENTLY leaves a CHECK; where a plain one left none, it is given one."""
    with maintenance(dsn) as conn:
        if default:
            conn.execute(DEFAULT)
        done(conn, "detach")
        said: list[str] = []
        conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
        conn.execute("SET client_min_messages = 'debug1'")
        outcome = done(conn, "attach")
        conn.execute("RESET client_min_messages")
        assert (outcome.result, outcome.rows) == ("done", 100)
        assert any(partition(OLDEST) in line and IMPLIED in line for line in said), said
        assert rows_of(conn, OLDEST) == 100
        assert states(conn) == [(partition(OLDEST), "attached", 100, True)]
        (evidence,) = told(conn, "audit.partition.attached")
        assert evidence["audit.partition"] == partition(OLDEST)
        assert done(conn, "detach").result == "done"


def test_partition_is_not_put_where_another_has_the_range(conn: psycopg.Connection[Any]) -> None:
    """The message says what is in the way, and it stays detached."""
    done(conn, "detach")
    conn.execute(
        "SELECT logstore.make_partition('logstore.logs', 'logs_other', %s, %s)",
        [month(OLDEST), month(OLDEST - 1)],
    )
    outcome = done(conn, "attach")
    assert (outcome.result, "range" in outcome.detail) == ("failed", True)
    assert states(conn) == [(partition(OLDEST), "detached", 100, False)]


def test_partition_that_is_replaced_while_it_is_attached_is_left_alone(
    conn: psycopg.Connection[Any], any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the lock: the other table stays what it was, and where it was."""
    done(conn, "detach")
    planned = operation(conn, "attach", OLDEST)
    genuine, looks = retiring.require_detached, list[int]()

    def look_and_replace(*arguments: Any) -> None:
        genuine(*arguments)
        looks.append(1)
        if len(looks) == 2:
            with psycopg.connect(any_dsn) as other:
                for statement in (
                    "ALTER TABLE {0} RENAME TO kept",
                    "CREATE TABLE {0} (LIKE logstore.kept INCLUDING ALL)",
                    "COMMENT ON TABLE {0} IS 'auditlog partition of logs'",
                ):
                    other.execute(sql.SQL(statement).format(LEAF))

    monkeypatch.setattr(retiring, "require_detached", look_and_replace)
    outcome = apply(conn, planned, QUICK)
    assert (outcome.result, "another table" in outcome.detail) == ("refused", True)
    assert partition(OLDEST) not in attached(conn)
    assert states(conn) == [(partition(OLDEST), "detached", 100, False)]


def test_interrupted_detach_is_ended_by_a_later_run(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stays in its transaction leaves it pending; the outcome names the reader."""
    monkeypatch.setattr(detaching, "CONCURRENT_WAIT_S", 0.2)
    monkeypatch.setattr(locking, "TRIES", 1)
    with (
        maintenance(dsn) as conn,
        psycopg.connect(dsn, application_name="analyst") as reader,
    ):
        reader.execute("SELECT count(*) FROM logstore.logs")
        outcome = done(conn, "detach")
        assert outcome.result == "waiting"
        assert f"process {reader.info.backend_pid} (analyst)" in outcome.detail
        assert states(conn) == [(partition(OLDEST), "detaching", None, False)]
        again = done(conn, "detach")
        assert again.result == "waiting"
        reader.rollback()
        outcome = done(conn, "finalize")
        assert (outcome.result, outcome.rows) == ("done", 100)
        assert states(conn) == [(partition(OLDEST), "detached", 100, False)]
        assert len(told(conn, "audit.partition.detached")) == 1


def test_detach_that_somebody_else_began_is_ended_and_not_taken_further(
    any_dsn: str, conn: psycopg.Connection[Any]
) -> None:
    """It was nobody's retention, so nothing may be dropped for it."""
    with psycopg.connect(any_dsn) as reader:
        reader.execute("SELECT count(*) FROM logstore.logs")
        conn.execute("SET statement_timeout = '100ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            conn.execute(
                sql.SQL("ALTER TABLE logstore.logs DETACH PARTITION {} CONCURRENTLY").format(LEAF)
            )
    conn.execute("SET statement_timeout = 0")
    outcome = done(conn, "finalize")
    assert (outcome.result, "by hand" in outcome.detail) == ("done", True)
    assert (states(conn), count(conn, partition(OLDEST))) == ([], 100)
    assert done(conn, "drop").result == "refused"


@pytest.mark.parametrize("gone_to", ["detached", "archived"])
def test_partition_that_somebody_attached_again_is_retired_anew(
    conn: psycopg.Connection[Any], tmp_path: Path, gone_to: str
) -> None:
    """What was written down the first time is over: rows, rights and evidence are another's."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    done(conn, "detach", config=config)
    if gone_to == "archived":
        done(conn, "archive", config=config)
    conn.execute(
        sql.SQL(
            "ALTER TABLE logstore.logs ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})"
        ).format(LEAF, month(OLDEST).isoformat(), month(OLDEST - 1).isoformat())
    )
    change(conn, "GRANT SELECT ON {} TO PUBLIC")
    conn.execute(
        "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES ('late', '1', %s)",
        [month(OLDEST)],
    )
    outcome = done(conn, "detach", config=config)
    assert (outcome.result, outcome.rows) == ("done", 101)
    assert states(conn) == [
        (partition(OLDEST), "attached", 100, True),
        (partition(OLDEST), "detached", 101, False),
    ]
    assert [told["audit.rows"] for told in told(conn, "audit.partition.detached")] == [100, 101]
    granted = "SELECT has_table_privilege('public', %s::oid, 'SELECT')"
    assert conn.execute(granted, [operation(conn, "drop", OLDEST).oid]).fetchone() == (False,)


def test_nothing_queues_behind_an_old_transaction(
    any_dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that began long ago: nothing is begun, and it is named with its age."""
    monkeypatch.setattr(locking, "HOPELESS_AGE", timedelta(0))
    with psycopg.connect(any_dsn, application_name="pg_dump") as dump:
        dump.execute("LOCK TABLE logstore.logs IN ACCESS SHARE MODE")
        outcome = done(conn, "detach")
        assert (outcome.result, "(pg_dump) has" in outcome.detail) == ("waiting", True)
    assert partition(OLDEST) in attached(conn)


def test_rows_of_one_tenant_are_deleted_in_batches(
    each_conn: psycopg.Connection[Any], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before the instant and no others; counted, and told once."""
    monkeypatch.setattr(deleting, "BATCH_ROWS", 30)
    fill(dsn, OLDEST, 20, tenant="other", prefix="o")
    before = month(OLDEST) + timedelta(seconds=71)
    outcome = done(each_conn, "delete", tenant="tenant", before=before)
    assert (outcome.result, outcome.rows) == ("done", 70)
    left = each_conn.execute(
        "SELECT instance_id, count(*), min(log_date) FROM logstore.logs"
        " WHERE log_date < %s GROUP BY 1 ORDER BY 1",
        [month(OLDEST - 1)],
    ).fetchall()
    assert left == [("other", 20, month(OLDEST) + timedelta(seconds=1)), ("tenant", 30, before)]
    assert states(each_conn) == [(partition(OLDEST), "deleted", 70, True)]
    ends = each_conn.execute(
        "SELECT instance_id, first_log_date, last_log_date FROM logstore.retirements"
    ).fetchone()
    assert ends == (
        "tenant",
        month(OLDEST) + timedelta(seconds=1),
        month(OLDEST) + timedelta(seconds=70),
    )
    (evidence,) = told(each_conn, "audit.rows.deleted")
    assert (evidence["audit.tenant"], evidence["audit.rows"]) == ("tenant", 70)


def test_key_that_is_empty_is_deleted_too(conn: psycopg.Connection[Any]) -> None:
    """The first batch begins before the smallest key there can be."""
    conn.execute(
        "INSERT INTO logstore.logs (instance_id, log_id, log_date) VALUES ('', '', %s)",
        [month(OLDEST)],
    )
    assert done(conn, "delete", tenant="", before=month(1)).rows == 1


def test_guard_is_on_again_after_a_deletion(conn: psycopg.Connection[Any]) -> None:
    """The permission ends with each batch."""
    done(conn, "delete", tenant="tenant", before=month(1))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        conn.execute("DELETE FROM logstore.logs")


def test_hold_stops_a_deletion_between_two_batches(
    conn: psycopg.Connection[Any], any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted before is counted; the rest stays until the hold is released."""
    monkeypatch.setattr(deleting, "BATCH_ROWS", 30)
    batches = _held_after_the_first(any_dsn, monkeypatch)
    outcome = done(conn, "delete", tenant="tenant", before=month(1))
    assert (outcome.result, "hold" in outcome.detail) == ("refused", True)
    assert (rows_of(conn, OLDEST), batches) == (70, [30])
    assert states(conn) == [(partition(OLDEST), "deleting", 30, False)]
    conn.execute("DELETE FROM logstore.holds")
    assert done(conn, "delete", tenant="tenant", before=month(1)).rows == 70
    assert states(conn) == [(partition(OLDEST), "deleted", 100, True)]
    assert [each["audit.rows"] for each in told(conn, "audit.rows.deleted")] == [100]


def test_hold_waits_for_no_search(
    conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows to delete are looked for among all that the tenant has, and holds are not locked."""
    genuine, locked = deleting._last, list[Any]()

    def search(conn: psycopg.Connection[Any], *arguments: Any) -> Any:
        with conn.transaction():
            found = genuine(conn, *arguments)
            locked.extend(
                conn.execute(
                    "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid()"
                    " AND relation = 'logstore.holds'::regclass AND mode = 'ShareLock'"
                )
            )
        return found

    monkeypatch.setattr(deleting, "_last", search)
    assert done(conn, "delete", tenant="tenant", before=month(1)).rows == 100
    assert locked == []


def _held_after_the_first(dsn: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Place a hold when the first batch has been committed; return the sizes of batches."""
    sizes: list[int] = []
    genuine = deleting._batch

    def batch(*arguments: Any) -> Any:
        made = genuine(*arguments)
        sizes.append(made)
        if len(sizes) == 1:
            with maintenance(dsn) as other:
                place(other, reason="file 4711")
        return made

    monkeypatch.setattr(deleting, "_batch", batch)
    return sizes


def test_partition_that_is_replaced_while_rows_are_deleted_is_left_alone(
    conn: psycopg.Connection[Any], any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has the name is looked at under the lock that keeps it from being given to another."""
    genuine = deleting._checked
    looks: list[int] = []

    def look_and_let_replace(*arguments: Any) -> None:
        genuine(*arguments)
        looks.append(1)
        if len(looks) == 2:
            _replace_leaf(any_dsn)

    monkeypatch.setattr(deleting, "_checked", look_and_let_replace)
    outcome = done(conn, "delete", tenant="tenant", before=month(1))
    assert (outcome.result, outcome.rows) == ("done", 100)
    assert rows_of(conn, OLDEST) == 0


def _replace_leaf(dsn: str) -> None:
    """Put another table in the place of the oldest partition, which is not to be had."""
    with psycopg.connect(dsn) as other:
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(sql.SQL("ALTER TABLE logstore.logs DETACH PARTITION {}").format(LEAF))


def test_policy_does_not_hide_rows_from_a_deletion(conn: psycopg.Connection[Any]) -> None:
    """Where row security would be forced on the owner, the server refuses instead."""
    conn.execute(
        "CREATE ROLE auditlog_test_owner; GRANT USAGE ON SCHEMA logstore TO auditlog_test_owner;"
        "GRANT ALL ON ALL TABLES IN SCHEMA logstore TO auditlog_test_owner"
    )
    change(conn, "ALTER TABLE {} OWNER TO auditlog_test_owner")
    change(conn, "ALTER TABLE {} ENABLE ROW LEVEL SECURITY")
    change(conn, "ALTER TABLE {} FORCE ROW LEVEL SECURITY")
    try:
        conn.execute("SET ROLE auditlog_test_owner")
        outcome = done(conn, "delete", tenant="tenant", before=month(1))
        conn.execute("RESET ROLE")
        assert outcome.result == "failed"
        assert rows_of(conn, OLDEST) == 100
        assert states(conn) == []
    finally:
        conn.execute("RESET ROLE; DROP OWNED BY auditlog_test_owner; DROP ROLE auditlog_test_owner")


def test_policy_does_not_hide_holds(any_cut_database: Server) -> None:
    """Where row security was forced on their owner, nobody knows what is held, and nothing goes."""
    with any_cut_database.role() as role, any_cut_database.database() as dsn:
        with maintenance(dsn) as admin:
            place(admin, reason="file 4711")
            planned = operation(admin, "detach", OLDEST)
            _give(admin, role)
        with maintenance(as_role(dsn, role)) as conn:
            conn.execute(
                "ALTER TABLE logstore.holds ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
            )
            delete = replace(planned, kind="delete", tenant="tenant", before=month(1))
            for step in (planned, delete):
                outcome = apply(conn, step, QUICK)
                assert (outcome.result, '"holds"' in outcome.detail) == ("failed", True)
                assert "NO FORCE ROW LEVEL SECURITY" in outcome.detail
            assert rows_of(conn, OLDEST) == 100


def _give(admin: psycopg.Connection[Any], role: str) -> None:
    """Let a role own the trail, as one that is no superuser does."""
    owner = sql.Identifier(role)
    names = ["logs", "batches", "holds", "retirements", "partitioning", *attached(admin)]
    for name in names:
        admin.execute(
            sql.SQL("ALTER TABLE logstore.{} OWNER TO {}").format(sql.Identifier(name), owner)
        )
    admin.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA logstore TO {}").format(owner))
    ensure = "GRANT EXECUTE ON FUNCTION logstore.ensure_partition(text, timestamptz) TO {}"
    admin.execute(sql.SQL(ensure).format(owner))


@pytest.mark.parametrize("kind", ["detach", "delete"])
def test_what_could_not_be_told_afterwards_is_not_begun(
    any_cut_database: Server, kind: OperationKind
) -> None:
    """Or partitions would leave the table night after night, and get no further."""
    with any_cut_database.role() as role, any_cut_database.database() as dsn:
        with maintenance(dsn) as admin:
            planned = replace(
                operation(admin, kind, OLDEST), tenant="tenant" if kind == "delete" else None
            )
            planned = replace(planned, before=month(1))
            _give(admin, role)
        with maintenance(as_role(dsn, role)) as conn:
            conn.execute("REVOKE INSERT ON logstore.batches FROM CURRENT_USER")
            outcome = apply(conn, planned, QUICK)
            assert (outcome.result, "may not record" in outcome.detail) == ("failed", True)
            assert (rows_of(conn, OLDEST), states(conn)) == (100, [])


def test_whoever_is_not_the_owner_is_told_what_to_do(any_cut_database: Server) -> None:
    """ATTACH, DETACH and DROP are the owner's, whatever is granted (42501)."""
    with any_cut_database.role() as role, any_cut_database.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as admin:
            for statement in (
                "GRANT USAGE, CREATE ON SCHEMA logstore TO {}",
                "GRANT ALL ON ALL TABLES IN SCHEMA logstore TO {}",
                "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA logstore TO {}",
            ):
                admin.execute(sql.SQL(statement).format(sql.Identifier(role)))
        with maintenance(as_role(dsn, role)) as conn:
            steps = [
                operation(conn, "detach", OLDEST),
                operation(conn, "delete", OLDEST, tenant="tenant", before=month(1)),
                operation(conn, "create", OLDEST + 1),
            ]
            for step in steps:
                outcome = apply(conn, step, QUICK)
                assert outcome.result == "failed", outcome
                assert f"OWNER TO {role}" in outcome.detail
                assert "-c role=" in outcome.detail
            assert rows_of(conn, OLDEST) == 100
