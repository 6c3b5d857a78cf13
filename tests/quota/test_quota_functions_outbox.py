"""Crossings that are to be told, and what is cleaned away when nobody needs it."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from quota_counters import HOUR_US, Subject, answers, asking, rolling

from monthly_scene import until_somebody_waits

LOGGED = (
    "INSERT INTO logstore.quota_logs (instance_id, log_id, quota_id, log_date, previous_usage,"
    " current_usage, quota_limit, resource_owner, allowed, threshold_exceeded)"
    " SELECT instance_id, crossing_id::text, quota_id, crossed_at, previous_usage, current_usage,"
    " quota_limit, instance_id, true, true FROM logstore.quota_crossings"
    " WHERE crossing_id = ANY (%s)"
)
UNFINISHED = "SELECT * FROM logstore.unfinished_crossings(%s, %s)"
CALLED = "SELECT logstore.crossings_called(%s)"
CLEAN = "SELECT * FROM logstore.clean_quotas(%s, %s)"


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def crossed(conn: psycopg.Connection, thresholds: list[int]) -> list[uuid.UUID]:
    """Identities of crossings of these thresholds, committed and not told."""
    answer = Subject(conn).spend(n=10, thresholds=thresholds)
    return [uuid.UUID(each["crossing_id"]) for each in answer.crossings or ()]


def unfinished(
    conn: psycopg.Connection, older_than: str = "-100 years", most: int = 10
) -> list[dict[str, Any]]:
    """What a process that looks after crossings is handed; by default however young it is."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(UNFINISHED, [older_than, most]).fetchall()


def identities(rows: list[dict[str, Any]]) -> list[uuid.UUID]:
    return [row["crossing_id"] for row in rows]


def test_crossing_is_handed_out_until_it_is_stored_and_called(conn: psycopg.Connection) -> None:
    """The row says which of the two it lacks; that it is stored is seen in quota_logs."""
    first, second = crossed(conn, [50, 100])
    rows = unfinished(conn)
    assert identities(rows) == [first, second]
    assert [(row["stored_at"], row["called_at"]) for row in rows] == [(None, None)] * 2
    conn.execute(LOGGED, [[first]])
    assert [row["stored_at"] is None for row in unfinished(conn)] == [False, True]
    assert conn.execute(CALLED, [[first, second, uuid.uuid4()]]).fetchone() == (2,)
    assert conn.execute(CALLED, [[first, second]]).fetchone() == (0,)
    (row,) = unfinished(conn)
    assert (row["crossing_id"], row["stored_at"]) == (second, None)
    assert row["called_at"] is not None
    conn.execute(LOGGED, [[second]])
    assert unfinished(conn) == []


def test_row_of_another_tenant_or_time_is_not_that_of_the_crossing(
    conn: psycopg.Connection,
) -> None:
    """The identity alone would be looked for in every partition."""
    (first,) = crossed(conn, [100])
    for tenant, at in (("other", "2027-01-01 12:00+00"), ("acme", "2027-01-01 12:00:01+00")):
        conn.execute(
            "INSERT INTO logstore.quota_logs (instance_id, log_date, log_id, quota_id,"
            " previous_usage, current_usage, quota_limit, resource_owner, allowed)"
            " VALUES (%s, %s, %s, 'exports', 0, 0, 0, '', true)",
            [tenant, at, str(first)],
        )
    assert [row["stored_at"] for row in unfinished(conn)] == [None]


def test_row_is_found_in_its_partition(conn: psycopg.Connection) -> None:
    """Where quota_logs is partitioned."""
    conn.execute(
        "DROP TABLE logstore.quota_logs;"
        " CREATE TABLE logstore.quota_logs (instance_id text, log_id text, quota_id text,"
        " log_date timestamptz, previous_usage bigint, current_usage bigint, quota_limit bigint,"
        " resource_owner text, allowed boolean, threshold_exceeded boolean)"
        " PARTITION BY RANGE (log_date);"
        " CREATE TABLE logstore.of_2027 PARTITION OF logstore.quota_logs"
        " FOR VALUES FROM ('2027-01-01 00:00+00') TO ('2028-01-01 00:00+00')"
    )
    first, _ = crossed(conn, [50, 100])
    conn.execute(LOGGED, [[first]])
    assert [row["stored_at"] is None for row in unfinished(conn)] == [False, True]


def test_crossing_is_handed_to_one_process_at_a_time(conn: psycopg.Connection) -> None:
    """Whoever has it, has it for as long as they said; the longest unclaimed come first."""
    first, second, third = crossed(conn, [50, 80, 100])
    conn.execute("UPDATE logstore.quota_crossings SET claimed_at = clock_timestamp()")
    assert unfinished(conn, "1 minute") == []
    for crossing, age in ((first, "2 min"), (third, "3 min")):
        conn.execute(
            "UPDATE logstore.quota_crossings SET claimed_at = claimed_at - %s::interval"
            " WHERE crossing_id = %s",
            [age, crossing],
        )
    assert identities(unfinished(conn, "1 minute", 1)) == [third]
    assert identities(unfinished(conn, "1 minute", 5)) == [first]
    assert unfinished(conn, "1 minute") == []
    assert set(identities(unfinished(conn, "0"))) == {first, second, third}


def test_two_who_look_at_once_are_handed_different_ones(dsn: str, conn: psycopg.Connection) -> None:
    """The second does not wait for the first."""
    both = crossed(conn, [50, 100])
    with psycopg.connect(dsn) as other:
        taken = identities(unfinished(other, most=1))
        conn.execute("SET lock_timeout = '1ms'")
        assert identities(unfinished(conn)) == [each for each in both if each not in taken]


def test_crossings_are_locked_in_the_order_of_their_identities(
    dsn: str, conn: psycopg.Connection
) -> None:
    """After a kill two may have called back for the same ones, and each names them as it likes."""
    low, high = uuid.UUID(int=1), uuid.UUID(int=2)
    for percent, identity in zip((50, 100), (high, low), strict=True):
        crossed(conn, [percent])
        conn.execute(
            "UPDATE logstore.quota_crossings SET crossing_id = %s WHERE percent = %s",
            [identity, percent],
        )
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:
        assert other.execute(CALLED, [[low]]).fetchone() == (1,)
        waiting = pool.submit(conn.execute, CALLED, [[high, low]])
        until_somebody_waits(dsn)
        assert other.execute(CALLED, [[high]]).fetchone() == (1,)
        other.commit()
        assert waiting.result().fetchone() == (0,)


def test_what_ended_long_ago_is_cleaned_away(conn: psycopg.Connection) -> None:
    """Counters by the end of their period, windows by when the last unit left them."""
    (now_us,) = conn.execute("SELECT logstore.microseconds(now())").fetchone() or (0,)
    for age, subject in ((3, "old"), (1, "young"), (0, "current")):
        at_us = now_us - age * HOUR_US
        period = {"start": at_us - HOUR_US // 2, "end": at_us + HOUR_US // 2}
        asks = [asking(subject, **period), rolling(subject, HOUR_US // 2)]
        answers(conn, asks, at_us)
    assert conn.execute(CLEAN, ["2 hours", 10]).fetchone() == (1, 1, 0)
    assert conn.execute(CLEAN, ["2 hours", 10]).fetchone() == (0, 0, 0)
    assert _left(conn, "quota_usage") == _left(conn, "quota_windows") == ["current", "young"]
    assert conn.execute(CLEAN, ["0", 10]).fetchone() == (1, 1, 0)
    assert _left(conn, "quota_usage") == _left(conn, "quota_windows") == ["current"]


def test_some_are_cleaned_away_at_a_time(conn: psycopg.Connection) -> None:
    """So that a transaction stays short; what ended first goes first."""
    for day in (3, 0, 4, 1, 2):
        start_us = day * 24 * HOUR_US
        period = {"start": start_us, "end": start_us + HOUR_US}
        answers(conn, [asking(f"day-{day}", **period), rolling(f"day-{day}")], start_us)
    assert conn.execute(CLEAN, ["0", 2]).fetchone() == (2, 2, 0)
    assert _left(conn, "quota_usage") == ["day-2", "day-3", "day-4"]
    assert conn.execute(CLEAN, ["0", 9]).fetchone() == (3, 3, 0)


def test_crossing_stays_until_it_is_told(conn: psycopg.Connection) -> None:
    """Its counter may have gone before; then it is told from what the row says."""
    past = {"start": 0, "end": HOUR_US, "thresholds": [10]}
    told = answers(conn, [asking("a", **past)], 0)[0].crossings or []
    identity = uuid.UUID(told[0]["crossing_id"])
    assert conn.execute(CLEAN, ["0", 10]).fetchone() == (1, 0, 0)
    conn.execute(LOGGED, [[identity]])
    assert identities(unfinished(conn)) == [identity]
    assert conn.execute(CLEAN, ["0", 10]).fetchone() == (0, 0, 0)
    conn.execute(CALLED, [[identity]])
    assert conn.execute(CLEAN, ["100 years", 10]).fetchone() == (0, 0, 0)
    assert conn.execute(CLEAN, ["0", 10]).fetchone() == (0, 0, 1)


@pytest.mark.parametrize("keep", ["-1 second", "-1 month"])
def test_what_has_not_ended_cannot_be_cleaned_away(conn: psycopg.Connection, keep: str) -> None:
    """A sign too much would let everybody begin again."""
    (now_us,) = conn.execute("SELECT logstore.microseconds(now())").fetchone() or (0,)
    ask = asking("a", start=now_us, end=now_us + 1000)
    conn.execute("SELECT logstore.spend_quotas(%s)", [json.dumps([ask])])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="kept for some time"):
        conn.execute(CLEAN, [keep, 10])


@pytest.mark.parametrize(
    ("before", "after", "table"),
    [
        (rolling("a"), rolling("a"), "quota_windows"),
        (asking("a", start=0, end=1), asking("a", start=0, end=2**53), "quota_usage"),
    ],
)
def test_counter_that_is_spent_from_again_stays(
    dsn: str, conn: psycopg.Connection, before: dict[str, Any], after: dict[str, Any], table: str
) -> None:
    """Between the moment in which it is found and that in which it would go."""
    answers(conn, [before], 0)
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT logstore.spend_quotas(%s)", [json.dumps([after])])
        waiting = pool.submit(conn.execute, CLEAN, [timedelta(0), 10])
        until_somebody_waits(dsn)
        other.commit()
        assert waiting.result().fetchone() == (0, 0, 0)
    assert _left(conn, table) == ["a"]


def _left(conn: psycopg.Connection, table: str) -> list[str]:
    query = sql.SQL("SELECT subject FROM {} ORDER BY subject")
    rows = conn.execute(query.format(sql.Identifier("logstore", table)))
    return [subject for (subject,) in rows]
