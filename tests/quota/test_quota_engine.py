"""The engine on a real database: what it decides, charges, gives back and tells."""

import asyncio
import threading
from collections.abc import Callable

import psycopg
import pytest
from psycopg.types.json import Jsonb
from quota_engines import NOBODY, Lines, Told, engine, running, spend, until_used, used

from auditlog.quota.engine import Engine
from auditlog.quota.model import Actor, Basis, Decision, Key, Quota

KEY = Key("q", "t", "s")


def quota(limit: int = 10, **given: object) -> Quota:
    return Quota("q", limit, **{"period": "year"} | given)  # type: ignore[arg-type]


def keys(number: int) -> Key:
    return Key("q", "t", str(number))


async def test_exact_quota_grants_the_limit_in_order_of_arrival(dsn: str) -> None:
    """What comes while a call is under way goes out as one, and the first of it are granted."""
    limited = quota(100, exact=True)
    async with running(dsn) as made:
        asked = [made.ask(limited, KEY, 1, NOBODY) for _ in range(150)]
        decisions = await asyncio.gather(*asked)
        assert [decision.allowed for decision in decisions] == [True] * 100 + [False] * 50
        assert [decision.previous for decision in decisions[:100]] == list(range(100))
        assert {decision.usage for decision in decisions[100:]} == {100}
        assert made.asked < 10
    assert used(dsn) == 100


async def test_amounts_of_all_sizes_never_pass_the_limit(any_dsn: str) -> None:
    limited = quota(100)
    async with running(any_dsn) as made:
        amounts = [1 + number % 7 for number in range(90)]
        decisions = await asyncio.gather(*(spend(made, limited, KEY, each) for each in amounts))
        granted = sum(decision.amount for decision in decisions if decision.allowed)
        assert 94 <= granted <= 100
    assert used(any_dsn) == granted


async def test_leases_decide_without_the_database_and_come_back(any_dsn: str) -> None:
    """At the end the counter says what was spent, to the unit."""
    limited = quota(10_000)
    async with running(any_dsn) as made:
        decisions = [await spend(made, limited, KEY) for _ in range(3_000)]
        assert all(decision.allowed for decision in decisions)
        bases = [decision.basis for decision in decisions]
        assert bases.count(Basis.LEASE) > 2_900
        assert decisions[-1].usage == 3_000
        assert used(any_dsn) > 3_000
    assert used(any_dsn) == 3_000


async def test_all_of_the_limit_can_be_spent_with_leases(any_dsn: str) -> None:
    limited = quota(500)
    async with running(any_dsn) as made:
        decisions = [await spend(made, limited, KEY) for _ in range(600)]
    assert sum(decision.allowed for decision in decisions) == 500
    assert decisions[-1].basis is Basis.REMEMBERED


async def test_idle_lease_comes_back_by_itself(any_dsn: str) -> None:
    limited = quota(10_000)
    async with running(any_dsn, lease_s=0.2) as made:
        for _ in range(100):
            await spend(made, limited, KEY)
        await until_used(any_dsn, 100)


async def test_two_processes_share_a_counter(any_dsn: str) -> None:
    """What one holds idle the other gets; both together never pass the limit."""
    limited = quota(1_000)
    async with running(any_dsn, lease_s=0.1) as one, running(any_dsn, lease_s=0.1) as other:
        granted = 0
        for _ in range(600):
            for made in (one, other):
                granted += (await spend(made, limited, KEY)).allowed
        while granted < 1_000:
            await asyncio.sleep(0.05)
            granted += (await spend(one, limited, KEY)).allowed
        assert not (await one.ask(limited, KEY, 1, NOBODY)).allowed
    assert used(any_dsn) == granted == 1_000


async def test_observed_quota_refuses_nothing(any_dsn: str) -> None:
    limited = quota(10, enforced=False)
    async with running(any_dsn) as made:
        decisions = [await spend(made, limited, KEY) for _ in range(50)]
        assert all(decision.allowed for decision in decisions)
    assert used(any_dsn) == 50


async def test_nothing_spent_is_always_allowed_and_tells_the_usage(any_dsn: str) -> None:
    limited = quota(3)
    async with running(any_dsn) as made:
        await made.ask(limited, KEY, 3, NOBODY)
        nothing = await made.ask(limited, KEY, 0, NOBODY)
        assert (nothing.allowed, nothing.previous, nothing.usage) == (True, 3, 3)
        seen = await made.look(limited, KEY)
        assert (seen.allowed, seen.usage, seen.remaining) == (False, 3, 0)
        assert (await made.look(limited, keys(2))).allowed
    assert used(any_dsn, "2") == 0


async def test_refund_is_given_back_and_spent_again(any_dsn: str) -> None:
    limited = quota(3, exact=True)
    async with running(any_dsn) as made:
        decision = await made.ask(limited, KEY, 3, NOBODY)
        assert not (await made.ask(limited, KEY, 1, NOBODY)).allowed
        made.give_back(decision)
        await until_used(any_dsn, 0)
        assert (await spend(made, limited, KEY, 3)).allowed
        made.give_back(await spend(made, limited, KEY, 1))
    assert used(any_dsn) == 3


async def test_refund_of_a_window_is_given_back(any_dsn: str) -> None:
    limited = quota(3, exact=True, rolling=True, period="day")
    async with running(any_dsn) as made:
        decision = await made.ask(limited, KEY, 3, NOBODY)
        # The limit is reached: until its slice has left, a window after it ended.
        assert 86_400 <= decision.resets_in_s <= 86_400 * 61 / 60
        made.give_back(decision)
    async with running(any_dsn) as made:
        assert (await made.ask(limited, KEY, 3, NOBODY)).previous == 0


async def test_refusal_of_a_window_says_when_it_is_worth_trying_again(any_dsn: str) -> None:
    """Also one that is remembered; a window that never has room for so much says its length."""
    limited = quota(3, exact=True, rolling=True, period="day")
    slice_s = 86_400 / 60
    async with running(any_dsn) as made:
        await made.ask(limited, KEY, 3, NOBODY)
        await age_window(any_dsn, slices=50)
        refused = await made.ask(limited, KEY, 1, NOBODY)
        assert 10 * slice_s < refused.resets_in_s <= 11 * slice_s
        remembered = made.try_now(limited, KEY, 1)
        assert remembered is not None
        assert refused.resets_in_s - 1 < remembered.resets_in_s <= refused.resets_in_s
        seen = await made.look(limited, KEY)
        assert (seen.allowed, seen.resets_in_s < 11 * slice_s) == (False, True)
        assert (await made.ask(limited, KEY, 4, NOBODY)).resets_in_s <= 86_400


async def age_window(dsn: str, *, slices: int) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute("UPDATE logstore.quota_windows SET newest = newest - %s", [slices])


async def test_charges_are_added_up_whatever_the_limit(any_dsn: str) -> None:
    limited = quota(10)
    async with running(any_dsn) as made:
        for _ in range(100):
            made.charge(limited, KEY, 7, NOBODY)
        await until_used(any_dsn, 700)
        assert not (await made.look(limited, KEY)).allowed
        assert made.asked < 10


async def test_charges_of_the_last_moment_are_sent_at_the_end(any_dsn: str) -> None:
    async with running(any_dsn) as made:
        made.charge(quota(), KEY, 7, NOBODY)
    assert used(any_dsn) == 7


async def test_crossings_are_told_once_with_who_crossed(dsn: str) -> None:
    """Those of one spending together, and they are then known to be told."""
    told = Told()
    limited = quota(100, thresholds=(10, 50, 100))
    async with running(dsn, told) as made:
        for number in range(20):
            actor = Actor(f"u{number}", "org", "GET /")
            if made.try_now(limited, KEY, 1) is None:
                await made.ask(limited, KEY, 1, actor)
        await made.ask(limited, KEY, 80, Actor("jumper"))
    assert [(each.percent, each.user_id) for each in told.crossings] == [
        (10, "u9"),
        (50, "jumper"),
        (100, "jumper"),
    ]
    first = told.crossings[0]
    assert (first.previous_usage, first.current_usage, first.quota_limit) == (9, 10, 100)
    assert (first.resource_owner, first.action, first.subject) == ("org", "GET /", "s")
    assert first.crossed_at.tzinfo is not None
    with psycopg.connect(dsn) as conn:
        query = "SELECT count(*) FROM logstore.quota_crossings WHERE called_at IS NOT NULL"
        assert conn.execute(query).fetchone() == (3,)


async def test_crossing_that_could_not_be_told_is_left_for_later(any_dsn: str) -> None:
    """It stands in its table; some process tells it a minute later."""
    told, lines = Told(fails=True), Lines()
    async with running(any_dsn, told, lines) as made:
        await made.ask(quota(1, thresholds=(100,)), KEY, 1, NOBODY)
    assert lines.reasons == ["auditlog.crossing_failed"]
    with psycopg.connect(any_dsn) as conn:
        row = conn.execute(
            "UPDATE logstore.quota_crossings SET claimed_at = claimed_at - interval '2 min'"
            " RETURNING called_at"
        ).fetchone()
    assert row == (None,)


async def test_what_a_killed_process_did_not_tell_is_told(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditlog.quota.engine.driver.LOOK_EVERY_S", 0.01)
    with psycopg.connect(any_dsn) as conn:
        ask = {"q": "q", "t": "t", "s": "s", "n": 1, "a": 1, "limit": 1, "thresholds": [100]}
        ask |= {"start": 0, "end": 4 * 10**15}
        conn.execute("SELECT logstore.spend_quotas(%s)", [Jsonb([ask])])
        conn.execute("UPDATE logstore.quota_crossings SET claimed_at = '2026-01-01'")
    told = Told()
    async with running(any_dsn, told):
        await told.crossed.wait()
    assert [each.percent for each in told.crossings] == [100]


async def test_definitions_are_read_again_and_again(any_dsn: str) -> None:
    """A start waits for the first reading."""
    told = Told()
    async with running(any_dsn, told, refresh_s=0.05):
        assert told.definitions == [[]]
        with psycopg.connect(any_dsn) as conn:
            conn.execute("INSERT INTO logstore.quotas (quota_id, quota_limit) VALUES ('x', 1)")
        while not told.definitions[-1]:
            told.read.clear()
            await told.read.wait()
        assert told.definitions[-1][0]["quota_id"] == "x"


@pytest.mark.parametrize("hostile", ["nul\0in", "lone \ud800", "x" * 20_000, "'; DROP\\'%s"])
async def test_hostile_texts_disturb_nobody_else(any_dsn: str, hostile: str) -> None:
    """They are made such as can be stored, before the database refuses all of the call."""
    lines = Lines()
    async with running(any_dsn, None, lines) as made:
        limited = quota(10, thresholds=(50,), on_unavailable="closed")
        asked = [made.ask(limited, keys(number), 6, NOBODY) for number in range(20)]
        odd = made.ask(limited, Key("q", "t", hostile), 6, Actor(hostile, hostile, hostile))
        decisions = await asyncio.gather(odd, *asked)
    assert all(decision.allowed for decision in decisions)
    assert {each.basis for each in decisions} == {Basis.COUNTER}
    assert lines.reasons == []


async def test_text_that_no_index_takes_is_decided_by_the_quota(any_dsn: str) -> None:
    """Such as a key of random characters that is longer than an index row."""
    odd = Key("q", "t", "".join(chr(0x4E00 + number * 7 % 20_000) for number in range(9_000)))
    lines = Lines()
    async with running(any_dsn, None, lines) as made:
        one, other = await asyncio.gather(
            made.ask(quota(on_unavailable="closed"), odd, 1, NOBODY),
            made.ask(quota(on_unavailable="closed"), KEY, 1, NOBODY),
        )
    assert (one.allowed, one.basis) == (False, Basis.UNAVAILABLE)
    assert (other.allowed, other.basis) == (True, Basis.COUNTER)
    assert lines.reasons == ["auditlog.quota_impossible"]


async def test_clock_of_this_machine_may_be_wrong(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ask learns the database's; it is then asked for the period that it is there."""
    monkeypatch.setattr("auditlog.quota.engine.clock.time.time_ns", lambda: 10**18)
    limited = quota(period="minute", exact=True)
    async with running(any_dsn) as made:
        made.charge(limited, KEY, 1, NOBODY)
        decision = await made.ask(limited, KEY, 1, NOBODY)
        assert (decision.allowed, decision.basis) == (True, Basis.COUNTER)
        assert decision.resets_in_s <= 60
    assert used(any_dsn) == 2


def test_threads_are_served_by_a_loop_in_the_background(any_dsn: str) -> None:
    limited = quota(40, exact=True)
    made = engine(any_dsn)
    decisions: list[Decision] = []

    def spend_some() -> None:
        decisions.extend(made.ask_in_thread(limited, KEY, 1, NOBODY) for _ in range(10))

    threads = [threading.Thread(target=spend_some) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.look_in_thread(limited, KEY).usage == 40
    made.close()
    assert sum(decision.allowed for decision in decisions) == 40
    assert used(any_dsn) == 40


def test_threads_share_a_lease(any_dsn: str) -> None:
    """However they interleave, what is spent is what is counted."""
    limited = quota(20_000)
    made = engine(any_dsn)
    counts = []

    def spend_many() -> None:
        allowed = 0
        for _ in range(4_000):
            decision = made.try_now(limited, KEY, 1)
            allowed += (decision or made.ask_in_thread(limited, KEY, 1, NOBODY)).allowed
        counts.append(allowed)

    threads = [threading.Thread(target=spend_many) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.close()
    assert 17_500 < sum(counts) <= 20_000
    assert used(any_dsn) == sum(counts)


def test_loops_come_and_go(any_dsn: str) -> None:
    """Each `asyncio.run` ends the driver, and the next one that spends begins it anew."""
    limited = quota(100, exact=True)
    made = engine(any_dsn)
    for usage in (2, 4, 6):
        decision = asyncio.run(made.ask(limited, KEY, 2, NOBODY))
        assert (decision.basis, decision.usage) == (Basis.COUNTER, usage)
    assert made.ask_in_thread(limited, KEY, 1, NOBODY).allowed
    made.close()
    assert used(any_dsn) == 7


async def test_two_loops_use_one_engine(any_dsn: str) -> None:
    limited = quota(100, exact=True)
    async with running(any_dsn) as made:

        def elsewhere() -> bool:
            return asyncio.run(made.ask(limited, KEY, 1, NOBODY)).allowed

        assert await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(5))) == [True] * 5
    assert used(any_dsn) == 5


async def test_blocking_on_the_engine_s_own_loop_is_said_at_once(any_dsn: str) -> None:
    async with running(any_dsn) as made:
        with pytest.raises(RuntimeError, match="await"):
            made.ask_in_thread(quota(), KEY, 1, NOBODY)
        with pytest.raises(RuntimeError, match="aclose"):
            made.close()
    assert used(any_dsn) == 0


async def test_engine_may_be_used_after_its_end(any_dsn: str) -> None:
    async with running(any_dsn) as made:
        pass
    assert (await made.ask(quota(), KEY, 1, NOBODY)).allowed
    await made.aclose()


async def test_asks_while_it_ends_are_answered(any_dsn: str) -> None:
    """The end answers who still asks, and who comes after it begins anew."""
    limited = quota(1_000, exact=True)
    made = engine(any_dsn)
    for _ in range(20):
        await made.start()
        asked = [asyncio.ensure_future(made.ask(limited, KEY, 1, NOBODY)) for _ in range(3)]
        await asyncio.gather(made.aclose(), made.ask(limited, KEY, 1, NOBODY), *asked)
    await made.aclose()
    assert used(any_dsn) == 80


async def test_cancelled_ask_gives_back_what_it_was_granted(any_dsn: str) -> None:
    """Whether it was sent or not."""
    limited = quota(100, exact=True)
    async with running(any_dsn) as made:
        for delay in range(30):
            task = asyncio.ensure_future(made.ask(limited, KEY, 1, NOBODY))
            for _ in range(delay):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                made.give_back(task.result())
    assert used(any_dsn) == 0


async def test_pooler_in_transaction_mode(any_dsn: str, pgbouncer: Callable[[str], str]) -> None:
    told = Told()
    async with running(pgbouncer(any_dsn), told) as made:
        asked = [made.ask(quota(5, thresholds=(100,)), KEY, 1, NOBODY) for _ in range(9)]
        assert sum([decision.allowed for decision in await asyncio.gather(*asked)]) == 5
        await told.crossed.wait()
    assert used(any_dsn) == 5


def test_engine_is_what_counts() -> None:
    """The contract of `Counter`, name by name."""
    from auditlog.quota.counter import Counter  # noqa: PLC0415

    names = [name for name in vars(Counter) if not name.startswith("_")]
    assert names
    assert all(callable(getattr(Engine, name)) for name in names)
