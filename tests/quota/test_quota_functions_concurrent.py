"""Counters under many connections: no unit is granted twice, and nobody deadlocks."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from typing import Any

import psycopg
import pytest
from quota_counters import HOUR_US, NOON_US, RETURN, Answer, Subject, answers, asking, rolling

from databases import Server
from monthly_scene import until_somebody_waits

CONNECTIONS = 12


@pytest.fixture(scope="module")
def dsn(server: Server) -> Iterator[str]:
    """One database for all of them; each test has subjects of its own."""
    with server.database() as dsn:
        yield dsn


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def subject(conn: psycopg.Connection) -> Subject:
    return Subject(conn)


def at_once(dsn: str, work: Callable[[psycopg.Connection, random.Random], Any]) -> list[Any]:
    """What each of many connections returns, all of which begin at the same moment."""
    barrier = threading.Barrier(CONNECTIONS)

    def run(number: int) -> Any:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("SET deadlock_timeout = '50ms'")
            barrier.wait()
            return work(conn, random.Random(number))  # noqa: S311  # the same each time

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(run, range(CONNECTIONS)))


@pytest.mark.parametrize("kind", [asking, rolling])
def test_no_more_is_granted_than_the_limit(
    dsn: str, subject: Subject, kind: Callable[..., dict[str, Any]]
) -> None:
    """To many who ask for many keys in any order; all of it is, and each threshold is told once."""
    names = [f"{subject.name}-{number}" for number in range(6)]
    thresholds = [1, 20, 50, 80, 99, 100]

    def work(conn: psycopg.Connection, chance: random.Random) -> list[tuple[str, Answer]]:
        found = []
        for _ in range(25):
            asks = [
                kind(name, n=chance.randint(1, 4), limit=200, thresholds=thresholds)
                for name in chance.choices(names, k=8)
            ]
            found += [(asks[answer.ask]["s"], answer) for answer in answers(conn, asks)]
        return found

    granted: Counter[str] = Counter()
    told: Counter[tuple[str, int]] = Counter()
    for name, answer in chain(*at_once(dsn, work)):
        granted[name] += answer.granted
        told.update((name, percent) for percent in answer.percents)
    assert granted == dict.fromkeys(names, 200)
    assert told == {(name, percent): 1 for name in names for percent in thresholds}


@pytest.mark.parametrize("kind", [asking, rolling])
def test_what_is_returned_meanwhile_is_not_lost(
    dsn: str, subject: Subject, kind: Callable[..., dict[str, Any]]
) -> None:
    """Spent, returned and looked at by many at once, in calls of several keys: none is left."""
    names = [f"{subject.name}-{number}" for number in range(5)]

    def work(conn: psycopg.Connection, chance: random.Random) -> None:
        for _ in range(20):
            asks = [
                kind(name, n=chance.randint(1, 3), extra=chance.choice([0, 5]), limit=10_000)
                for name in chance.sample(names, 3)
            ]
            returns = [
                asks[each.ask] | {"units": each.usage - each.previous, "at": NOON_US}
                for each in answers(conn, asks)
            ]
            chance.shuffle(returns)
            conn.execute(RETURN, [json.dumps(returns), NOON_US])

    at_once(dsn, work)
    left = answers(subject.conn, [kind(name, a=0) for name in names])
    assert [answer.usage for answer in left] == [0] * len(names)


def test_counters_may_be_cleaned_away_beneath_those_who_spend(dsn: str, subject: Subject) -> None:
    """In periods that ended long ago: nobody deadlocks, and each spending has a counter."""
    past: dict[str, Any] = {"start": 0, "end": 2 * HOUR_US}

    def work(conn: psycopg.Connection, chance: random.Random) -> list[str]:
        told = []
        for _ in range(30):
            numbers = chance.sample(range(8), chance.randint(1, 8))
            names = [f"{subject.name}-{number}" for number in numbers]
            asks = [asking(name, thresholds=[1, 90], limit=100, **past) for name in names]
            asks += [rolling(name, thresholds=[1, 90], limit=100) for name in names]
            chance.shuffle(asks)
            found = answers(conn, asks, HOUR_US)
            assert [answer.granted for answer in found] == [1] * len(asks)
            told += [each["crossing_id"] for answer in found for each in answer.crossings or ()]
            conn.execute("SELECT logstore.clean_quotas('0', 3)")
            conn.execute("SELECT logstore.unfinished_crossings('0', 3)")
            conn.execute("SELECT logstore.crossings_called(%s::uuid[])", [told])
        return told

    told = list(chain(*at_once(dsn, work)))
    assert len(told) == len(set(told)) == 2 * 8


@pytest.mark.parametrize("kind", [asking, rolling])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("is_committed", [True, False])
def test_call_that_waited_sees_what_became_of_the_other(
    dsn: str,
    subject: Subject,
    kind: Callable[..., dict[str, Any]],
    *,
    is_first: bool,
    is_committed: bool,
) -> None:
    """Whether the counter is made in this moment or was there, and the other ends well or not."""
    before = 0 if is_first else 1
    if not is_first:
        answers(subject.conn, [kind(subject.name)])
    ask = kind(subject.name, n=8, thresholds=[50])
    with psycopg.connect(dsn) as other, ThreadPoolExecutor(1) as pool:
        answers(other, [ask])
        waiting = pool.submit(answers, subject.conn, [ask])
        until_somebody_waits(dsn)
        other.commit() if is_committed else other.rollback()
        (answer,) = waiting.result()
    previous = before + 8 * is_committed
    granted = min(8, 10 - previous)
    assert answer[2:6] == (granted, 0, previous, previous + granted)
    assert answer.percents == ([] if is_committed else [50])


def test_refusal_waits_for_nobody(dsn: str, subject: Subject) -> None:
    """A client over its limit does not queue behind whoever is at its counter."""
    for kind in (asking, rolling):
        full = kind(subject.name, n=10)
        answers(subject.conn, [full])
        with psycopg.connect(dsn) as other:
            answers(other, [full | {"forced": True}])
            subject.conn.execute("SET lock_timeout = '1ms'")
            (answer,) = answers(subject.conn, [kind(subject.name)])
            assert answer[2:6] == (0, 0, 10, 10)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                answers(subject.conn, [kind(subject.name, forced=True)])
        subject.conn.execute("RESET lock_timeout")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_stricter_isolation_fails_instead_of_trying_for_ever(
    dsn: str, subject: Subject, level: str
) -> None:
    """A database may have another default: then whoever comes second is told so."""
    subject.spend()
    with psycopg.connect(dsn) as other:
        other.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        other.execute("SELECT FROM logstore.quota_usage")
        subject.spend()
        with pytest.raises(psycopg.errors.SerializationFailure):
            Subject.spend(_in(subject, other))


def _in(subject: Subject, conn: psycopg.Connection) -> Subject:
    same = Subject(conn)
    same.name = subject.name
    return same


def test_killed_connection_leaves_nothing_behind(dsn: str, subject: Subject) -> None:
    """Neither units nor a lock nor a crossing: its call is one transaction."""
    with closing(psycopg.connect(dsn)) as killed, ThreadPoolExecutor(1) as pool:
        _in(subject, killed).spend(n=9, thresholds=[50])
        waiting: Future[Answer] = pool.submit(subject.spend, n=9, thresholds=[50])
        until_somebody_waits(dsn)
        with psycopg.connect(dsn, autocommit=True) as observer:
            observer.execute("SELECT pg_terminate_backend(%s)", [killed.info.backend_pid])
        answer = waiting.result()
        assert (answer.previous, answer.usage, answer.percents) == (0, 9, [50])


def test_windows_slide_while_many_spend(dsn: str, subject: Subject) -> None:
    """Clocks that differ by minutes: the units of each call are there until the newest has left."""

    def work(conn: psycopg.Connection, chance: random.Random) -> int:
        asks = [rolling(subject.name, limit=10_000)]
        minutes = [chance.randrange(30) for _ in range(20)]
        return sum(
            answers(conn, asks, NOON_US + minute * HOUR_US // 60)[0].granted for minute in minutes
        )

    granted = sum(at_once(dsn, work))
    assert granted == 20 * CONNECTIONS
    latest_us = NOON_US + 29 * HOUR_US // 60
    assert subject.spend_rolling(a=0, at_us=latest_us).usage == granted
