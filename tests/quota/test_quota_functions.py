"""Migration 0010: what is granted of a counter, what is written, what is told."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from quota_counters import (
    DAY_US,
    NOON_US,
    START_US,
    Subject,
    answers,
    asking,
)

END_US = START_US + DAY_US


def test_limit_may_be_reached_and_not_passed(subject: Subject) -> None:
    """The first of several spendings are granted, as many as there is room for."""
    first = subject.spend(n=3, a=3)
    assert first == (0, "ok", 3, 0, 0, 9, NOON_US, None, END_US)
    assert subject.spend(a=2)[2:6] == (0, 0, 9, 9)
    assert subject.spend(n=4)[2:6] == (1, 0, 9, 10)
    assert subject.spend()[2:6] == (0, 0, 10, 10)


def test_counter_says_when_and_of_what(subject: Subject) -> None:
    """Its row has the period, the limit that was last asked for, the first and last change."""
    subject.spend(at_us=START_US)
    subject.spend(limit=20)
    (row,) = subject.rows("quota_usage")
    first = datetime(2027, 1, 1, tzinfo=UTC)
    assert (row["period_start"], row["period_end"]) == (first, first + timedelta(days=1))
    assert (row["first_at"], row["last_at"]) == (first, first + timedelta(hours=12))
    assert (row["used"], row["quota_limit"]) == (2, 20)


def test_looking_changes_nothing(subject: Subject) -> None:
    """No units are always granted, and make no counter."""
    assert subject.spend(a=0, n=5, limit=0)[2:6] == (5, 0, 0, 0)
    assert subject.rows("quota_usage") == []
    subject.spend(n=10)
    before = subject.rows("quota_usage")
    assert subject.spend(a=0, limit=5, thresholds=[50])[2:] == (1, 0, 10, 10, NOON_US, None, END_US)
    assert subject.rows("quota_usage") == before


def test_refusal_writes_nothing(subject: Subject) -> None:
    """A client that is over its limit costs no write; nor has one that may do nothing a counter."""
    assert subject.spend(limit=0, thresholds=[1])[2:] == (0, 0, 0, 0, NOON_US, None, END_US)
    assert subject.rows("quota_usage") == []
    subject.spend(n=10)
    with subject.conn.transaction():
        assert subject.spend().granted == 0
        xid = subject.conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone()
    assert xid == (None,)


def test_refusal_notes_that_the_limit_has_changed(subject: Subject) -> None:
    """What `usage` shows beside the counter is the limit by which it was refused."""
    subject.spend(n=10)
    subject.spend(limit=5)
    assert [row["quota_limit"] for row in subject.rows("quota_usage")] == [5]


def test_observed_and_forced_spendings_are_always_granted(subject: Subject) -> None:
    """The first for a limit that is not enforced, the second for what was used already."""
    assert subject.spend(n=12, enforced=False)[2:6] == (12, 0, 0, 12)
    assert subject.spend(a=7, forced=True, extra=5)[2:6] == (1, 0, 12, 19)
    assert subject.spend().granted == 0


@pytest.mark.parametrize(
    ("at_us", "state"),
    [
        (START_US - 1, "elsewhen"),
        (START_US, "ok"),
        (START_US + DAY_US - 1, "ok"),
        (START_US + DAY_US, "elsewhen"),
    ],
)
def test_clock_must_be_in_the_period(subject: Subject, at_us: int, state: str) -> None:
    """Otherwise nothing is done; the clock says by how much the asker's is wrong."""
    answer = subject.spend(at_us=at_us, n=2)
    assert (answer.state, answer.now_us) == (state, at_us)
    assert len(subject.rows("quota_usage")) == (state == "ok")
    if state == "elsewhen":
        assert answer[2:6] == (0, 0, 0, 0)


def test_units_in_advance_are_an_eighth_of_what_is_left(subject: Subject) -> None:
    """And no more than were wanted; a refused ask gets none."""
    assert subject.spend(extra=50, limit=1001)[2:6] == (1, 50, 0, 51)
    assert subject.spend(extra=500, limit=1001)[2:6] == (1, 118, 51, 170)
    assert subject.spend(n=1, a=900, extra=5, limit=1001)[2:6] == (0, 0, 170, 170)
    assert subject.spend(n=3, a=400, extra=5, limit=1001)[2:6] == (2, 0, 170, 970)
    assert subject.spend(a=0, extra=9, limit=1001)[2:6] == (1, 3, 970, 973)


def test_units_in_advance_end_before_the_next_threshold(subject: Subject) -> None:
    """It is a spending that crosses it; one that was told is in nobody's way."""
    ask: dict[str, Any] = {"limit": 1000, "thresholds": [10, 90], "extra": 200}
    assert subject.spend(**ask)[2:6] == (1, 98, 0, 99)
    crossing = subject.spend(**ask)
    assert crossing[2:6] == (1, 112, 99, 212)
    assert crossing.percents == [10]


def test_observed_quota_has_units_in_advance_beyond_its_limit(subject: Subject) -> None:
    """Whoever only watches is not slower for it; but a threshold still stops them."""
    ask: dict[str, Any] = {"enforced": False, "extra": 50, "thresholds": [100, 300]}
    assert subject.spend(n=15, **ask)[2:6] == (15, 14, 0, 29)
    assert subject.spend(**ask).percents == [300]
    assert subject.spend(**ask)[2:6] == (1, 50, 80, 131)


def test_each_threshold_is_told_of_the_spending_that_reached_it(subject: Subject) -> None:
    """Also if one call has several of them, and several thresholds; usage is as it was there."""
    actors = [["ann", "org-1", "GET /a"], ["bob", None, "GET /b"], ["eve"]]
    answer = subject.spend(n=4, a=3, limit=12, thresholds=[10, 25, 26, 75, 100], actors=actors)
    told = [
        tuple(each[name] for name in ("percent", "previous_usage", "current_usage", "user_id"))
        for each in answer.crossings or ()
    ]
    assert told == [
        (10, 0, 3, "ann"),
        (25, 0, 3, "ann"),
        (26, 3, 6, "bob"),
        (75, 6, 9, "eve"),
        (100, 9, 12, None),
    ]
    bob = (answer.crossings or [])[2]
    assert (bob["resource_owner"], bob["action"], bob["quota_limit"]) == (None, "GET /b", 12)


def test_crossings_are_the_rows_of_the_outbox(subject: Subject) -> None:
    """Their instants are in UTC, whatever the session's zone; the identity is of that time."""
    with subject.conn.transaction():
        subject.conn.execute("SET LOCAL timezone = 'Asia/Kathmandu'")
        (told,) = subject.spend(thresholds=[10], actors=[["ann", "org", "x"]]).crossings or ()
    (row,) = subject.rows("quota_crossings")
    assert row["stored_at"] is row["called_at"] is None
    assert row["crossed_at"] == row["claimed_at"]
    assert uuid.UUID(told["crossing_id"]).int >> 80 == NOON_US // 1000
    assert told["crossed_at"] == "2027-01-01T12:00:00+00:00"
    assert told == {
        name: value.isoformat()
        if isinstance(value, datetime)
        else str(value)
        if isinstance(value, uuid.UUID)
        else value
        for name, value in row.items()
    }


def test_threshold_is_told_once_in_a_period(subject: Subject) -> None:
    """Also if units are given back and spent again, or the limit is raised; then in the next."""
    assert subject.spend(n=8, thresholds=[80]).percents == [80]
    assert subject.give_back(5) == 1
    assert subject.spend(n=5, thresholds=[80]).percents == []
    assert subject.spend(n=10, limit=20, thresholds=[80]).percents == []
    assert subject.spend(n=2, limit=20, thresholds=[80, 100]).percents == [100]
    following = {"start": START_US + DAY_US, "end": START_US + 2 * DAY_US}
    answer = subject.spend(at_us=START_US + DAY_US, n=8, thresholds=[80], **following)
    assert answer.percents == [80]


def test_lowered_limit_is_told_of_whoever_comes_next(subject: Subject) -> None:
    """Their spending was refused, and has not changed the usage that is told with it."""
    subject.spend(n=9, thresholds=[100])
    answer = subject.spend(limit=5, thresholds=[100], actors=[["ann"]])
    (told,) = answer.crossings or ()
    assert answer[2:6] == (0, 0, 9, 9)
    assert (told["previous_usage"], told["current_usage"], told["user_id"]) == (9, 9, "ann")
    assert subject.spend(limit=5, thresholds=[100]).crossings is None


def test_period_that_ends_elsewhere_keeps_its_counter(subject: Subject) -> None:
    """A quota by the day becomes one by the week in the middle of both, from the same instant."""
    subject.spend(n=4)
    assert subject.spend(end=START_US + 7 * DAY_US).previous == 4
    (row,) = subject.rows("quota_usage")
    assert row["period_end"] == datetime(2027, 1, 8, tzinfo=UTC)


def test_rolled_back_spending_is_none(subject: Subject) -> None:
    """Nor has anything been crossed by it."""
    with subject.conn.transaction(force_rollback=True):
        assert subject.spend(n=10, thresholds=[50]).percents == [50]
    assert subject.spend(n=6, thresholds=[50])[2:6] == (6, 0, 0, 6)
    assert len(subject.rows("quota_crossings")) == 1


def test_batch_is_taken_in_the_order_of_keys(subject: Subject) -> None:
    """Each answer says which ask it is for, and asks of one key are taken as they came."""
    names = [f"{subject.name}-{letter}" for letter in "bBaä"]
    asks = [asking(name, n=6) for name in names] + [asking(names[0], n=6, t="Acme")]
    found = answers(subject.conn, [*asks, asking(names[0], n=6)])
    assert [(answer.ask, answer.granted) for answer in found] == [
        (4, 6),
        (1, 6),
        (2, 6),
        (0, 6),
        (5, 4),
        (3, 6),
    ]
    assert answers(subject.conn, []) == []


def test_returned_units_are_there_again(subject: Subject) -> None:
    """As many as were spent: a counter is never below none, and one that is gone is no error."""
    assert subject.give_back(5) == 0
    subject.spend(n=10)
    assert subject.give_back(3) == 1
    assert subject.spend(n=4)[2:6] == (3, 0, 7, 10)
    assert subject.give_back(11) == 1
    assert subject.spend(a=0).usage == 0
    assert subject.give_back(5, start=START_US + 1) == 0
