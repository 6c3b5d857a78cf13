"""Counters of periods against a model that counts unit by unit."""

from typing import Any

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from quota_counter_model import Period, Share
from quota_counters import PATIENT, Answer, Subject, answers, asking

THRESHOLDS = st.lists(st.sampled_from([1, 10, 33, 50, 80, 100, 150]), unique=True).map(sorted)
WISHES = st.fixed_dictionaries(
    {
        "n": st.integers(1, 5),
        "a": st.integers(0, 5),
        "extra": st.integers(0, 12),
        "limit": st.sampled_from([0, 1, 7, 30, 31, 100]),
        "thresholds": THRESHOLDS,
        "enforced": st.sampled_from([True, True, True, False]),
        "forced": st.sampled_from([False, False, False, True]),
    }
)
"""What is asked for; the limit and the thresholds may be others each time."""
ACTORS = [[str(place), "org", "GET /"] for place in range(5)]


def share_of(answer: Answer) -> tuple[Any, ...]:
    """What of an answer a model can tell."""
    crossed = [
        (each["percent"], each["previous_usage"], each["current_usage"], int(each["user_id"]))
        for each in answer.crossings or ()
    ]
    return (*answer[2:6], crossed)


def told_by(model: Share) -> tuple[Any, ...]:
    return model[:5]


@PATIENT
@given(
    st.lists(
        st.one_of(
            st.lists(st.tuples(st.integers(0, 2), WISHES), min_size=1, max_size=5),
            st.tuples(st.integers(0, 2), st.integers(0, 40)),
        ),
        max_size=8,
    )
)
def test_period_counts_as_the_model(any_conn: psycopg.Connection, calls: list[Any]) -> None:
    """Batches with several asks of one counter, limits that change, units that are returned."""
    subjects = [Subject(any_conn) for _ in range(3)]
    models = {subject.name: Period() for subject in subjects}
    for call in calls:
        if isinstance(call, tuple):
            subject, units = subjects[call[0]], call[1]
            subject.give_back(units)
            models[subject.name].give_back(units)
            continue
        asks = [asking(subjects[at].name, actors=ACTORS, **wish) for at, wish in call]
        order = sorted(range(len(asks)), key=lambda place: (asks[place]["s"], place))
        found = answers(any_conn, asks)
        assert [answer.ask for answer in found] == order
        expected = [told_by(models[asks[place]["s"]].spend(asks[place])) for place in order]
        assert [share_of(answer) for answer in found] == expected


@PATIENT
@given(st.integers(1, 200), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30))))
def test_every_threshold_is_crossed_by_a_spending(
    any_conn: psycopg.Connection, limit: int, asks: list[tuple[int, int]]
) -> None:
    """Never by units taken in advance; each is told once by whoever reaches it."""
    subject = Subject(any_conn)
    thresholds = [20, 50, 80, 100]
    told: list[int] = []
    for amount, extra in asks:
        answer = subject.spend(a=amount, extra=extra, limit=limit, thresholds=thresholds)
        told += answer.percents
        assert answer.usage <= limit
        assert told == [each for each in thresholds if answer.usage * 100 >= each * limit]
