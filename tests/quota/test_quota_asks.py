"""Spendings that wait become groups, and each is answered once."""

from hypothesis import given
from hypothesis import strategies as st

from auditlog.quota.engine.asks import MAX_IN_GROUP, MAX_WAITING, Ask, Asks, Given
from auditlog.quota.engine.clock import Span
from auditlog.quota.engine.owed import Charge, Owed
from auditlog.quota.model import MAX_UNITS, Actor, Basis, Decision, Key, Quota

QUOTA = Quota("q", 10)
KEY = Key("q", "t", "s")
SPAN = Span(0, 1, 0)


def ask_of(
    amount: int = 1, key: Key = KEY, quota: Quota = QUOTA, woken: list[int] | None = None
) -> Ask:
    woken = [] if woken is None else woken
    return Ask(quota, key, amount, Actor(), lambda: woken.append(1))


def decision(ask: Ask, allowed: bool = True) -> Decision:
    return Decision(ask.quota, ask.key, ask.amount, allowed, 0, 0, 0, 1.0, Basis.COUNTER)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=60), st.integers(1, 4)
)
def test_every_ask_goes_out_once_with_its_equals(wanted: list[tuple[str, int]], most: int) -> None:
    """Groups leave in order of their first ask, and hold all that are equal, in their order."""
    asks = Asks()
    put = [ask_of(amount, Key("q", "t", subject)) for subject, amount in wanted]
    assert all(asks.put(ask) for ask in put)
    groups = []
    while taken := asks.take(most):
        assert len(taken) <= most
        groups += taken
    assert len(asks) == 0
    order = list(dict.fromkeys(wanted))
    assert [(group.key.subject, group.amount) for group in groups] == order
    for group in groups:
        equal = [ask for ask in put if (ask.key, ask.amount) == (group.key, group.amount)]
        assert group.asks == equal


def test_definitions_that_differ_do_not_share_a_group() -> None:
    """While a limit changes, each ask is answered by the limit that it was made for."""
    asks = Asks()
    other = Quota("q", 11)
    asks.put(ask_of())
    asks.put(ask_of(quota=other))
    assert [group.quota.limit for group in asks.take(9)] == [10, 11]


def test_group_is_bounded() -> None:
    asks = Asks()
    for _ in range(MAX_IN_GROUP + 1):
        asks.put(ask_of())
    assert [len(group.asks) for group in asks.take(9)] == [MAX_IN_GROUP, 1]


def test_only_so_many_may_wait_but_those_that_were_sent_before() -> None:
    asks = Asks()
    for _ in range(MAX_WAITING):
        assert asks.put(ask_of())
    assert not asks.put(ask_of())
    assert asks.put(ask_of(), again=True)


def test_answer_comes_once_and_wakes() -> None:
    woken: list[int] = []
    asks, ask = Asks(), ask_of(woken=woken)
    first = decision(ask)
    assert asks.answer(ask, first) is None
    assert asks.answer(ask, None) is None
    assert (asks.leave(ask, Given.ALLOWED), ask.failed, woken) == (first, False, [1])


def test_answer_that_comes_too_late_tells_what_was_given_instead() -> None:
    """Whoever has gone on is not woken, and the units are seen to."""
    woken: list[int] = []
    asks, ask = Asks(), ask_of(woken=woken)
    assert asks.leave(ask, Given.ALLOWED) is None
    assert asks.answer(ask, decision(ask)) is Given.ALLOWED
    assert (ask.decision, woken) == (None, [])


def test_ask_that_failed_is_left_to_its_owner() -> None:
    """Then nobody else charges it: `given` stays empty."""
    asks, ask = Asks(), ask_of()
    asks.answer(ask, None)
    assert asks.leave(ask, Given.ALLOWED) is None
    assert (ask.failed, ask.given) == (True, None)


def test_end_waits_for_what_came_in_the_last_moment() -> None:
    asks = Asks()
    asks.put(ask_of())
    assert (asks.close(), asks.is_closed) == (False, False)
    asks.take(1)
    assert (asks.close(), asks.is_closed) == (True, True)
    asks.open()
    assert not asks.is_closed


def test_charges_of_a_counter_are_one() -> None:
    """Bounded by the counters, and not by the traffic; nothing passes what JSON carries."""
    owed = Owed(lambda: None)
    for units in (1, 2, MAX_UNITS):
        owed.charge(Charge(QUOTA, KEY, SPAN, units, Actor(f"u{units}")))
    (charge,) = owed.take_charges(9)
    assert (charge.units, charge.actor) == (MAX_UNITS, Actor(f"u{MAX_UNITS}"))
    assert owed.since is None


@given(st.integers(1, 9), st.integers(1, 9))
def test_what_is_given_back_comes_off_what_is_to_be_charged(charged: int, given_back: int) -> None:
    owed = Owed(lambda: None)
    owed.charge(Charge(QUOTA, KEY, SPAN, charged, Actor()))
    owed.give_back(KEY, SPAN, given_back)
    charges = sum(charge.units for charge in owed.take_charges(9))
    returns = sum(each.units for each in owed.take_returns(9))
    assert charges - returns == charged - given_back
    assert min(charges, returns) == 0


def test_other_periods_are_other_counters() -> None:
    owed = Owed(lambda: None)
    owed.charge(Charge(QUOTA, KEY, SPAN, 1, Actor()))
    owed.give_back(KEY, Span(1, 2, 0), 1)
    assert (len(owed.take_charges(9)), len(owed.take_returns(9))) == (1, 1)
