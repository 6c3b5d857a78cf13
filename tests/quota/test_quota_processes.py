"""Ten processes spend from one quota, and some of them are killed: what was allowed, what was told.

Every unit that a worker was granted is known, also of the killed ones, and so is the counter.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from quota_crowd import Crowd, crowd, spend_all
from quota_workers import QUOTA_ID, TENANT, Scene

import trail

LIMIT = 2_000
EXACT: Mapping[str, Any] = {"limit": LIMIT, "period": "year", "exact": True}
LEASED: Mapping[str, Any] = {"limit": LIMIT, "period": "year"}
MOST_HELD = LIMIT // 8 + LIMIT // 8 // 4
"""Of one process: an eighth of what was left, and a quarter of the lease that it came on top of."""
KILLED, AT_ONCE = 3, 2


def test_exactly_the_limit_is_allowed(any_dsn: str) -> None:
    """Each worker is refused when all is used, and not before."""
    workers = spend_all(Scene(any_dsn, EXACT))
    assert len(workers.done) == 10
    assert (workers.total, used(any_dsn)) == (LIMIT, LIMIT)
    assert set(workers.refused_at) == {LIMIT}


@pytest.mark.parametrize("rolling", [False, True], ids=["period", "window"])
def test_with_leases_no_unit_is_granted_twice(any_dsn: str, rolling: bool) -> None:
    """However it was shared out: what nobody got, one that comes last gets."""
    quota = {**LEASED, "rolling": rolling, "period": "1 week" if rolling else "year"}
    scene = Scene(any_dsn, quota)
    workers = spend_all(scene)
    assert workers.total <= LIMIT
    assert workers.total + take_the_rest(scene).total == LIMIT


@pytest.mark.parametrize(
    ("quota", "most_lost"),
    [(EXACT, KILLED * AT_ONCE), (LEASED, KILLED * MOST_HELD)],
    ids=["exact", "leases"],
)
def test_workers_killed_while_they_spend_hold_up_nobody(
    any_dsn: str, quota: Mapping[str, Any], most_lost: int
) -> None:
    """They take with them what they had not spent yet; the others get all the rest."""
    scene = Scene(any_dsn, quota, at_once=AT_ONCE)
    with crowd(scene) as workers:
        workers.begin()
        workers.listen(lambda: workers.total > LIMIT // 3)
        for pid in workers.ready[:KILLED]:
            workers.kill(pid)
        assert not workers.idle, "too late: the limit was reached"
        workers.finish()
    lost = LIMIT - workers.total - take_the_rest(scene).total
    assert used(any_dsn) == LIMIT
    assert 0 <= lost <= most_lost


def test_a_process_holds_but_a_part_of_what_is_left(any_dsn: str) -> None:
    """Of the last 400 units others get most, however much it has spent and is about to spend."""
    spendings = (LIMIT - 400) // AT_ONCE
    scene = Scene(any_dsn, LEASED, 1, AT_ONCE, spendings=spendings, stays=True, lease_s=60)
    with crowd(scene) as workers:
        workers.begin()
        workers.until_idle()
        assert 0 < used(any_dsn) - workers.total <= 400 // 4
        workers.finish()
    assert used(any_dsn) == workers.total


async def test_idle_leases_come_back_by_themselves(any_dsn: str) -> None:
    """From workers that go on and spend nothing."""
    with crowd(Scene(any_dsn, LEASED, workers=2, spendings=200, stays=True)) as workers:
        workers.begin()
        workers.until_idle()
        await trail.until(lambda: used(any_dsn) == workers.total)
        assert not workers.done
        workers.finish()


def test_stopped_workers_give_back_their_leases_and_killed_ones_do_not(any_dsn: str) -> None:
    """All of them hold some, and would for a minute."""
    scene = Scene(any_dsn, LEASED, spendings=40, stays=True, lease_s=60)
    with crowd(scene) as workers:
        workers.begin()
        workers.until_idle()
        held = used(any_dsn) - workers.total
        for pid in workers.ready[:KILLED]:
            workers.kill(pid)
        workers.finish()
    lost = used(any_dsn) - workers.total
    assert 0 < lost < held
    assert lost <= KILLED * MOST_HELD
    assert workers.total + take_the_rest(scene).total + lost == LIMIT


@pytest.mark.parametrize("quota", [EXACT, LEASED], ids=["exact", "leases"])
def test_each_threshold_is_told_once_however_many_a_spending_jumps_over(
    any_dsn: str, quota: Mapping[str, Any]
) -> None:
    """A row of the crossing, a row of the trail with the same identity, and one call."""
    thresholds = tuple(range(1, 101))
    scene = Scene(any_dsn, {**quota, "thresholds": thresholds}, amounts=(1, 95, 40, 7))
    told = spend_all(scene).told + take_the_rest(scene).told
    crossings = crossings_by_percent(any_dsn)
    assert tuple(crossings) == thresholds
    for percent, row in crossings.items():
        assert row["previous_usage"] < ceil(LIMIT * percent / 100) <= row["current_usage"]
    # A per cent is 20 units.
    assert any(row["current_usage"] - row["previous_usage"] == 95 for row in crossings.values())
    assert told == {f"{percent}:{row['crossing_id']}": 1 for percent, row in crossings.items()}
    assert told_rows(any_dsn) == sorted(row["crossing_id"] for row in crossings.values())


def test_what_a_killed_worker_had_not_told_another_one_tells(any_dsn: str) -> None:
    """It died after the commit and before the row and the callback: both come, each once."""
    quota = {"limit": 10, "period": "year", "thresholds": (50,)}
    died = spend_all(Scene(any_dsn, quota, workers=1, at_once=1, dies_telling=50))
    assert (len(died.killed), died.told, told_rows(any_dsn)) == (1, {}, [])
    crossing = crossings_by_percent(any_dsn)[50]
    assert (crossing["stored_at"], crossing["called_at"]) == (None, None)
    # As if the minute were over for which it is left to the one that crossed it.
    trail.execute(
        any_dsn, "UPDATE logstore.quota_crossings SET claimed_at = claimed_at - interval '1 hour'"
    )
    with crowd(Scene(any_dsn, quota, workers=3)) as heirs:
        heirs.listen(lambda: heirs.told.total() > 0)
        heirs.begin()
        heirs.finish()
    assert heirs.told == {f"50:{crossing['crossing_id']}": 1}
    assert told_rows(any_dsn) == [crossing["crossing_id"]]
    assert crossings_by_percent(any_dsn)[50]["called_at"] is not None


def take_the_rest(scene: Scene) -> Crowd:
    """Let one more worker spend, unit by unit, until it is refused."""
    return spend_all(
        replace(scene, workers=1, amounts=(1,), spendings=None, stays=False, lease_s=1)
    )


def used(dsn: str) -> int:
    """What the counter says; there is but one."""
    (units,) = trail.fetch(dsn, "SELECT used FROM logstore.quota_usage")
    assert isinstance(units, int)
    return units


def crossings_by_percent(dsn: str) -> dict[int, dict[str, Any]]:
    """The crossings, in order; none is there twice."""
    query = "SELECT to_jsonb(c) FROM logstore.quota_crossings AS c ORDER BY percent"
    rows: list[dict[str, Any]] = trail.fetch(dsn, query)
    assert {(row["quota_id"], row["instance_id"]) for row in rows} <= {(QUOTA_ID, TENANT)}
    assert len({row["percent"] for row in rows}) == len(rows)
    return {row["percent"]: row for row in rows}


def told_rows(dsn: str) -> list[str]:
    """Identities of the rows of the trail that tell of a threshold."""
    query = "SELECT log_id::text FROM logstore.quota_logs WHERE threshold_exceeded ORDER BY 1"
    return trail.fetch(dsn, query)
