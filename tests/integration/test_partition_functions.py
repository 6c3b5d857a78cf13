"""Migration 0008: the functions that make partitions, for Python, pg_cron and the writer."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.errors import PartitionError
from auditlog.partitions.creating import create
from auditlog.partitions.reading.drift import drift
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import MARK, name, window
from auditlog.tables import LOGS
from databases import Server
from monthly_scene import (
    INSERT,
    MAY,
    bounds,
    comment,
    dressing,
    methods,
    microseconds,
    month_after,
    monthly_databases,
    until_somebody_waits,
)
from partitioned import partitions
from trail import fetch

SESSIONS = {
    "kathmandu": "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'",
    "new york": "SET timezone = 'America/New_York'; SET datestyle = 'German'",
    "no path": "SET search_path = ''; SET intervalstyle = 'sql_standard'",
    "own tables": "CREATE TEMP TABLE pg_inherits (); CREATE TEMP TABLE pg_class ();"
    " SET search_path = pg_temp, pg_catalog; SET quote_all_identifiers = on;"
    " SET transform_null_equals = on; SET default_table_access_method = 'heap'",
}


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


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def any_conn(any_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def elsewhere(any_monthly: Server) -> Iterator[psycopg.Connection]:
    """A connection whose session is in another zone, for tests that change nothing."""
    with any_monthly.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(SESSIONS["new york"])
        yield conn


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["day", "week", "month"]),
            st.datetimes(timezones=st.just(UTC)).filter(lambda at: 1 < at.year < 9998),
        ),
        max_size=40,
    )
)
def test_windows_and_names_are_those_of_python(elsewhere, asked: list) -> None:
    """One algorithm for all who make partitions, whatever the zone of the session."""
    expected = []
    for step, at in asked:
        lower, upper = window(step, at)
        names = name("logs", step, lower), name("logs", step, at)
        expected.append((microseconds(lower), microseconds(upper), *names))
    found = elsewhere.execute(
        "SELECT (extract(epoch FROM lower) * 1000000)::bigint,"
        " (extract(epoch FROM upper) * 1000000)::bigint,"
        " logstore.partition_name('logs', step, lower), logstore.partition_name('logs', step, at)"
        " FROM unnest(%s::text[], %s::timestamptz[]) WITH ORDINALITY AS asked (step, at, place),"
        " logstore.partition_window(step, at) ORDER BY place",
        [[step for step, _ in asked], [at for _, at in asked]],
    ).fetchall()
    assert found == expected


def test_partition_is_made_like_its_table(conn: psycopg.Connection) -> None:
    """With a key of its own, the guard, the mark; and ATTACH has built no index a second time."""
    conn.execute("ALTER TABLE logstore.logs ADD COLUMN theirs bigint DEFAULT 47")
    conn.execute("CREATE INDEX theirs_idx ON logstore.logs (theirs) WITH (fillfactor = 70)")
    assert create(conn, "logs", "logs_p203105", *MAY) == "made"
    assert create(conn, "logs", "logs_p203105", *MAY) == "already"
    conn.execute(INSERT, [MAY[0]])
    assert conn.execute("SELECT theirs FROM logstore.logs_p203105").fetchall() == [(47,)]
    assert comment(conn, "logs_p203105") == f"{MARK}logs"
    definitions = sorted(methods(conn, "logs_p203105"))
    key = "btree (instance_id, log_id)"
    assert definitions == sorted([*methods(conn, "logs"), key])
    assert len(definitions) == len(LOGS.indexes) + 2
    assert any("autosummarize='on'" in each for each in definitions)
    assert drift(conn, "logs") == {}
    assert dressing(conn, "logs_p203105") == []


def test_key_of_the_table_is_not_made_a_second_time(conn: psycopg.Connection) -> None:
    """Whoever gave the table one has it on each partition."""
    conn.execute("ALTER TABLE logstore.logs ADD PRIMARY KEY (instance_id, log_id, log_date)")
    assert create(conn, "logs", "logs_p203105", *MAY) == "made"
    assert "btree (instance_id, log_id, log_date)" in methods(conn, "logs_p203105")


def test_identity_and_statistics_of_the_operator_are_no_obstacle(conn: psycopg.Connection) -> None:
    """A partition has no identity of its own: newer servers refuse to attach one that has."""
    conn.execute("ALTER TABLE logstore.logs ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY")
    conn.execute("CREATE STATISTICS logstore.theirs ON user_id, event_type FROM logstore.logs")
    assert create(conn, "logs", "logs_p203105", *MAY) == "made"
    conn.execute(INSERT, [MAY[0]])
    assert conn.execute("SELECT number FROM logstore.logs").fetchall() == [(1,)]


def test_storage_parameters_are_those_of_the_partition_before(conn: psycopg.Connection) -> None:
    """The table itself can have none."""
    create(conn, "logs", "logs_before", None, datetime(2031, 5, 1, tzinfo=UTC))
    conn.execute("ALTER TABLE logstore.logs_before SET (fillfactor = 90, autovacuum_enabled = off)")
    create(conn, "logs", "logs_p203105", *MAY)
    options = "SELECT reloptions FROM pg_class WHERE relname = 'logs_p203105'"
    assert conn.execute(options).fetchone() == (["fillfactor=90", "autovacuum_enabled=off"],)


@pytest.mark.parametrize("change", ["UPDATE {} SET user_id = ''", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("table", ["logs", "logs_p203105"])
def test_partition_is_append_only_by_either_name(any_conn, change: str, table: str) -> None:
    """Statement triggers are not inherited, so each partition has its own."""
    create(any_conn, "logs", "logs_p203105", *MAY)
    any_conn.execute(INSERT, [MAY[0]])
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        any_conn.execute(change.format(f"logstore.{table}"))


@pytest.mark.parametrize("session", SESSIONS)
def test_session_changes_neither_bounds_nor_names(any_dsn: str, session: str) -> None:
    """All settings that a database or a login may have, and tables with names of the catalog."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        conn.execute(SESSIONS[session])
        made = conn.execute("SELECT logstore.ensure_partition('logs', now())").fetchone()
        again = conn.execute("SELECT logstore.ensure_partition('logs', now())").fetchone()
        conn.execute("SELECT logstore.make_partitions()")
        covered = conn.execute(
            "SELECT (extract(epoch FROM logstore.covered_until('logs')) * 1000000)::bigint"
        ).fetchone()
    assert (made, again) == (("made",), ("already",))
    (first, *_, last), now = bounds(any_dsn), datetime.now(UTC)
    assert first == (name("logs", "month", window("month", now)[0]), *window("month", now))
    assert covered == (microseconds(last[2]),)
    assert (last[1], last[2]) == window("month", Span(months=3).after(now))


@pytest.mark.parametrize(("kept", "covered"), [(False, "infinity"), (True, None)])
def test_default_partition_covers_what_somebody_else_partitioned(
    any_conn: psycopg.Connection, kept: bool, covered: str | None
) -> None:
    """Where maintenance keeps the table, rows in there are about to be a problem."""
    any_conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
    if not kept:
        any_conn.execute("DELETE FROM logstore.partitioning")
    found = any_conn.execute("SELECT logstore.covered_until('logs')::text").fetchone()
    assert found == (covered,)


def test_two_who_make_the_same_partition_make_it_once(dsn: str) -> None:
    """The second waits for the first, and finds its work."""
    with psycopg.connect(dsn) as first, ThreadPoolExecutor(1) as pool:
        ensure = "SELECT logstore.ensure_partition('logs', now())"
        assert first.execute(ensure).fetchone() == ("made",)
        second = pool.submit(fetch, dsn, ensure)
        until_somebody_waits(dsn)
        first.commit()
        assert second.result(20) == ["already"]
    assert len(partitions(dsn)) == 1


def test_many_who_make_the_same_partitions_make_each_once(dsn: str) -> None:
    """Nobody fails, and nobody waits for ever."""
    barrier = threading.Barrier(4)

    def make(_: int) -> list[str]:
        barrier.wait()
        return fetch(dsn, "SELECT partition_name || ' ' || result FROM logstore.make_partitions()")

    with ThreadPoolExecutor(4) as pool:
        told = [line for lines in pool.map(make, range(4)) for line in lines]
    made = sorted(line.removesuffix(" made") for line in told if line.endswith(" made"))
    assert made == partitions(dsn)
    assert {line.rpartition(" ")[2] for line in told} <= {"made", "already"}


def test_readers_and_writers_are_not_in_the_way(dsn: str) -> None:
    """Of a transaction that has written, read, and has a COPY under way."""
    with psycopg.connect(dsn) as writer, psycopg.connect(dsn, autocommit=True) as conn:
        create(conn, "logs", "logs_p203105", *MAY)
        writer.execute("SELECT * FROM logstore.logs")
        with writer.cursor().copy("COPY logstore.logs (instance_id, log_id) FROM STDIN"):
            conn.execute("SET lock_timeout = '1ms'")
            assert create(conn, "logs", "logs_p203106", MAY[1], month_after(MAY[1])) == "made"


def test_writer_in_a_transaction_does_not_wait_for_a_maker(dsn: str) -> None:
    """Nor does one that begins meanwhile, though what is made it cannot see yet."""
    with psycopg.connect(dsn) as maker, psycopg.connect(dsn, autocommit=True) as writer:
        create(maker, "logs", "logs_p203105", *MAY)
        maker.commit()
        create(maker, "logs", "logs_p203106", MAY[1], month_after(MAY[1]))
        writer.execute("SET lock_timeout = '1ms'")
        writer.execute(
            "INSERT INTO logstore.batches (batch_id, writer, bytes, sha256)"
            " VALUES (gen_random_uuid(), 'host:1', 0, sha256(''))"
        )
        writer.execute(INSERT, [MAY[0]])
        with pytest.raises(psycopg.errors.CheckViolation, match="no partition of relation"):
            writer.execute(INSERT, [MAY[1]])


def test_wait_for_another_maker_ends(any_dsn: str) -> None:
    """After the caller's time, or the function's own where the writer calls it."""
    with psycopg.connect(any_dsn) as holder, psycopg.connect(any_dsn, autocommit=True) as conn:
        holder.execute("LOCK TABLE ONLY logstore.logs IN SHARE UPDATE EXCLUSIVE MODE")
        conn.execute("SET lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            create(conn, "logs", "logs_p203105", *MAY)
        conn.execute("SET lock_timeout = 0")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            conn.execute("SELECT logstore.ensure_partition('logs', now())")
    assert partitions(any_dsn) == []


STRAYS = {
    "empty table": ("TABLE {} (LIKE logstore.logs)", "table"),
    "table of another shape": ("TABLE {} (theirs text)", "table"),
    "unlogged table": ("UNLOGGED TABLE {} (LIKE logstore.logs)", "table"),
    "view": ("VIEW {} AS SELECT 1 AS one", "view"),
    "materialized view": ("MATERIALIZED VIEW {} AS SELECT 1 AS one", "materialized view"),
    "sequence": ("SEQUENCE {}", "sequence"),
    "type": ("TYPE {} AS (theirs text)", "composite type"),
    "domain": ("DOMAIN {} AS text", "type"),
    "foreign table": ("FOREIGN TABLE {} (theirs text) SERVER far", "foreign table"),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_name_that_is_taken_is_said_and_left_alone(any_conn, stray: str) -> None:
    """Whatever has it; nothing is attached, and nothing is passed over in silence."""
    any_conn.execute(
        "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER far FOREIGN DATA WRAPPER away"
    )
    statement, kind = STRAYS[stray]
    any_conn.execute(f"CREATE {statement.format('logstore.logs_p203105')}")
    with pytest.raises(PartitionError, match=rf"{kind}.*rename what has the name"):
        create(any_conn, "logs", "logs_p203105", *MAY)
    assert any_conn.execute(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'logstore.logs'::regclass"
    ).fetchone() == (0,)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("2031-05-01+00", "2031-05-02+00"), ("2031-04-30+00", "2031-05-01 00:00:00.000001+00"),
     ("-infinity", "2032-01-01+00")],
)  # fmt: skip
def test_overlap_is_refused_whole(any_conn, lower: str, upper: str) -> None:
    """Nothing is left behind; the ranges are told in UTC, wherever the session is."""
    any_conn.execute("SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'")
    create(any_conn, "logs", "logs_p203105", *MAY)
    with pytest.raises(PartitionError, match=_IN_UTC):
        create(any_conn, "logs", "logs_other", lower, upper)  # type: ignore[arg-type]
    assert any_conn.execute("SELECT to_regclass('logstore.logs_other')").fetchone() == (None,)


_IN_UTC = r"to 203\d-\d\d-\d\d [0-9:.]+\+00 would overlap logstore\.logs_p203105.*partitions status"


def test_neighbours_may_touch(any_conn) -> None:
    """The end of one is the beginning of the next; rows on it belong to the next."""
    create(any_conn, "logs", "logs_p203105", *MAY)
    create(any_conn, "logs", "logs_p203106", MAY[1], month_after(MAY[1]))
    create(any_conn, "logs", "logs_legacy", None, MAY[0])
    any_conn.execute(INSERT, [MAY[1]])
    assert any_conn.execute("SELECT count(*) FROM logstore.logs_p203106").fetchone() == (1,)
    assert create(any_conn, "logs", "logs_legacy", None, MAY[0]) == "already"


def test_partition_has_an_end(any_conn) -> None:
    """Other tools for partitions fail where one has none."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not at infinity"):
        any_conn.execute("SELECT logstore.make_partition('logstore.logs', 'x', now(), 'infinity')")


def test_rows_in_a_default_partition_are_said(any_conn) -> None:
    """They keep the partition from being made; the remedy does not lose them."""
    any_conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
    any_conn.execute(INSERT, [MAY[0]])
    with pytest.raises(PartitionError, match="the DEFAULT partition has rows of that time"):
        create(any_conn, "logs", "logs_p203105", *MAY)
