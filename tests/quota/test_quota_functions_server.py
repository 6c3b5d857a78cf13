"""The SQL functions of quotas in their server: clock, plans, updates, rights, sessions."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quota_counters import (
    DAY_US,
    NOON_US,
    PATIENT,
    RETURN,
    START_US,
    Subject,
    answers,
    asking,
    rolling,
)

from auditlog.postgres.migrate import migrate
from databases import Server, as_role

SESSIONS = {
    "kathmandu": "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'SQL, DMY'",
    "no path": "SET search_path = ''; SET intervalstyle = 'sql_standard'",
    "own objects": "CREATE TEMP TABLE quota_usage (); CREATE SCHEMA theirs;"
    " CREATE FUNCTION theirs.never(bigint, bigint) RETURNS boolean LANGUAGE sql RETURN false;"
    " CREATE OPERATOR theirs.<= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = theirs.never);"
    " CREATE FUNCTION theirs.floor(numeric) RETURNS numeric LANGUAGE sql RETURN 47;"
    " SET search_path = pg_temp, theirs, pg_catalog; SET transform_null_equals = on;"
    " SET extra_float_digits = -15; SET quote_all_identifiers = on",
}


def test_public_functions_are_on_the_clock_of_the_database(subject: Subject) -> None:
    """The instants in their answers and rows are those of the call."""
    conn = subject.conn
    (before_us,) = conn.execute("SELECT logstore.microseconds(clock_timestamp())").fetchone() or ()
    ask = asking(subject.name, start=before_us, end=before_us + DAY_US)
    row = conn.execute("SELECT * FROM logstore.spend_quotas(%s)", [json.dumps([ask])]).fetchone()
    (after_us,) = conn.execute("SELECT logstore.microseconds(clock_timestamp())").fetchone() or ()
    assert row is not None
    assert row[1] == "ok"
    assert before_us <= row[6] <= after_us
    returns = json.dumps([ask | {"units": 1}])
    assert conn.execute("SELECT logstore.return_quotas(%s)", [returns]).fetchone() == (1,)
    assert [each["used"] for each in subject.rows("quota_usage")] == [0]


@PATIENT
@given(st.lists(st.datetimes().map(lambda at: at.replace(tzinfo=UTC)), min_size=1, max_size=50))
def test_instants_are_exact(any_conn: psycopg.Connection, instants: list[datetime]) -> None:
    """To the microsecond, in all years that Python has."""
    us = [(at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for at in instants]
    found = any_conn.execute(
        "SELECT bool_and(logstore.instant(us) = at AND logstore.microseconds(at) = us)"
        " FROM unnest(%s::bigint[], %s::timestamptz[]) AS each (us, at)",
        [us, instants],
    ).fetchone()
    assert found == (True,)


def test_uuids_are_of_version_7(conn: psycopg.Connection) -> None:
    """With the instant's milliseconds in front, and the rest at random."""
    made = conn.execute(
        "SELECT logstore.uuid7('2027-01-01 00:00:00.0009995+00') FROM generate_series(1, 100)"
    ).fetchall()
    assert len(set(made)) == 100
    for (identity,) in made:
        assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
        assert identity.int >> 80 == START_US // 1000 + 1


def test_counters_are_updated_in_place(server: Server) -> None:
    """Nearly every update is heap-only: no index is touched, and no vacuum is needed for it."""
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(300):
            answers(conn, [asking("a", limit=1000), rolling("a", limit=1000)])
        conn.execute("SELECT pg_stat_force_next_flush()")
        shares = conn.execute(
            "SELECT relname, n_tup_upd, n_tup_hot_upd > 0.9 * n_tup_upd FROM pg_stat_user_tables"
            " WHERE relname IN ('quota_usage', 'quota_windows') ORDER BY relname"
        ).fetchall()
    assert shares == [("quota_usage", 299, True), ("quota_windows", 299, True)]


def test_plans_made_while_tables_are_small_do_not_read_them_whole(server: Server) -> None:
    """A session keeps its plans until the tables are analysed again."""
    with server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        past = conn.execute("SELECT logstore.microseconds(now())").fetchone() or ()
        day = {"start": past[0], "end": past[0] + DAY_US}
        fixed = asking("a", **day)
        window = rolling("a")
        returned = [fixed | {"units": 1}, window | {"units": 1, "at": past[0]}]
        queries = (
            ("SELECT * FROM logstore.spend_quotas(%s)", [fixed, window]),
            ("SELECT logstore.return_quotas(%s)", returned),
        )
        conn.execute(queries[0][0], [json.dumps(queries[0][1])])
        conn.execute("VACUUM ANALYZE logstore.quota_usage")
        conn.execute("VACUUM ANALYZE logstore.quota_windows")
        scans = "SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE relname LIKE 'quota_%s'"
        conn.execute("SELECT pg_stat_force_next_flush()")
        before = conn.execute(scans % "%").fetchone()
        for query, batch in queries:
            for _ in range(10):
                conn.execute(query, [json.dumps(batch)])
        conn.execute("SELECT pg_stat_force_next_flush()")
        assert conn.execute(scans % "%").fetchone() == before


def test_needs_no_right_but_that_to_execute(server: Server) -> None:
    """Whoever may spend can neither set counters nor the clock; the owner is no superuser."""
    with server.role() as owner, server.role() as role, server.database(migrated=False) as dsn:
        with psycopg.connect(dsn) as conn:
            for schema in ("logstore", "projections"):
                conn.execute(f'CREATE SCHEMA {schema} AUTHORIZATION "{owner}"')
        migrate(as_role(dsn, owner))
        with psycopg.connect(as_role(dsn, owner)) as conn:
            conn.execute(
                f'GRANT USAGE ON SCHEMA logstore TO "{role}"; GRANT EXECUTE ON FUNCTION'
                " logstore.spend_quotas(jsonb), logstore.return_quotas(jsonb),"
                " logstore.unfinished_crossings(interval, integer),"
                f' logstore.crossings_called(uuid[]) TO "{role}"'
            )
        with psycopg.connect(as_role(dsn, role), autocommit=True) as conn:
            conn.execute(
                "CREATE TEMP TABLE quota_usage (); SET search_path = pg_temp, logstore, pg_catalog"
            )
            ask = json.dumps([asking("a", start=0, end=2**53, thresholds=[10]), rolling("a")])
            found = conn.execute("SELECT granted FROM logstore.spend_quotas(%s)", [ask]).fetchall()
            assert found == [(1,), (1,)]
            told = conn.execute("SELECT * FROM logstore.unfinished_crossings('0', 9)").fetchall()
            assert len(told) == 1
            for query in (
                "SELECT logstore.spend_quotas_at('[]', now())",
                "SELECT logstore.clean_quotas('0', 1)",
                "SELECT * FROM logstore.quota_usage",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(query)


@pytest.mark.parametrize("session", SESSIONS.values(), ids=SESSIONS)
def test_answers_are_the_same_in_any_session(any_server: Server, session: str) -> None:
    """Whatever its zone, its formats, its path, and the objects that it puts in front of ours."""
    found = []
    for setting in ("SELECT", session):
        with any_server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(setting)
            asks = [kind("a", n=9, thresholds=[50, 80]) for kind in (asking, rolling)]
            spent = [answers(conn, asks), answers(conn, asks)]
            returns = [each | {"units": 5, "at": NOON_US} for each in asks]
            conn.execute(RETURN, [json.dumps(returns), NOON_US])
            found.append((*spent, answers(conn, asks)))
    for answer in found[0][0] + found[1][0]:
        for crossing in answer.crossings or ():
            del crossing["crossing_id"]
    assert found[0] == found[1]
