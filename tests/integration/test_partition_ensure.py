"""Which partitions the writer and pg_cron get: `ensure_partition`, `make_partitions` and cover."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name, window, windows
from databases import Server
from monthly_scene import bounds, interrupted_detach, month_after, monthly_databases
from partitioned import DAY, partition, partitions
from trail import execute, fetch

ENSURE = "SELECT logstore.ensure_partition('logs', %s)"
COVERED = "SELECT logstore.covered_until(%s)::text"


@pytest.fixture(scope="module")
def monthly(server: Server) -> Iterator[Server]:
    with monthly_databases(server) as monthly:
        yield monthly


@pytest.fixture(scope="module")
def any_monthly(any_server: Server) -> Iterator[Server]:
    with monthly_databases(any_server) as monthly:
        yield monthly


@pytest.fixture
def dsn(monthly: Server) -> Iterator[str]:
    with monthly.database() as dsn:
        yield dsn


@pytest.fixture
def any_dsn(any_monthly: Server) -> Iterator[str]:
    with any_monthly.database() as dsn:
        yield dsn


def test_one_window_is_made_and_none_beside_it(any_dsn: str) -> None:
    """The one that the instant lies in, up to a month beyond what is made ahead."""
    now = datetime.now(UTC)
    last = Span(months=4).after(now) - timedelta(minutes=1)
    assert _ensure(any_dsn, now, last, last, now) == ["made", "made", "already", "already"]
    expected = [
        (name("logs", "month", lower), lower, upper)
        for lower, upper in (window("month", now), window("month", last))
    ]
    assert bounds(any_dsn) == expected


def test_clock_that_is_wrong_makes_nothing(any_dsn: str) -> None:
    """Neither for the far future nor for what is older than the oldest partition."""
    now = datetime.now(UTC)
    first, _ = window("month", now)
    too_far = Span(months=4).after(now) + timedelta(minutes=1)
    assert _ensure(any_dsn, too_far, "infinity") == ["too_far", "too_far"]
    assert _ensure(any_dsn, first - DAY, "-infinity", "4713-01-01 BC") == ["retired"] * 3
    _make(any_dsn, None, first - 30 * DAY)
    assert _ensure(any_dsn, "-infinity", first - 31 * DAY) == ["already"] * 2
    assert _ensure(any_dsn, first - DAY) == ["made"]
    assert len(partitions(any_dsn)) == 2


def test_rows_of_now_get_a_partition_whatever_there_is(any_dsn: str) -> None:
    """Even where only later ones are left, and retention took this one when a clock was wrong."""
    first, second = window("month", datetime.now(UTC))
    _make(any_dsn, second, month_after(second))
    _retire(any_dsn, "dropped", None, second)
    assert _ensure(any_dsn, first - DAY, "now", first) == ["retired", "made", "already"]


def test_what_retention_took_is_not_made_again(any_dsn: str) -> None:
    """Unless it was put back; the rows of one tenant that were deleted are no partition."""
    first, _ = window("month", datetime.now(UTC))
    _make(any_dsn, first - 100 * DAY, first - 90 * DAY)
    for state, tenant, days in (
        ("dropped", None, 60), ("detached", None, 50), ("attached", None, 10),
        ("deleted", "t", 5),
        ("dropped", "t", 4), ("dropped", None, -40),
    ):  # fmt: skip
        _retire(any_dsn, state, tenant, first - days * DAY)
    assert _ensure(any_dsn, first - 51 * DAY, first - 80 * DAY) == ["retired"] * 2
    assert _ensure(any_dsn, first - 49 * DAY, first) == ["made", "made"]
    lowest = bounds(any_dsn)[1]
    assert lowest[1] == first - 50 * DAY
    assert lowest[0] == name("logs", "month", first - 50 * DAY)


def test_window_is_cut_where_neighbours_are(any_dsn: str) -> None:
    """And has the name of the day where it begins, and of the time unless that is midnight."""
    start = month_after(month_after(datetime.now(UTC)))
    _make(any_dsn, None, start - 40 * DAY)
    _make(any_dsn, start + 2 * DAY, start + 3 * DAY + timedelta(hours=6))
    _make(any_dsn, start + 9 * DAY, start + 50 * DAY)
    asked = [start - 39 * DAY, start, start + 4 * DAY]
    assert _ensure(any_dsn, *asked) == ["made"] * 3
    made = [each for each in bounds(any_dsn) if not each[0].startswith("given")]
    assert made == [
        (f"logs_p{start - 40 * DAY:%Y%m%d}", start - 40 * DAY, window("month", asked[0])[1]),
        (name("logs", "month", start), start, start + 2 * DAY),
        (
            f"logs_p{start + 3 * DAY:%Y%m%d}t060000000000",
            start + 3 * DAY + timedelta(hours=6),
            start + 9 * DAY,
        ),
    ]


def test_only_partitioned_tables_are_asked_for(any_dsn: str) -> None:
    """Whatever is given as a name, and also where somebody else has partitioned the table."""
    execute(any_dsn, "CREATE TABLE logstore.theirs (log_date timestamptz)"
                     " PARTITION BY RANGE (log_date)")  # fmt: skip
    names = ["quota_logs", "theirs", "nothing", "", 'logs"; DROP TABLE logstore.logs; --', "LOGS"]
    found = fetch(
        any_dsn,
        "SELECT logstore.ensure_partition(name, now()) FROM unnest(%s::text[]) AS name",
        names,
    )
    assert found == ["not_partitioned"] * len(names)
    assert fetch(any_dsn, "SELECT logstore.ensure_partition('logs', NULL)") == [None]


def test_thousand_calls_leave_what_one_would(any_dsn: str) -> None:
    """A writer in a loop, with any dates, makes no more than maintenance would."""
    fetch(
        any_dsn,
        "SELECT logstore.ensure_partition('logs', now() + day * interval '1 day')"
        " FROM generate_series(-500, 500) AS day",
    )
    now = datetime.now(UTC)
    expected = windows("month", now, Span(months=4).after(now))
    assert partitions(any_dsn) == [name("logs", "month", lower) for lower, _ in expected]


def test_interrupted_detach_is_told_apart(dsn: str) -> None:
    """Its range is not free, and rows of it are not taken, until the detach is ended."""
    execute(dsn, "SELECT logstore.make_partitions()")
    current, *_ = partitions(dsn)
    assert fetch(dsn, COVERED, "logs") != [None]
    with interrupted_detach(dsn, current):
        assert _ensure(dsn, "now") == ["detaching"]
        assert fetch(dsn, COVERED, "logs") == [None]
        with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="has not ended"):
            execute(
                dsn,
                "SELECT logstore.make_partition('logstore.logs', 'x', lower, upper)"
                " FROM logstore.partition_window('day', now())",
            )
    execute(dsn, f"ALTER TABLE logstore.logs DETACH PARTITION logstore.{current} FINALIZE")
    execute(dsn, f"DROP TABLE logstore.{current}")
    assert _ensure(dsn, "now") == ["made"]


def test_all_that_is_to_be_there_is_made(any_server: Server) -> None:
    """Of every table by its own step, and the second time nothing."""
    now = datetime.now(UTC)
    with any_server.database() as dsn:
        partition(dsn, "logs", step="month", ahead="1 month")
        partition(dsn, "quota_logs", step="week", ahead="10 days")
        made = fetch(dsn, "SELECT partition_name FROM logstore.make_partitions()")
        expected = [
            name(table, step, lower)
            for table, step, span in (
                ("logs", "month", Span(months=1)), ("quota_logs", "week", Span(days=10))
            )
            for lower, _ in windows(step, now, span.after(now))
        ]  # fmt: skip
        assert made == expected
        assert fetch(dsn, "SELECT logstore.make_partitions()") == []


def test_one_failing_table_does_not_stop_the_others(any_server: Server) -> None:
    """What became of each is a row; and a table that is none any more is passed over."""
    with any_server.database() as dsn:
        for table in ("execution_logs", "logs", "quota_logs"):
            partition(dsn, table, step="month", ahead="1 day")
        month = name("logs", "month", window("month", datetime.now(UTC))[0]).removeprefix("logs")
        execute(dsn, f"CREATE VIEW logstore.execution_logs{month} AS SELECT 1 AS one")
        execute(dsn, "DROP TABLE logstore.quota_logs")
        found = fetch(dsn, "SELECT table_name || ': ' || result FROM logstore.make_partitions()")
    assert found == [
        f"execution_logs: failed: view logstore.execution_logs{month} has the name that the"
        " partition would have",
        *["logs: made"] * (len(found) - 1),
    ]
    assert len(found) > 1


def test_many_are_made_in_several_calls(any_server: Server) -> None:
    """Each needs a dozen locks until the transaction ends, and a server has some thousands."""
    with any_server.database() as dsn:
        partition(dsn, step="day", ahead="30 days")
        counts = [len(fetch(dsn, "SELECT logstore.make_partitions()")) for _ in range(3)]
        assert counts == [20, 11, 0]
        assert len(partitions(dsn)) == 31


def test_cover_ends_at_the_first_gap(any_dsn: str) -> None:
    """And where there is no partition even now, there is none."""
    first, second = window("month", datetime.now(UTC))
    third = month_after(second)
    assert fetch(any_dsn, COVERED, "logs") == [None]
    _make(any_dsn, second, third)
    assert fetch(any_dsn, COVERED, "logs") == [None]
    _make(any_dsn, None, first)
    _make(any_dsn, first, second)
    _make(any_dsn, month_after(third), month_after(month_after(third)))
    execute(any_dsn, "CREATE TABLE logstore.rest PARTITION OF logstore.logs DEFAULT")
    covered = "SELECT logstore.covered_until('logs')"
    assert fetch(any_dsn, covered) == [third]


def test_cover_of_other_tables(any_dsn: str) -> None:
    """A plain one takes every row; of one that is not there nothing is said."""
    assert fetch(any_dsn, COVERED, "quota_logs") == ["infinity"]
    assert fetch(any_dsn, COVERED, "nothing") == [None]


def test_unusual_bounds_are_read(any_dsn: str) -> None:
    """Those that others made: no end at all, dates before Christ, a fraction of a second."""
    first, _ = window("month", datetime.now(UTC))
    for statement in (
        "CREATE TABLE logstore.a PARTITION OF logstore.logs"
        " FOR VALUES FROM (MINVALUE) TO ('0044-03-15 00:00:00.000001+00 BC')",
        "CREATE TABLE logstore.b PARTITION OF logstore.logs"
        f" FOR VALUES FROM ('{first.isoformat()}') TO (MAXVALUE)",
    ):
        execute(any_dsn, statement)
    found = fetch(
        any_dsn,
        "SELECT concat_ws(' ', partition, lower, upper) FROM"
        " logstore.partitions_of('logstore.logs'::regclass) ORDER BY lower",
    )
    assert [line.split()[0] for line in found] == ["logstore.a", "logstore.b"]
    assert "00:00:00.000001+00 BC" in found[0]
    assert fetch(any_dsn, COVERED, "logs") == ["infinity"]
    assert _ensure(any_dsn, "now", "2999-01-01", "-infinity") == ["already"] * 3


def _ensure(dsn: str, *instants: datetime | str) -> list[str]:
    """One transaction for each, as a writer has it."""
    return [fetch(dsn, ENSURE, instant)[0] for instant in instants]


def _make(dsn: str, lower: datetime | None, upper: datetime) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "SELECT logstore.make_partition('logstore.logs', 'given' || %s, %s, %s)",
            [f"{upper:%Y%m%d}", lower or "-infinity", upper],
        )


def _retire(dsn: str, state: str, tenant: str | None, upper: datetime) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO logstore.retirements (retirement_id, table_name, partition_name,"
            " partition_oid, instance_id, lower_bound, upper_bound, state)"
            " VALUES (gen_random_uuid(), 'logs', 'x', 0, %s, '-infinity', %s, %s)",
            [tenant, upper, state],
        )
