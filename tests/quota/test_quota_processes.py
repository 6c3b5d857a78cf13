"""Ten processes spend from one quota, and some of them are killed: what was allowed, what was told.

Every unit that a worker was granted is known, also of the killed ones, and so is the counter.
"""

from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from quota_crowd import Crowd, crowd, spend_all
from quota_workers import QUOTA_ID, TENANT, Scene

import trail

LIMIT = 3_000
KILLED = 3
ONE = {"workers": 1, "amounts": (1,)}
"""A worker that comes last, and takes what is left."""
EXACT: dict[str, Any] = {"limit": LIMIT, "period": "year", "exact": True}
LEASED: dict[str, Any] = {"limit": LIMIT, "period": "year"}


def used(dsn: str) -> int:
    """What the counter says; there is but one."""
    return trail.fetch(dsn, "SELECT used FROM logstore.quota_usage")[0]


def test_exactly_the_limit_is_allowed(any_dsn: str) -> None:
    """Each worker is refused when all is used, and not before."""
    workers = spend_all(Scene(any_dsn, EXACT))
    assert len(workers.done) == 10
    assert (workers.total, used(any_dsn)) == (LIMIT, LIMIT)
    assert set(workers.refused_at) == {LIMIT}


def test_killed_workers_take_no_more_than_they_were_about_to_spend(any_dsn: str) -> None:
    """Nor does what they had begun hold up anybody else."""
    scene = Scene(any_dsn, EXACT)
    workers = spend_and_kill(scene)
    assert used(any_dsn) == LIMIT
    assert LIMIT - KILLED * scene.at_once <= workers.total <= LIMIT
    assert set(workers.refused_at) == {LIMIT}


@pytest.mark.parametrize("rolling", [False, True], ids=["period", "window"])
def test_leases_allow_the_limit_once_the_idle_ones_have_come_back(
    any_dsn: str, rolling: bool
) -> None:
    """However it is shared out, no unit is granted twice, and none is lost by who was stopped."""
    quota = LEASED | {"rolling": rolling, "period": "1 week" if rolling else "year"}
    scene = Scene(any_dsn, quota)
    workers = spend_all(scene)
    assert workers.total <= LIMIT
    last = spend_all(replace(scene, **ONE))
    assert workers.total + last.total == LIMIT


def test_killed_workers_take_their_leases_with_them(any_dsn: str) -> None:
    """At most an eighth of what was left, twice: one in hand and the next one on its way."""
    scene = Scene(any_dsn, LEASED)
    workers = spend_and_kill(scene)
    last = spend_all(replace(scene, **ONE))
    lost = LIMIT - workers.total - last.total
    assert used(any_dsn) == LIMIT
    assert 0 <= lost <= KILLED * 2 * LIMIT // 8


@pytest.mark.parametrize("quota", [EXACT, LEASED], ids=["exact", "leases"])
def test_each_threshold_is_told_once_however_many_a_spending_jumps_over(
    any_dsn: str, quota: dict[str, Any]
) -> None:
    """A row of the crossing, a row of the trail with the same identity, and one call."""
    thresholds = tuple(range(1, 101))
    scene = Scene(any_dsn, quota | {"thresholds": thresholds}, amounts=(1, 95, 40, 7))
    told = spend_all(scene).told + spend_all(replace(scene, **ONE)).told
    crossings = rows_by_percent(any_dsn)
    assert tuple(crossings) == thresholds
    for percent, row in crossings.items():
        assert row["previous_usage"] < ceil(LIMIT * percent / 100) <= row["current_usage"]
    assert told == {f"{percent}:{row['crossing_id']}": 1 for percent, row in crossings.items()}
    assert any(row["current_usage"] - row["previous_usage"] > 60 for row in crossings.values())
    assert told_rows(any_dsn) == sorted(row["crossing_id"] for row in crossings.values())


def test_what_a_killed_worker_had_not_told_another_one_tells(any_dsn: str) -> None:
    """It died after the commit and before the row and the callback: both come, each once."""
    quota = {"limit": 10, "period": "year", "thresholds": (50,)}
    died = spend_all(Scene(any_dsn, quota, workers=1, at_once=1, dies_telling=50))
    assert (len(died.killed), died.told, told_rows(any_dsn)) == (1, {}, [])
    (crossing,) = rows_by_percent(any_dsn).values()
    assert (crossing["stored_at"], crossing["called_at"]) == (None, None)
    # As if the minute were over for which it is left to the one that crossed it.
    trail.execute(
        any_dsn, "UPDATE logstore.quota_crossings SET claimed_at = claimed_at - interval '1 hour'"
    )
    heirs = Scene(any_dsn, quota, workers=3)
    with crowd(heirs) as workers:
        workers.listen(lambda: workers.told.total() > 0)
        workers.begin()
        workers.finish()
    assert workers.told == {f"50:{crossing['crossing_id']}": 1}
    assert told_rows(any_dsn) == [crossing["crossing_id"]]
    assert rows_by_percent(any_dsn)[50]["called_at"] is not None


def spend_and_kill(scene: Scene) -> Crowd:
    """Let workers spend, and kill some of them when a third is spent."""
    with crowd(scene) as workers:
        workers.begin()
        workers.listen(lambda: workers.total > LIMIT // 3)
        for pid in workers.ready[:KILLED]:
            workers.kill(pid)
        assert not workers.done, "too late: the limit was reached"
        workers.finish()
    return workers


def rows_by_percent(dsn: str) -> dict[int, dict[str, Any]]:
    """The crossings, in order; two of the same percent would be a list that is too short."""
    query = "SELECT to_jsonb(c) FROM logstore.quota_crossings AS c ORDER BY percent"
    rows: list[dict[str, Any]] = trail.fetch(dsn, query)
    assert {(row["quota_id"], row["instance_id"]) for row in rows} <= {(QUOTA_ID, TENANT)}
    assert len({row["percent"] for row in rows}) == len(rows)
    return {row["percent"]: row for row in rows}


def told_rows(dsn: str) -> list[str]:
    """Identities of the rows of the trail that tell of a threshold."""
    query = "SELECT log_id::text FROM logstore.quota_logs WHERE threshold_exceeded ORDER BY 1"
    return trail.fetch(dsn, query)
