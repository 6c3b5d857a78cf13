"""Numbers, texts and JSON that nobody should send to the SQL functions of quotas."""

import json
from typing import Any

import psycopg
import pytest
from quota_counters import (
    DAY_US,
    FULL,
    MOST,
    NOON_US,
    SPEND,
    START_US,
    Subject,
    answers,
    asking,
)


def test_counter_ends_at_its_maximum(subject: Subject) -> None:
    """It neither fails nor begins again, and thresholds of the largest limit are none too large."""
    huge: dict[str, Any] = {"n": MOST, "a": MOST, "limit": MOST, "thresholds": [1000]}
    crossing = subject.spend(forced=True, actors=[["ann"]], **huge)
    assert crossing[2:6] == (MOST, 0, 0, FULL)
    assert [each["previous_usage"] // MOST for each in crossing.crossings or ()] == [9]
    assert subject.spend(enforced=False, extra=MOST, **huge)[2:6] == (MOST, 0, FULL, FULL)
    assert subject.spend(n=MOST, a=1, limit=MOST).granted == 0
    assert subject.give_back(2**63 - 1) == 1
    assert subject.spend(n=MOST, limit=MOST)[2:6] == (MOST, 0, 0, MOST)


def test_spending_may_be_the_last_of_very_many(subject: Subject) -> None:
    """Its place is further than a list of actors can reach."""
    answer = subject.spend(n=2**40, limit=2**40, thresholds=[100], actors=[["ann"]])
    assert [each["user_id"] for each in answer.crossings or ()] == [None]


WRONG: list[Any] = [
    {},
    [1],
    [[]],
    ["ask"],
    [None],
    [{}],
    7,
    "asks",
    None,
    *(
        [asking("wrong") | change]
        for change in (
            {"n": 0},
            {"n": -1},
            {"n": 1.5},
            {"n": 10**400},
            {"n": "many"},
            {"n": MOST + 1},
            {"a": -1},
            {"a": 2**63},
            {"a": None},
            {"limit": -1},
            {"limit": MOST + 1},
            {"limit": None},
            {"extra": -1},
            {"extra": None},
            {"q": None},
            {"t": None},
            {"s": None},
            {"enforced": "perhaps"},
            {"enforced": None},
            {"forced": None},
            {"thresholds": [0]},
            {"thresholds": [1001]},
            {"thresholds": [None]},
            {"thresholds": None},
            {"thresholds": 80},
            {"thresholds": {"80": 1}},
            {"start": None},
            {"end": None},
            {"start": START_US + DAY_US},
            {"start": -(2**63)},
            {"end": 2**70},
            {"window": 0},
            {"window": 59_999_999},
            {"window": MOST + 1},
            {"window": -(2**63)},
        )
    ),
]


@pytest.mark.parametrize("asks", WRONG, ids=repr)
def test_ask_that_cannot_be_answered_is_an_error(any_subject: Subject, asks: Any) -> None:
    """Of the data, and nothing is done for the others of the call either."""
    good = asking(any_subject.name, q="a")
    batch = [good, *asks] if isinstance(asks, list) else asks
    with pytest.raises(psycopg.DataError):
        any_subject.conn.execute(SPEND, [json.dumps(batch), NOON_US])
    assert any_subject.rows("quota_usage") == []


def test_error_says_which_ask_and_nothing_of_what_is_in_it(any_conn: psycopg.Connection) -> None:
    """It may come to a log."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="ask 1 is none") as caught:
        answers(any_conn, [asking("secret"), asking("secret", n=-47)])
    assert "secret" not in str(caught.value)
    assert "47" not in str(caught.value)


def test_strange_texts_are_only_texts(subject: Subject) -> None:
    """Quotes, newlines, braces."""
    strange = "'; DROP TABLE logstore.logs; -- \\ \n {}\"$$ \u2028 \U0001f600"
    subject.spend(q=strange, t=strange, thresholds=[10], actors=[[strange] * 3])
    (row,) = subject.rows("quota_crossings")
    texts = ("quota_id", "instance_id", "user_id", "resource_owner", "action")
    assert {row[name] for name in texts} == {strange}


@pytest.mark.parametrize("actors", [None, {"0": 1}, 7, [], [None], [{"0": 1}], [[]], [[None]]])
def test_crossing_is_told_without_an_actor(any_subject: Subject, actors: Any) -> None:
    """Whatever it is that stands in their place."""
    any_subject.spend(thresholds=[10], actors=actors)
    assert [row["action"] for row in any_subject.rows("quota_crossings")] == [None]


@pytest.mark.parametrize(
    "change",
    [
        {"units": -1},
        {"units": None},
        {"units": 2**63},
        {"start": None},
        {"start": -(2**63)},
        {"window": 0, "at": 0},
        {"window": 60_000_000},
        {"window": 60_000_000, "at": -1},
    ],
    ids=repr,
)
def test_return_that_makes_no_sense_is_an_error(any_subject: Subject, change: Any) -> None:
    """And takes nothing back."""
    any_subject.spend(n=10)
    with pytest.raises(psycopg.DataError):
        any_subject.give_back(**({"units": 1} | change))
    assert any_subject.spend(a=0).usage == 10
