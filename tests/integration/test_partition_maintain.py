import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from auditlog.errors import PartitionError
from auditlog.partitions import maintaining
from auditlog.partitions.maintaining import maintain, preview
from auditlog.partitions.model import Operation, Outcome, TableConfig, TableReport, TableState
from auditlog.partitions.retention.holding import place, release
from auditlog.partitions.session import maintenance, only_run
from auditlog.partitions.spans import Span
from databases import Server, as_role
from retiring_scene import (
    OLDER,
    OLDEST,
    QUICK,
    attached,
    cut_server,
    month,
    partition,
    states,
    tables,
    told,
)

PLAIN = {"logs": QUICK}


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


def run(dsn: str, config: TableConfig = QUICK, **more: Any) -> TableReport:
    """Maintain the one table."""
    (report,) = maintain(dsn, {"logs": config}, **more)
    return report


def results(report: TableReport) -> dict[tuple[str, str], str]:
    """What became of each step, by its kind and partition."""
    return {
        (outcome.operation.kind, outcome.operation.partition): outcome.result
        for outcome in report.outcomes
    }


def fetch(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode()).fetchall()


def at(kind: str, ago: int, deed: Callable[[], None]) -> Callable[[Any], None]:
    """A callback that does something once, when it is told of that step."""
    left = [deed]

    def told_of(step: Operation | Outcome) -> None:
        operation = step.operation if isinstance(step, Outcome) else step
        if left and (operation.kind, operation.partition) == (kind, partition(ago)):
            left.pop()()

    return told_of


def test_a_run_makes_retires_and_archives_and_the_next_has_nothing_to_do(
    dsn: str, tmp_path: Path
) -> None:
    """Partitions ahead, the old ones in the archive and gone, statistics for the table."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    steps: list[Operation] = []
    done: list[Outcome] = []
    report = run(dsn, config, on_step=steps.append, on_done=done.append)
    assert (report.error, report.is_busy) == (None, False)
    assert report.plan is not None
    assert report.plan.operations == tuple(steps)
    assert report.outcomes == tuple(done)
    assert {outcome.result for outcome in done} == {"done"}
    assert all(outcome.seconds > 0 for outcome in done)
    with maintenance(dsn) as conn:
        assert attached(conn) == [partition(ago) for ago in (3, 2, 1, 0, -1, -2, -3)]
        assert {state for _, state, _, _ in states(conn)} == {"dropped"}
        dropped = told(conn, "audit.partition.dropped")
    assert [each["audit.rows"] for each in dropped] == [100, 50]
    assert report.covered_until == month(-4)
    again = run(dsn, config)
    assert (again.outcomes, again.error, again.covered_until) == ((), None, month(-4))


def test_a_run_signs_its_table(any_dsn: str) -> None:
    """When, by whom, and how much a person has to look at."""
    assert run(any_dsn).error is None
    ((since, by, findings),) = fetch(
        any_dsn,
        "SELECT clock_timestamp() - maintained_at < '1 minute', maintained_by = session_user,"
        " findings FROM logstore.partitioning",
    )
    assert (since, by, findings) == (True, True, 0)


def test_preview_touches_nothing(any_dsn: str) -> None:
    """It plans what a run does, and the catalog is the same as before."""
    catalog = (
        "SELECT md5(string_agg(c::text, ',' ORDER BY oid)), (SELECT count(*) FROM logstore.logs),"
        " (SELECT p::text FROM logstore.partitioning AS p), (SELECT count(*) FROM"
        " logstore.retirements) FROM pg_class AS c"
        " WHERE relnamespace = 'logstore'::regnamespace"
    )
    before = fetch(any_dsn, catalog)
    config = replace(QUICK, by="week", ahead=Span(months=1))
    (shown,) = preview(any_dsn, {"logs": config})
    assert fetch(any_dsn, catalog) == before
    assert (shown.outcomes, shown.error) == ((), None)
    assert shown.plan is not None
    report = run(any_dsn, config)
    assert report.plan is not None
    assert [(o.kind, o.partition) for o in report.plan.operations] == [
        (o.kind, o.partition) for o in shown.plan.operations
    ]


def test_step_and_length_ahead_of_the_settings_are_written_down(any_dsn: str) -> None:
    """The writer and pg_cron make partitions by them, too; others are left as they are."""
    wanted = "SELECT step, ahead::text FROM logstore.partitioning"
    run(any_dsn)
    assert fetch(any_dsn, wanted) == [("month", "3 mons")]
    run(any_dsn, replace(QUICK, by="day", ahead=Span(days=30)))
    assert fetch(any_dsn, wanted) == [("day", "30 days")]
    # Thirty days and a month are equal intervals.
    report = run(any_dsn, replace(QUICK, ahead=Span(months=1)))
    assert fetch(any_dsn, wanted) == [("day", "1 mon")]
    assert report.error is None


def test_month_becomes_day_from_the_next_partition_on(any_dsn: str) -> None:
    """What there is stays; what is made is shorter, and nothing is missing between the two."""
    run(any_dsn)
    report = run(any_dsn, replace(QUICK, by="day", ahead=Span(months=4)))
    assert report.error is None
    assert {outcome.result for outcome in report.outcomes} == {"done"}
    with maintenance(any_dsn) as conn:
        names = attached(conn)
    assert partition(-3) in names
    assert f"logs_p{month(-4):%Y%m%d}" in names


def test_second_run_at_the_same_time_is_busy(any_dsn: str) -> None:
    """It does nothing and that is no error; the first is not disturbed."""
    reports: list[TableReport] = []
    first = run(any_dsn, on_done=at("detach", OLDEST, lambda: reports.append(run(any_dsn))))
    assert [(report.is_busy, report.error, report.outcomes) for report in reports] == [
        (True, None, ())
    ]
    assert {outcome.result for outcome in first.outcomes} == {"done"}


def test_each_table_is_by_itself(any_dsn: str) -> None:
    """One is missing, one is busy, one is not partitioned: the last is maintained all the same."""
    configs = {name: replace(QUICK, table=name) for name in ("quota_logs", "execution_logs")}
    with psycopg.connect(any_dsn, autocommit=True) as conn, only_run(conn, "execution_logs"):
        conn.execute("DROP TABLE logstore.quota_logs")
        missing, busy, logs = maintain(any_dsn, {**configs, **PLAIN})
    assert (missing.plan, "quota_logs" in (missing.error or "")) == (None, True)
    assert (busy.plan, busy.is_busy) == (None, True)
    assert {outcome.result for outcome in logs.outcomes} == {"done"}


def test_defect_that_one_table_meets_is_that_tables(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of this package: the others are maintained, and the report names it."""
    genuine = maintaining.plan

    def plan(state: TableState, *arguments: Any, **more: Any) -> Any:
        if state.table == "quota_logs":
            raise ZeroDivisionError
        return genuine(state, *arguments, **more)

    monkeypatch.setattr(maintaining, "plan", plan)
    configs = {"quota_logs": replace(QUICK, table="quota_logs"), **PLAIN}
    broken, logs = maintain(any_dsn, configs)
    assert (broken.error, broken.plan) == ("ZeroDivisionError", None)
    assert {outcome.result for outcome in logs.outcomes} == {"done"}
    assert [report.error for report in preview(any_dsn, configs)] == ["ZeroDivisionError", None]


def test_failure_holds_up_its_own_partition_only(any_dsn: str, tmp_path: Path) -> None:
    """No space for the archive of one: it is not dropped, the others are, and it is told."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    report = run(any_dsn, config, archiver=_full_for(partition(OLDER)))
    found = results(report)
    assert [found[kind, partition(OLDER)] for kind in ("detach", "archive", "drop")] == [
        "done",
        "failed",
        "waiting",
    ]
    assert found["drop", partition(OLDEST)] == "done"
    (failed,) = [outcome for outcome in report.outcomes if outcome.result == "failed"]
    assert "No space left" in failed.detail
    assert fetch(any_dsn, "SELECT findings FROM logstore.partitioning") == [(1,)]
    with maintenance(any_dsn) as conn:
        assert partition(OLDER) in tables(conn)
    assert set(results(run(any_dsn, config)).values()) == {"done"}
    with maintenance(any_dsn) as conn:
        assert partition(OLDER) not in tables(conn)


def _full_for(name: str) -> Any:
    from auditlog.partitions.archive import archive  # noqa: PLC0415  # the genuine one

    def archiver(conn: Any, leaf_name: str, **more: Any) -> Any:
        if leaf_name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return archive(conn, leaf_name, **more)

    return archiver


@pytest.mark.parametrize("kind", ["create", "detach", "archive", "drop"])
def test_lost_connection_ends_one_table_and_the_next_run_goes_on(
    any_dsn: str, tmp_path: Path, kind: str
) -> None:
    """Whatever step it is lost in; that the table was looked at is written down all the same."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    ago = -1 if kind == "create" else OLDEST
    with psycopg.connect(any_dsn, autocommit=True) as other:

        def cut_off() -> None:
            other.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid IN"
                " (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
            )

        configs = {"logs": config, "quota_logs": replace(QUICK, table="quota_logs")}
        lost, other_table = maintain(any_dsn, configs, on_step=at(kind, ago, cut_off))
    assert lost.error is not None
    assert (lost.outcomes[-1].result, lost.outcomes[-1].operation.kind) == ("failed", kind)
    assert (other_table.error, other_table.plan is None) == (None, False)
    ((signed,),) = fetch(any_dsn, "SELECT maintained_at IS NOT NULL FROM logstore.partitioning")
    assert signed
    again = run(any_dsn, config)
    assert set(results(again).values()) <= {"done", "already"}
    with maintenance(any_dsn) as conn:
        assert partition(OLDEST) not in tables(conn)
        assert {state for _, state, _, _ in states(conn)} == {"dropped"}


def test_partition_that_was_made_anew_between_plan_and_step_is_left_alone(any_dsn: str) -> None:
    """It has the name and the bounds, and is another table."""

    def make_anew() -> None:
        with maintenance(any_dsn) as conn:
            conn.execute(
                sql.SQL("DROP TABLE {}").format(sql.Identifier("logstore", partition(OLDEST)))
            )
            conn.execute(
                "SELECT logstore.make_partition('logstore.logs', %s, %s, %s)",
                [partition(OLDEST), month(OLDEST), month(OLDEST - 1)],
            )

    report = run(any_dsn, on_step=at("detach", OLDEST, make_anew))
    found = results(report)
    assert [found[kind, partition(OLDEST)] for kind in ("detach", "drop")] == [
        "refused",
        "waiting",
    ]
    with maintenance(any_dsn) as conn:
        assert partition(OLDEST) in attached(conn)


def test_hold_that_comes_after_the_detach_brings_the_partition_back(
    any_dsn: str, tmp_path: Path
) -> None:
    """This run drops nothing of it, the next attaches it; released, it goes as it would have."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    with maintenance(any_dsn) as other:
        report = run(
            any_dsn,
            config,
            on_done=at("archive", OLDEST, lambda: place(other, end=month(OLDER), reason="file")),
        )
        assert results(report)["drop", partition(OLDEST)] == "refused"
        again = run(any_dsn, config)
        assert results(again)["attach", partition(OLDEST)] == "done"
        assert partition(OLDEST) in attached(other)
        count = other.execute(
            "SELECT count(*) FROM logstore.logs WHERE log_date < %s", [month(OLDER)]
        ).fetchone()
        assert count == (100,)
        assert all(o.operation.kind == "analyze" for o in run(any_dsn, config).outcomes)
        (hold_id,) = other.execute("SELECT hold_id::text FROM logstore.holds").fetchone() or ("",)
        release(other, hold_id, reason="settled")
        assert results(run(any_dsn, config))["drop", partition(OLDEST)] == "done"
        kept = [state for name, state, _, _ in states(other) if name == partition(OLDEST)]
    assert kept == ["attached", "dropped"]


def test_rows_of_a_tenant_go_earlier(any_dsn: str) -> None:
    """By its own retention, out of the closed partitions that stay."""
    config = replace(
        QUICK, retain=Span(months=24), tenants={"tenant": Span(months=5)}, min_retain=Span(days=7)
    )
    report = run(any_dsn, config)
    assert results(report)["delete", partition(OLDEST)] == "done"
    ((left,),) = fetch(any_dsn, "SELECT count(*) FROM logstore.logs WHERE instance_id = 'tenant'")
    assert left < 150
    again = run(any_dsn, config)
    assert not [o for o in again.outcomes if o.operation.kind == "delete"]


def test_dsn_that_leads_nowhere_good_is_an_error_before_anything(
    any_dsn: str, pgbouncer: Callable[[str], str]
) -> None:
    """A pooler changes connections between two steps; a server that is down is not a finding."""
    with pytest.raises(PartitionError, match="pooler"):
        maintain(pgbouncer(any_dsn), PLAIN)
    with pytest.raises(psycopg.OperationalError):
        maintain("host=127.0.0.1 port=1 connect_timeout=2", PLAIN)


def test_no_setting_ends_a_session_or_takes_back_what_it_committed(any_dsn: str) -> None:
    """An archive is one transaction for hours, and reading it back is idleness for as long."""
    wanted = {
        "statement_timeout": "0",
        "transaction_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "synchronous_commit": "on",
        "quote_all_identifiers": "off",
    }
    known = fetch(any_dsn, "SELECT name FROM pg_settings")
    wanted = {name: value for name, value in wanted.items() if (name,) in known}
    with psycopg.connect(any_dsn, autocommit=True) as admin:
        for name, value in wanted.items():
            hostile = {"0": "10s", "on": "off", "off": "on"}[value]
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(admin.info.dbname), sql.Identifier(name), hostile
                )
            )
    with maintenance(any_dsn) as conn:
        assert {
            name: conn.execute("SELECT current_setting(%s)", [name]).fetchone() for name in wanted
        } == {name: (value,) for name, value in wanted.items()}
        # Over a socket of Unix they are 0, whatever was set.
        sources = conn.execute(
            "SELECT DISTINCT source FROM pg_settings WHERE name LIKE 'tcp\\_keepalives\\_%'"
        ).fetchall()
        assert sources == [("session",)]


def test_run_of_somebody_else_says_whose_it_is(any_cut_database: Server) -> None:
    """Nothing is done, and the report says how to become the owner."""
    with any_cut_database.role() as role, any_cut_database.database() as dsn:
        owner = fetch(dsn, "SELECT current_user")[0][0]
        report = run(as_role(dsn, role))
        assert report.error is not None
        assert (report.outcomes, f"-c role={owner}" in report.error) == ((), True)
