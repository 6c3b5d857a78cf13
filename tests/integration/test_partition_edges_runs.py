"""Runs of maintenance beside everything that a table, a clock and a path can be."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from auditlog.cli.failures import Exit
from auditlog.errors import PartitionError
from auditlog.partitions import maintaining
from auditlog.partitions.applying import apply
from auditlog.partitions.archive import restore
from auditlog.partitions.archive.finding import found
from auditlog.partitions.maintaining import maintain, preview
from auditlog.partitions.model import Step, TableConfig, TableReport
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from auditlog.partitions.status import status
from auditlog.partitions.windows import window
from commands import CommandLine
from databases import Server
from partitioned import add_partitions, partitions
from retiring_scene import (
    OLDER,
    OLDEST,
    QUICK,
    cut_server,
    month,
    operation,
    partition,
    states,
    tables,
)
from trail import fetch

DAY = timedelta(days=1)
MARKED = "auditlog partition of logs"


@pytest.fixture(scope="module")
def cut_database(server: Server) -> Iterator[Server]:
    with cut_server(server) as cut:
        yield cut


@pytest.fixture(scope="module")
def any_cut_database(any_server: Server) -> Iterator[Server]:
    with cut_server(any_server) as cut:
        yield cut


@pytest.fixture
def cut_dsn(cut_database: Server) -> Iterator[str]:
    with cut_database.database() as dsn:
        yield dsn


@pytest.fixture
def any_cut_dsn(any_cut_database: Server) -> Iterator[str]:
    with any_cut_database.database() as dsn:
        yield dsn


def run(dsn: str, config: TableConfig = QUICK) -> TableReport:
    (report,) = maintain(dsn, {"logs": config})
    return report


def results(report: TableReport) -> dict[tuple[str, str], str]:
    return {
        (outcome.operation.kind, outcome.operation.partition): outcome.result
        for outcome in report.outcomes
    }


def ranges(dsn: str) -> list[tuple[datetime, datetime]]:
    """What the partitions take, in order; the first may begin at any time."""
    with maintenance(dsn) as conn:
        return conn.execute(
            "SELECT lower, upper FROM logstore.partitions_of('logstore.logs'::regclass)"
            " WHERE isfinite(lower) ORDER BY lower"
        ).fetchall()


def test_step_changes_twice_and_no_instant_is_without_a_partition(cut_dsn: str) -> None:
    """Month, day, week, month: old partitions stay as they are, new ones begin where they end."""
    add_partitions(cut_dsn, [month(ago) for ago in range(1, 5)], step="month")
    plain = replace(QUICK, retain=None)
    steps: list[tuple[Step, int]] = [("month", 40), ("day", 100), ("week", 160), ("month", 240)]
    for step, ahead in steps:
        before = set(ranges(cut_dsn))
        expected = made_by_the_server(cut_dsn, step, ahead)
        report = run(cut_dsn, replace(plain, by=step, ahead=Span(days=ahead)))
        created = [where for kind, where in results(report) if kind == "create"]
        assert created[: len(expected)] == expected
        assert report.error is None
        assert {outcome.result for outcome in report.outcomes} <= {"done"}, report.outcomes
        after = ranges(cut_dsn)
        assert before <= set(after)
        assert all(one[1] == following[0] for one, following in pairwise(after))
        assert after[-1][1] > datetime.now(UTC) + ahead * DAY
        for lower, upper in set(after) - before:
            assert window(step, lower)[1] == upper
        again = run(cut_dsn, replace(plain, by=step, ahead=Span(days=ahead)))
        assert again.outcomes == ()
    names = partitions(cut_dsn)
    assert len(names) == len(set(names)) == len(ranges(cut_dsn))
    # Retention goes by the bounds, whatever the length.
    assert run(cut_dsn, replace(plain, retain=Span(months=4))).error is None
    assert ranges(cut_dsn)[0][0] == month(4)


def made_by_the_server(dsn: str, step: Step, ahead: int) -> list[str]:
    """The first partitions that pg_cron would make, in order; they are not kept."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "UPDATE logstore.partitioning SET step = %s, ahead = make_interval(days => %s)",
            [step, ahead],
        )
        made = conn.execute("SELECT partition_name, result FROM logstore.make_partitions()")
        names = [name for name, result in made if result == "made"]
        conn.rollback()
    assert 0 < len(names) <= 20
    return names


class _Clock(datetime):
    """The host's, so much later than it is."""

    later = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.later


@pytest.mark.parametrize("later", [DAY, -DAY, 73 * 365 * DAY, -2 * 365 * DAY], ids=str)
def test_nothing_goes_by_a_clock_that_is_off(
    any_cut_dsn: str, later: timedelta, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The host's and the server's differ: partitions are made by the server's, none goes."""
    config = replace(
        QUICK,
        archive=str(tmp_path),
        drop_without_archive=False,
        tenants={"tenant": Span(days=30)},
    )
    with maintenance(any_cut_dsn) as conn:
        assert apply(conn, operation(conn, "detach", OLDEST), config).result == "done"
        before = tables(conn)
    monkeypatch.setattr(_Clock, "later", later)
    with monkeypatch.context() as patch:
        patch.setattr(maintaining, "datetime", _Clock)
        report = run(any_cut_dsn, config)
    assert report.plan is not None
    assert {each.operation.kind for each in report.outcomes} == {"create", "analyze"}
    assert ("clock", "human") in {(each.code, each.severity) for each in report.plan.findings}
    assert report.covered_until == month(-4)
    with maintenance(any_cut_dsn) as conn:
        assert set(before) <= set(tables(conn))
        assert [state for _, state, _, _ in states(conn)] == ["detached"]
    # Set right, it goes on.
    assert results(run(any_cut_dsn, config))["drop", partition(OLDEST)] == "done"


ODD_NAMES = (
    "Aa." * 21,
    "select",
    'Old "partition". of\'logs; DROP TABLE',
    "é☃" * 12 + "abc",
    "%s %(table)s {} $1",
)


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_any_name_of_a_partition_goes_all_the_way(
    any_cut_dsn: str, odd: str, tmp_path: Path
) -> None:
    """Given by somebody who renamed it: detached, archived, dropped, restored, attached again."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    with maintenance(any_cut_dsn) as conn:
        rename = sql.SQL("ALTER TABLE {} RENAME TO {}")
        old = sql.Identifier("logstore", partition(OLDEST))
        conn.execute(rename.format(old, sql.Identifier(odd)))
        conn.execute(
            sql.SQL("DROP TRIGGER append_only ON {}").format(sql.Identifier("logstore", odd))
        )
        # What it lacks is mended first, while it is young enough.
        young = replace(config, retain=None, tenants={"nobody": Span(days=40)})
        assert results(run(any_cut_dsn, young))["repair", odd] == "done"
        report = run(any_cut_dsn, config)
        assert report.error is None
        assert results(report)["drop", odd] == "done", [o.detail for o in report.outcomes]
        assert odd not in tables(conn)
        archives = {
            each.manifest.content.partition: each for each in found(str(tmp_path)) if each.manifest
        }
        assert odd in archives
        conn.execute(
            "INSERT INTO logstore.holds (hold_id, reason) VALUES (gen_random_uuid(), 'to see it')"
        )
        restored = restore(conn, archives[odd].uri, attach=True)
        assert (restored.is_attached, restored.rows) == (True, 100)
        assert run(any_cut_dsn, config).error is None
        (count,) = conn.execute(
            "SELECT count(*) FROM logstore.logs WHERE log_date < %s", [month(OLDER)]
        ).fetchone() or (0,)
        assert count == 100


def test_what_is_not_ours_is_as_before_and_no_range_is_taken_twice(cut_dsn: str) -> None:
    """Off-grid, wide, without an end, divided, elsewhere, unmarked: reported, kept, gone around."""
    far = month(-3)
    statements = (
        "CREATE SCHEMA other",
        # Ours, and wider and narrower than a month: it goes when all of it is old enough.
        _part("logstore.wide", month(3), month(0)),
        f"COMMENT ON TABLE logstore.wide IS '{MARKED}'",
        _part("logstore.off_grid", month(4) + 3 * DAY, month(4) + 17 * DAY),
        f"COMMENT ON TABLE logstore.off_grid IS '{MARKED}'",
        # Not ours.
        _part("logstore.unmarked", month(8), month(7)),
        _part("other.elsewhere", month(9), month(8)),
        _part("logstore.divided", month(10), month(9), "PARTITION BY HASH (instance_id)"),
        "CREATE TABLE logstore.lowest PARTITION OF logstore.logs"
        f" FOR VALUES FROM (MINVALUE) TO ('{month(12).isoformat()}')",
        f"COMMENT ON TABLE logstore.lowest IS '{MARKED}'",
        "CREATE TABLE logstore.highest PARTITION OF logstore.logs"
        f" FOR VALUES FROM ('{far.isoformat()}') TO (MAXVALUE)",
        f"COMMENT ON TABLE logstore.highest IS '{MARKED}'",
    )
    with psycopg.connect(cut_dsn) as conn:
        for statement in statements:
            conn.execute(statement.encode())
    theirs = {"unmarked", "elsewhere", "divided", "lowest", "highest"}
    assert theirs <= set(everything_attached(cut_dsn))
    report = run(cut_dsn, replace(QUICK, retain=Span(months=2)))
    assert report.error is None
    assert {each.result for each in report.outcomes} == {"done"}, report.outcomes
    left = set(everything_attached(cut_dsn))
    assert theirs <= left
    assert "wide" in left, "rows of it are younger than two months"
    assert {"off_grid", partition(OLDEST), partition(OLDER)} & left == set()
    assert not [where for kind, where in results(report) if where in theirs]
    assert report.plan is not None
    foreign = {each.partition for each in report.plan.findings if each.code == "foreign"}
    assert len(foreign) == len(theirs)
    assert report.covered_until is not None
    assert report.covered_until >= far
    assert run(cut_dsn, replace(QUICK, retain=Span(months=2))).outcomes == ()


def _part(name: str, lower: datetime, upper: datetime, more: str = "") -> str:
    bounds = f"FROM ('{lower.isoformat()}') TO ('{upper.isoformat()}')"
    return f"CREATE TABLE {name} PARTITION OF logstore.logs FOR VALUES {bounds} {more}"


def everything_attached(dsn: str) -> list[str]:
    return fetch(
        dsn,
        "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent = 'logstore.logs'::regclass",
    )


def test_nothing_goes_through_a_pooler(
    any_cut_dsn: str,
    pgbouncer: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What sets a session and locks in it: each says so in one line, and has done nothing."""
    pooled, auditlog = pgbouncer(any_cut_dsn), CommandLine(monkeypatch, capfd)
    before = everything_attached(any_cut_dsn)
    for look in (maintain, preview, status):
        with pytest.raises(PartitionError, match="through a pooler"):
            look(pooled, {"logs": QUICK})
    for command in ("maintain", "plan", "status", "disable logs", "enable quota_logs --by day"):
        result = auditlog("partitions", *command.split(), dsn=pooled)
        assert (result.returncode, result.stdout) == (Exit.NOT_WELL, ""), command
        assert "through a pooler" in result.stderr
        assert result.stderr.count("\n") == 1
    assert everything_attached(any_cut_dsn) == before
