"""What is used, as the counters have it: the same that a spending would be measured against."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb
from quota_counters import DAY_US, HOUR_US, answers, asking, rolling

from auditlog.quota.keeping.store import put
from auditlog.quota.keeping.usage import Usage
from auditlog.quota.keeping.usage import usage as used
from auditlog.quota.model import Quota
from databases import Server


@pytest.fixture(scope="module")
def conn(any_server: Server) -> Iterator[psycopg.Connection[Any]]:
    """One database for all of them; each test begins without counters."""
    with any_server.database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture(autouse=True)
def _empty(conn: psycopg.Connection[Any]) -> None:
    conn.execute("TRUNCATE logstore.quotas, logstore.quota_usage, logstore.quota_windows")


@pytest.fixture
def now_us(conn: psycopg.Connection[Any]) -> int:
    with conn.cursor(row_factory=scalar_row) as cursor:
        query = "SELECT logstore.microseconds(clock_timestamp())"
        return int(cursor.execute(query).fetchone() or 0)


def usage(conn: psycopg.Connection[Any], **wanted: Any) -> list[Usage]:
    return used(conn, **{"rows": 100, **wanted})


def would_find(conn: psycopg.Connection[Any]) -> int:
    """What a spending finds in the window at this moment; the next one may find less."""
    asks = Jsonb([rolling("ada", a=0)])
    with conn.cursor(row_factory=scalar_row) as cursor:
        cursor.execute("SELECT usage FROM logstore.spend_quotas(%s)", [asks])
        return int(cursor.fetchone() or 0)


def around(at_us: int) -> dict[str, int]:
    """Bounds of a period of a day that an instant is in the middle of."""
    return {"start": at_us - DAY_US // 2, "end": at_us + DAY_US // 2}


def test_a_counter_is_told_with_what_follows_from_it(
    conn: psycopg.Connection[Any], now_us: int
) -> None:
    """Used, left, per cent, when it resets, which threshold was told."""
    ask = asking("ada", n=8, thresholds=[50, 80, 100], **around(now_us))
    answers(conn, [ask], now_us)
    (found,) = usage(conn)
    assert (found.quota_id, found.tenant, found.subject) == ("exports", "acme", "ada")
    assert (found.used, found.limit, found.remaining, found.percent) == (8, 10, 2, 80.0)
    assert (found.told_percent, found.rolling) == (80, False)
    assert found.period_end - found.period_start == timedelta(days=1)
    assert timedelta(hours=11) < found.resets_in <= timedelta(hours=12)


def test_the_nearest_to_its_limit_comes_first(conn: psycopg.Connection[Any], now_us: int) -> None:
    """A limit of nothing is the nearest of all, and has no per cent; filters leave others out."""
    for subject, tenant, units, limit in (
        ("a", "acme", 3, 10),
        ("b", "acme", 50, 1000),
        ("c", "globex", 9, 10),
        ("d", "acme", 0, 0),
        ("e", "acme", 12, 10),
    ):
        ask = asking(subject, t=tenant, a=units or 1, limit=limit, forced=True, **around(now_us))
        answers(conn, [ask], now_us)
    assert [each.subject for each in usage(conn)] == ["d", "e", "c", "a", "b"]
    assert [each.percent for each in usage(conn)] == [None, 120.0, 90.0, 30.0, 5.0]
    assert [each.remaining for each in usage(conn)] == [0, 0, 1, 7, 950]
    assert [each.subject for each in usage(conn, rows=2)] == ["d", "e"]
    assert [each.subject for each in usage(conn, tenant="globex")] == ["c"]
    assert [each.subject for each in usage(conn, subject="a")] == ["a"]
    assert [each.subject for each in usage(conn, over=90)] == ["d", "e", "c"]
    assert usage(conn, quota_id="imports") == []


def test_a_changed_limit_is_told_before_anybody_spends(
    conn: psycopg.Connection[Any], now_us: int
) -> None:
    """The tenant's own goes before the one for all, as it does when it is spent."""
    answers(conn, [asking("ada", n=5, **around(now_us))], now_us)
    put(conn, Quota("exports", limit=20))
    assert [each.limit for each in usage(conn)] == [20]
    put(conn, Quota("exports", limit=40, tenant="acme"))
    put(conn, Quota("exports", limit=60, tenant="globex"))
    assert [(each.limit, each.percent) for each in usage(conn)] == [(40, 12.5)]


def test_periods_that_are_over_are_told_when_asked_for(
    conn: psycopg.Connection[Any], now_us: int
) -> None:
    """The newest first, with the limit as it was then."""
    for days in (0, 2, 1):
        at_us = now_us - days * DAY_US
        answers(conn, [asking("ada", n=9 - days, **around(at_us))], at_us)
    put(conn, Quota("exports", limit=20))
    assert [each.used for each in usage(conn)] == [9]
    found = usage(conn, past=True)
    assert [(each.used, each.limit) for each in found] == [(9, 20), (8, 10), (7, 10)]
    assert [bool(each.resets_in) for each in found] == [True, False, False]


@pytest.mark.parametrize("minutes", [0, 1, 30, 59, 60, 61, 62])
def test_a_window_slides_without_being_written(
    conn: psycopg.Connection[Any], now_us: int, minutes: int
) -> None:
    """What is told is what the next spending would find, however long ago the last one was."""
    for ago in (minutes + 30, minutes):
        answers(conn, [rolling("ada", n=2)], now_us - ago * HOUR_US // 60)
    before = would_find(conn)
    found = usage(conn)
    assert sum(each.used for each in found) in (before, would_find(conn))
    for each in found:
        assert each.rolling
        assert each.resets_in <= timedelta(minutes=61)


def test_a_threshold_of_another_stretch_is_not_told(
    conn: psycopg.Connection[Any], now_us: int
) -> None:
    """A window has no periods; its crossings are told once in each stretch of its length."""
    at_us = now_us // DAY_US * DAY_US - 1
    ask = rolling("ada", window_us=DAY_US, n=9, thresholds=[80])
    answers(conn, [ask], at_us)
    assert [(each.used, each.told_percent) for each in usage(conn)] == [(9, 0)]
    answers(conn, [{**ask, "n": 1}], now_us)
    assert [(each.used, each.told_percent) for each in usage(conn)] == [(10, 80)]
    assert [(each.used, each.told_percent) for each in usage(conn, past=True)] == [(10, 80)]
