"""Counters of rolling windows: sixty slices and one more, on a clock that the tests set."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from quota_counter_model import SLICES, Window
from quota_counters import FULL, HOUR_US, MOST, NOON_US, PATIENT, Subject, answers, rolling
from test_quota_functions_periods import ACTORS, WISHES, share_of, told_by

MINUTE_US = 60_000_000
SLICE_US = HOUR_US // SLICES


def test_units_are_free_again_when_their_slice_has_left(subject: Subject) -> None:
    """Not a window after they were spent, but at the end of the slice that this falls into."""
    assert subject.spend_rolling(n=12)[2:6] == (10, 0, 0, 10)
    assert subject.spend_rolling(at_us=NOON_US + HOUR_US).granted == 0
    assert subject.spend_rolling(at_us=NOON_US + HOUR_US + SLICE_US - 1).granted == 0
    assert subject.spend_rolling(at_us=NOON_US + HOUR_US + SLICE_US)[2:6] == (1, 0, 0, 1)


def test_it_says_when_enough_is_free_again(subject: Subject) -> None:
    """The oldest slices leave first; a look asks for one unit, as does what is within the limit."""
    subject.spend_rolling(n=4)
    assert subject.spend_rolling(at_us=NOON_US + 1).free_us == NOON_US + 1
    later_us = NOON_US + 5 * SLICE_US
    full = subject.spend_rolling(n=5, at_us=later_us)
    assert full.free_us == NOON_US + HOUR_US + SLICE_US
    assert subject.spend_rolling(a=0, at_us=later_us).free_us == full.free_us
    assert subject.spend_rolling(a=5, at_us=later_us).free_us == full.free_us
    assert subject.spend_rolling(a=6, at_us=later_us).free_us == full.free_us + 5 * SLICE_US
    assert subject.spend_rolling(a=11, at_us=later_us).free_us is None


def test_counter_says_when_and_of_what(subject: Subject) -> None:
    """Its row has the length, the slices with the newest first, the limit, both instants."""
    subject.spend_rolling(n=3)
    subject.spend_rolling(n=2, at_us=NOON_US + 2 * SLICE_US, limit=20)
    (row,) = subject.rows("quota_windows")
    noon = datetime(2027, 1, 1, 12, tzinfo=UTC)
    assert row["window_length"] == timedelta(hours=1)
    assert row["newest"] == NOON_US // SLICE_US + 2
    assert row["counts"] == [2, 0, 3, *[0] * 58]
    assert row["quota_limit"] == 20
    assert (row["first_at"], row["last_at"]) == (noon, noon + timedelta(minutes=2))


def test_looking_and_refusals_write_nothing(subject: Subject) -> None:
    """No counter is made, nor is one that is there brought to date."""
    assert subject.spend_rolling(a=0).granted == 1
    assert subject.spend_rolling(limit=0).granted == 0
    assert subject.rows("quota_windows") == []
    subject.spend_rolling(n=10)
    before = subject.rows("quota_windows")
    assert subject.spend_rolling(at_us=NOON_US + SLICE_US).granted == 0
    assert subject.spend_rolling(at_us=NOON_US + 2 * HOUR_US, a=0).usage == 0
    assert subject.rows("quota_windows") == before


def test_each_length_of_a_window_is_counted_by_itself(subject: Subject) -> None:
    """While some processes have another one still, neither lets the other begin again."""
    for before, granted in ((0, 10), (10, 0)):
        for hours in (1, 2):
            answer = subject.spend_rolling(n=10, window_us=hours * HOUR_US, thresholds=[100])
            assert answer[2:6] == (granted, 0, before, 10)
    lengths = {row["window_length"] for row in subject.rows("quota_windows")}
    assert lengths == {timedelta(hours=1), timedelta(hours=2)}


def test_threshold_is_told_once_in_a_stretch(subject: Subject) -> None:
    """Of the window's length, by the clock: the crossing says from when to when."""
    assert subject.spend_rolling(n=8, thresholds=[80]).percents == [80]
    assert subject.spend_rolling(at_us=NOON_US + HOUR_US - 1, thresholds=[80]).percents == []
    following = subject.spend_rolling(at_us=NOON_US + HOUR_US, thresholds=[80])
    assert following.percents == [80]
    noon = datetime(2027, 1, 1, 12, tzinfo=UTC)
    stretches = {
        (row["period_start"], row["period_end"], row["previous_usage"])
        for row in subject.rows("quota_crossings")
    }
    hour = timedelta(hours=1)
    assert stretches == {(noon, noon + hour, 7), (noon + hour, noon + 2 * hour, 9)}


def test_call_whose_clock_was_read_earlier_spends_from_the_newest_slice(subject: Subject) -> None:
    """Its units leave no sooner than they would have."""
    subject.spend_rolling(at_us=NOON_US + SLICE_US)
    assert subject.spend_rolling(at_us=NOON_US).usage == 2
    assert [row["counts"][:2] for row in subject.rows("quota_windows")] == [[2, 0]]


def test_clock_that_was_wrong_does_not_lock_a_window_for_long(subject: Subject) -> None:
    """It was a year ahead, and set right: what was spent is counted for a window from then on."""
    subject.spend_rolling(n=10, at_us=NOON_US + 8760 * HOUR_US)
    assert subject.spend_rolling().granted == 0
    assert subject.spend_rolling(at_us=NOON_US + HOUR_US + SLICE_US - 1).granted == 0
    assert subject.spend_rolling(at_us=NOON_US + HOUR_US + SLICE_US)[2:6] == (1, 0, 0, 1)


def test_counter_ends_at_its_maximum(subject: Subject) -> None:
    """It neither fails nor begins again, whichever slices have how much of it."""
    for minute in range(3):
        at_us = NOON_US + minute * SLICE_US
        answer = subject.spend_rolling(n=MOST, a=MOST, forced=True, at_us=at_us)
        assert answer.usage == FULL
    returned = subject.give_back(2**63 - 1, start=None, window=HOUR_US, at=at_us)
    assert (returned, subject.spend_rolling(a=0, at_us=at_us).usage) == (1, 0)


def test_returned_units_leave_the_slice_in_which_they_were_spent(subject: Subject) -> None:
    """What that has not, older ones give; newer ones keep theirs, and other lengths all."""
    for minute, units in enumerate((1, 2, 3, 4)):
        subject.spend_rolling(n=units, at_us=NOON_US + minute * SLICE_US)
    spent = {"start": None, "window": HOUR_US, "at": NOON_US + 2 * SLICE_US}
    assert subject.give_back(4, **spent) == 1
    assert [row["counts"][:4] for row in subject.rows("quota_windows")] == [[4, 0, 1, 1]]
    assert subject.give_back(4, **(spent | {"window": 2 * HOUR_US})) == 0
    assert subject.give_back(4, **(spent | {"at": NOON_US - 99 * SLICE_US})) == 1
    assert [row["counts"][:4] for row in subject.rows("quota_windows")] == [[4, 0, 1, 1]]
    assert subject.give_back(5, **(spent | {"at": NOON_US + HOUR_US})) == 1
    assert [row["counts"][:4] for row in subject.rows("quota_windows")] == [[0, 0, 0, 1]]


@PATIENT
@given(st.integers(0, MINUTE_US) | st.integers(0, 60), st.integers(MINUTE_US, MINUTE_US + 120))
def test_units_leave_after_a_window_and_within_another_slice(
    any_conn: psycopg.Connection, before_us: int, window_us: int
) -> None:
    """To the microsecond, also where the length is no whole number of slices."""
    subject = Subject(any_conn)
    at_us = NOON_US // (window_us // SLICES) * (window_us // SLICES) - 1 - before_us
    ask: dict[str, Any] = {"window_us": window_us, "n": 10}
    assert subject.spend_rolling(at_us=at_us, **ask).granted == 10
    assert subject.spend_rolling(at_us=at_us + window_us - 1, **ask).granted == 0
    later_us = at_us + window_us + window_us // SLICES + 1
    assert subject.spend_rolling(at_us=later_us, **ask).granted == 10


STEPS = st.sampled_from([-3, -1, 0, 1, 1, 4, 30, 100, 237, 240, 241, 243, 244, 600])
"""Quarters of a second, on the way to windows of a minute; a call may read the clock earlier."""


@PATIENT
@given(
    st.lists(
        st.tuples(STEPS, st.one_of(WISHES, st.tuples(st.integers(0, 40), st.integers(0, 250)))),
        max_size=15,
    ),
    st.sampled_from([MINUTE_US, MINUTE_US + 7]),
)
def test_window_counts_as_the_model(
    any_conn: psycopg.Connection, calls: list[tuple[int, Any]], window_us: int
) -> None:
    """Also where its length is no whole number of slices."""
    subject, model, at_us = Subject(any_conn), Window(window_us), NOON_US
    for step, wish in calls:
        at_us += step * 250_000
        if isinstance(wish, tuple):
            units, age = wish
            spent = {"window": window_us, "at": at_us - age * 250_000}
            subject.give_back(units, start=None, **spent)
            model.give_back(units, spent["at"])
            continue
        ask = rolling(subject.name, window_us, actors=ACTORS, **wish)
        (answer,) = answers(any_conn, [ask], at_us)
        expected = told_by(model.spend(ask, at_us))
        found = share_of(answer)
        assert found[:4] == expected[:4]
        assert _is_part(found[4], expected[4])
        _check_free(model, ask, at_us, answer.free_us)


def _check_free(model: Window, ask: dict[str, Any], at_us: int, free_us: int | None) -> None:
    """At that instant another one fits, if nobody else spends, and not a microsecond before."""
    if free_us is None:
        assert max(1, ask["a"]) > ask["limit"]
        return
    assert model.fits(ask, free_us)
    assert free_us == at_us or not model.fits(ask, free_us - 1)


@PATIENT
@given(
    st.lists(st.tuples(st.integers(0, 20 * MINUTE_US // 60), st.integers(1, 9)), max_size=15),
    st.integers(1, 21),
    st.sampled_from([MINUTE_US, MINUTE_US + 7]),
)
def test_refused_spending_is_granted_when_it_was_said_to_be(
    any_conn: psycopg.Connection, calls: list[tuple[int, int]], amount: int, window_us: int
) -> None:
    """And refused until a microsecond before; one above the limit is never granted."""
    subject, at_us = Subject(any_conn), NOON_US
    ask: dict[str, Any] = {"window_us": window_us, "limit": 20}
    for step_us, a in calls:
        at_us += step_us
        subject.spend_rolling(at_us=at_us, a=a, **ask)
    subject.spend_rolling(at_us=at_us, n=20, **ask)
    refused = subject.spend_rolling(at_us=at_us, a=amount, **ask)
    assert refused.granted == 0
    if refused.free_us is None:
        assert amount > 20
        return
    assert amount <= 20
    assert subject.spend_rolling(at_us=refused.free_us - 1, a=amount, **ask).granted == 0
    assert subject.spend_rolling(at_us=refused.free_us, a=amount, **ask).granted == 1


def _is_part(told: list[Any], crossed: list[Any]) -> bool:
    # In a stretch that the clock went back into, the outbox has some of them already.
    return set(told) <= set(crossed)


@PATIENT
@given(
    st.lists(
        st.tuples(st.integers(0, 20 * MINUTE_US // 60), st.integers(1, 4), st.integers(1, 6)),
        max_size=25,
    )
)
def test_no_window_ever_has_more_than_the_limit(
    any_conn: psycopg.Connection, calls: list[tuple[int, int, int]]
) -> None:
    """Whenever it ends; and what is refused would not have been far from one that has."""
    subject, at_us = Subject(any_conn), NOON_US
    spent: list[tuple[int, int]] = []
    for step_us, n, amount in calls:
        at_us += step_us
        answer = subject.spend_rolling(at_us=at_us, window_us=MINUTE_US, n=n, a=amount, limit=20)
        spent.append((at_us, answer.granted * amount))
        assert _units_since(spent, at_us - MINUTE_US) <= 20
        if answer.granted < n:
            longer_us = MINUTE_US + MINUTE_US // SLICES
            assert _units_since(spent, at_us - longer_us) + amount > 20


def _units_since(spent: list[tuple[int, int]], since_us: int) -> int:
    return sum(units for at_us, units in spent if at_us > since_us)
