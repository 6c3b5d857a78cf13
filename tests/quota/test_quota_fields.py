"""The fields and the problem that tell a client of quotas, as the drafts and RFCs have them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.quota.answering.fields import (
    MAX_INTEGER,
    fields_of,
    name_of,
    problem_of,
    retry_after_s,
    status_of,
)
from auditlog.quota.model import MAX_UNITS, Basis, Decision, Key, Quota

DAY_US, DAY_S = 86_400_000_000, 86_400
# RFC 9651: an Item that is a String, with Parameters that are Integers or Strings, in a List.
STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
ITEM = rf"{STRING}(?:;[a-z*][a-z0-9_.*-]*=(?:\d{{1,15}}|{STRING}))*"
LIST = re.compile(rf"{ITEM}(?:, {ITEM})*")


def decision(quota: Quota, usage: int = 0, **changes: Any) -> Decision:
    """A decision on the second day of 1970, an hour and a bit before its end."""
    made = Decision(
        quota, Key(quota.id, "t", ""), 1, True, usage, usage, DAY_US, 3600.2, Basis.COUNTER
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_policy_and_what_is_left() -> None:
    """Whole seconds, rounded up; every quota is an item of the two lists."""
    daily, volume = Quota("daily", 10, "day"), Quota("volume", 2048, "minute", counts="bytes")

    assert fields_of([decision(daily, 3), decision(volume, 4096)]) == [
        (b"ratelimit-policy", b'"daily";q=10;w=86400, "volume";q=2048;qu="content-bytes";w=60'),
        (b"ratelimit", b'"daily";r=7;t=3601, "volume";r=0;t=3601'),
    ]


def test_unit_that_is_not_requests_is_said() -> None:
    """Without a unit a client would take it for requests."""
    time, own = Quota("cpu", 1, counts="execution_ms"), Quota("own", 1, counts="reported")
    (_, policies), _ = fields_of([decision(time), decision(own)])

    assert [item.split(b";")[2] for item in policies.split(b", ")] == [
        b'qu="milliseconds"',
        b'qu="units"',
    ]


@pytest.mark.parametrize(
    ("quota", "seconds"),
    [
        (Quota("q", 1, "month", time_zone="Europe/Berlin"), 31 * DAY_S),
        (Quota("q", 1, "15 minutes", rolling=True), 900),
        (Quota("q", 1, "week"), 7 * DAY_S),
    ],
)
def test_window_is_as_long_as_the_period(quota: Quota, seconds: int) -> None:
    """Of a month, as long as the one at hand."""
    (_, policy), _ = fields_of([decision(quota)])

    assert policy == b'"q";q=1;w=%d' % seconds


def test_quota_that_limits_nobody_is_not_told() -> None:
    """Nor is what nobody knows, while the database is away."""
    observed, away = Quota("a", 1, enforced=False), decision(Quota("b", 1))
    away.basis = Basis.UNAVAILABLE

    assert fields_of([]) == fields_of([decision(observed), away]) == []


@given(
    name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=60),
    limit=st.integers(0, MAX_UNITS),
    usage=st.integers(0, 2**62),
    reset=st.floats(-1, 1e9),
)
def test_fields_are_structured_fields(name: str, limit: int, usage: int, reset: float) -> None:
    """Whatever a quota is called, and however large it is; quotes and backslashes too."""
    quota = Quota(name, limit)
    told = fields_of([decision(quota, usage, resets_in_s=reset), decision(Quota("b", 1))])

    for _, value in told:
        assert LIST.fullmatch(value.decode("ascii"))
        assert value.startswith(f'"{name_of(quota)}";'.encode())


def test_numbers_fit_into_the_field() -> None:
    """A client ignores a field that is malformed."""
    _, (_, limit) = fields_of([decision(Quota("q", MAX_UNITS))])

    assert limit == b'"q";r=%d;t=3601' % MAX_INTEGER


@pytest.mark.parametrize(
    ("reset", "seconds"), [(0.0, 1), (-3.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (3600.2, 3601)]
)
def test_nobody_comes_again_too_early(reset: float, seconds: int) -> None:
    """Whole seconds, at least one, never before the quota is there again."""
    assert retry_after_s(decision(Quota("q", 1), resets_in_s=reset)) == seconds


def test_problem_names_the_policy() -> None:
    """By the name that the fields have for it."""
    refusal = decision(Quota('täglich "x"', 1), allowed=False)
    problem = problem_of(refusal)

    assert problem == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "detail": "The quota 't%C3%A4glich %22x%22' is used up.",
        "violated-policies": ["t%C3%A4glich %22x%22"],
    }


def test_database_that_is_away_is_no_fault_of_the_clients() -> None:
    """Nor does it have to wait for the end of the month."""
    refusal = decision(Quota("q", 1), allowed=False, basis=Basis.UNAVAILABLE)

    assert (status_of(refusal), retry_after_s(refusal)) == (503, 1)
    assert problem_of(refusal)["type"].endswith("#temporary-reduced-capacity")
    assert problem_of(refusal)["status"] == 503
