"""Leases, remembered refusals and looks, by a clock that the test sets."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from auditlog.quota.engine.asks import Ask, Group
from auditlog.quota.engine.book import MAX_ENTRIES, REMEMBER_S, Book
from auditlog.quota.engine.clock import Calendar, Clock
from auditlog.quota.engine.entry import Answer
from auditlog.quota.engine.owed import Owed, Return
from auditlog.quota.model import Actor, Basis, Decision, Key, Quota

KEY = Key("q", "t", "s")
DAY_US = 86_400_000_000


class Scene:
    """A book, a clock, and a counter that grants as the database does."""

    def __init__(self, quota: Quota | None = None, at_us: int = 100 * DAY_US) -> None:
        self.now = 1_000.0
        self.quota = quota or Quota("q", 1_000, period="day")
        self.clock = Clock(lambda: self.now)
        self.clock.note(at_us, self.now)
        self.owed = Owed(lambda: None)
        self.lows = 0
        self.book = Book(Calendar(self.clock), self.owed, 1.0, self.note_low)
        self.used = 0
        self.returned: list[Return] = []

    def note_low(self) -> None:
        self.lows += 1

    def spend(self, amount: int = 1, key: Key = KEY) -> Decision:
        return self.book.try_now(self.quota, key, amount) or self.ask(amount, key=key)[0]

    def ask(self, amount: int = 1, n: int = 1, key: Key = KEY) -> list[Decision]:
        group = Group(self.quota, key, amount)
        group.asks = [Ask(self.quota, key, amount, Actor(), lambda: None) for _ in range(n)]
        self.book.prepare(group)
        return self.answer(group)

    def answer(self, group: Group) -> list[Decision]:
        self.take_returns()
        previous, n = self.used, len(group.asks)
        room = max(0, group.quota.limit - previous)
        granted = min(n, room // group.amount) if group.amount else n
        left = room - granted * group.amount
        extra = min(group.extra, left // 8) if granted == n else 0
        self.used += granted * group.amount + extra
        return self.book.settle(group, Answer(granted, extra, previous, self.used))

    def take_returns(self) -> None:
        returned = self.owed.take_returns(9)
        self.used -= sum(each.units for each in returned)
        self.returned += returned

    def held(self) -> int:
        entries: Any = self.book._entries
        return sum(entry.units for entry in entries.values())


def test_counter_that_is_asked_for_once_has_no_lease() -> None:
    """What is in demand now and then holds no units that others lack."""
    scene = Scene()
    assert scene.spend().basis is Basis.COUNTER
    assert scene.held() == 0
    scene.now += 5
    assert scene.spend().basis is Basis.COUNTER
    assert scene.held() == 0


def test_lease_grows_to_a_second_of_demand() -> None:
    """Each is as large as what was spent in the second before."""
    scene = Scene(Quota("q", 10**9, period="day"))
    bases = []
    for _ in range(1_000):
        bases.append(scene.spend().basis)
        scene.now += 0.0005
    assert bases[:2] == [Basis.COUNTER, Basis.COUNTER]
    # Renewals are not answered here: about log2 of a thousand asks.
    assert bases.count(Basis.COUNTER) < 15
    assert scene.held() <= 1_000


def test_many_that_wait_at_once_are_a_demand() -> None:
    scene = Scene()
    assert all(decision.allowed for decision in scene.ask(n=10))
    assert scene.held() == 9


def test_exact_quota_takes_nothing_in_advance() -> None:
    scene = Scene(Quota("q", 1_000, period="day", exact=True))
    for _ in range(20):
        assert scene.spend().basis is Basis.COUNTER
    assert (scene.held(), scene.used) == (0, 20)


def test_decisions_of_a_lease_tell_the_usage() -> None:
    """Its own units that are not spent are not part of it."""
    scene = Scene()
    seen = [scene.spend() for _ in range(50)]
    assert [decision.usage for decision in seen] == list(range(1, 51))
    assert [decision.previous for decision in seen] == list(range(50))
    assert scene.used == 50 + scene.held()


def test_refusal_is_remembered_for_a_second_and_for_what_is_too_much() -> None:
    scene = Scene(Quota("q", 5, period="day"))
    scene.ask(3)
    assert not scene.ask(3)[0].allowed
    again = scene.book.try_now(scene.quota, KEY, 3)
    assert again is not None
    assert (again.allowed, again.basis, again.usage) == (False, Basis.REMEMBERED, 3)
    assert scene.book.try_now(scene.quota, KEY, 2) is None
    scene.now += REMEMBER_S
    assert scene.book.try_now(scene.quota, KEY, 3) is None


def test_refusal_of_a_window_says_when_it_is_over() -> None:
    """And goes on to, whatever is asked for meanwhile that fits sooner; then it is the length."""
    scene = Scene(Quota("q", 9, period="1 hour", rolling=True), at_us=100 * DAY_US)

    def answer(amount: int, granted: int, free_in_s: float | None) -> Decision:
        group = Group(scene.quota, KEY, amount)
        group.asks = [Ask(scene.quota, KEY, amount, Actor(), lambda: None)]
        scene.book.prepare(group)
        return scene.book.settle(group, Answer(granted, 0, 5, 5, free_in_s))[0]

    assert answer(5, 0, 30.0).resets_in_s == 30
    answer(1, 1, 2.0)
    scene.now += 0.5
    again = scene.book.try_now(scene.quota, KEY, 5)
    assert again is not None
    assert again.resets_in_s == 29.5
    assert answer(10, 0, None).resets_in_s == 3_600
    assert answer(1, 1, 0.0).resets_in_s == 3_600


def test_refund_makes_a_refusal_forgotten() -> None:
    scene = Scene(Quota("q", 1, period="day", exact=True))
    (granted,) = scene.ask()
    scene.ask()
    assert scene.book.try_now(scene.quota, KEY, 1) is not None
    assert not scene.book.take_back(granted)
    assert scene.book.try_now(scene.quota, KEY, 1) is None


def test_refund_goes_to_the_lease_and_is_spent_again() -> None:
    scene = Scene()
    (granted,) = scene.ask(7)
    assert scene.book.take_back(granted)
    assert scene.held() == 7
    again = scene.book.try_now(scene.quota, KEY, 7)
    assert again is not None
    assert (again.previous, again.usage) == (0, 7)


def test_refund_of_another_period_is_not_the_lease_s() -> None:
    scene = Scene()
    (granted,) = scene.ask()
    scene.clock.note(101 * DAY_US, scene.now)
    scene.now += 1
    scene.ask()
    assert not scene.book.take_back(granted)


def test_idle_lease_comes_back_and_what_is_old_is_forgotten() -> None:
    scene = Scene()
    scene.ask(n=10)
    scene.now += 0.9
    scene.book.let_go_idle()
    assert (scene.held(), scene.owed.has_returns) == (9, False)
    scene.now += 0.1
    scene.book.let_go_idle()
    assert (scene.held(), [each.units for each in scene.owed.take_returns(9)]) == (0, [9])
    assert len(scene.book) == 1
    scene.now += 2
    scene.book.let_go_idle()
    assert len(scene.book) == 0


def test_idle_leases_are_found_a_part_at_a_time() -> None:
    """Wherever they are in the book, and however often the others are used."""
    scene = Scene(Quota("q", 10**6, period="day"))
    for number in range(10):
        scene.ask(n=5, key=Key("q", "t", str(number)))
    scene.now += 1
    for turn in range(1, 6):
        scene.book.let_go_idle(2)
        assert scene.held() == 40 - turn * 8


def test_lease_ends_with_its_period() -> None:
    """Its units are of another counter than what is spent then, and go back to theirs."""
    scene = Scene(at_us=101 * DAY_US - 500_000)
    scene.ask(n=10)
    scene.now += 0.5
    assert scene.book.try_now(scene.quota, KEY, 1) is None
    scene.ask()
    (given_back,) = scene.returned
    assert (given_back.units, given_back.span.start_us) == (9, 100 * DAY_US)


def test_lease_of_a_window_ends_with_its_slice() -> None:
    """Spent later, a unit would leave the window before its time."""
    scene = Scene(Quota("q", 1_000, period="1 minute", rolling=True), at_us=60_500_000)
    scene.ask(n=10)
    scene.now += 0.49
    assert scene.book.try_now(scene.quota, KEY, 1) is not None
    scene.now += 0.01
    assert scene.book.try_now(scene.quota, KEY, 1) is None


def test_lease_too_small_for_an_ask_is_given_back_before_it() -> None:
    """Or its units would count as used, and have the ask refused."""
    scene = Scene(Quota("q", 40, period="day"))
    scene.ask(n=20)
    assert scene.held() == 2
    (decision,) = scene.ask(20)
    assert (decision.allowed, decision.previous, decision.usage) == (True, 20, 40)


def test_changed_limit_ends_the_lease() -> None:
    scene = Scene()
    scene.ask(n=10)
    scene.quota = Quota("q", 5, period="day")
    assert scene.book.try_now(scene.quota, KEY, 1) is None
    assert not scene.ask()[0].allowed
    assert scene.held() == 0


def test_definition_that_was_read_anew_keeps_the_lease() -> None:
    scene = Scene()
    scene.ask(n=10)
    scene.quota = Quota("q", 1_000, period="day")
    assert scene.spend().basis is Basis.LEASE


def test_lease_is_renewed_before_it_is_empty() -> None:
    """In the background: nobody waits for it."""
    scene = Scene()
    scene.ask(n=9)
    while not scene.lows:
        assert scene.spend().basis is Basis.LEASE
    assert scene.held() == 2
    (renewal,) = scene.book.renewals(9)
    assert (renewal.amount, renewal.asks, renewal.extra) == (0, [], 15)
    assert scene.book.renewals(9) == []
    scene.answer(renewal)
    assert scene.held() == 17
    assert scene.spend().usage == 16


def test_renewal_that_failed_is_asked_for_again() -> None:
    scene = Scene()
    scene.ask(n=9)
    while not scene.lows:
        scene.spend()
    (renewal,) = scene.book.renewals(9)
    scene.book.forget_renewal(renewal)
    scene.spend()
    assert (scene.lows, len(scene.book.renewals(9))) == (2, 1)


def test_renewal_that_nobody_needs_any_more_is_given_back() -> None:
    scene = Scene()
    scene.ask(n=9)
    while not scene.lows:
        scene.spend()
    (renewal,) = scene.book.renewals(9)
    scene.book.let_go_all()
    scene.owed.take_returns(9)
    scene.answer(renewal)
    assert [each.units for each in scene.owed.take_returns(9)] == [renewal.extra]


def test_charge_or_look_leaves_the_lease_to_be_renewed() -> None:
    scene = Scene()
    scene.ask(n=9)
    scene.ask(0)
    while scene.held() > 2:
        scene.spend()
    assert scene.lows == 1


def test_look_is_good_for_a_second() -> None:
    scene = Scene()
    scene.ask(n=3)
    recent = scene.book.recent(scene.quota, KEY)
    assert recent is not None
    assert (recent.usage, recent.amount) == (3, 0)
    scene.book.add(KEY, recent_span(scene), 4)
    assert scene.book.recent(scene.quota, KEY).usage == 7  # type: ignore[union-attr]
    scene.now += REMEMBER_S + 0.01
    assert scene.book.recent(scene.quota, KEY) is None


def recent_span(scene: Scene) -> Any:
    return scene.book._entries[KEY].span


def test_memory_is_bounded() -> None:
    """Of more counters nothing is remembered; what they got in advance goes back at once."""
    scene = Scene(Quota("q", 10**6, period="day"))
    for number in range(MAX_ENTRIES):
        scene.ask(key=Key("q", "t", str(number)))
    scene.ask(n=5, key=Key("q", "t", "one more"))
    assert len(scene.book) == MAX_ENTRIES
    assert sum(each.units for each in scene.owed.take_returns(9)) == 4


@given(
    st.integers(0, 60),
    st.lists(
        st.one_of(
            st.tuples(st.just("spend"), st.integers(0, 9)),
            st.tuples(st.just("gather"), st.integers(1, 9)),
            st.tuples(st.just("wait"), st.integers(0, 1_200)),
            st.tuples(st.just("refund"), st.integers(0, 5)),
            st.tuples(st.just("renew"), st.just(0)),
        ),
        max_size=60,
    ),
)
def test_units_are_always_somewhere(limit: int, steps: list[tuple[str, int]]) -> None:
    """Counted is what was spent, what is held and what is on its way back; never over the limit."""
    scene = Scene(Quota("q", limit, period="day"))
    granted: list[Decision] = []
    for step, number in steps:
        if step == "spend":
            granted += [each for each in [scene.spend(number)] if each.allowed]
        elif step == "gather":
            granted += [each for each in scene.ask(n=number) if each.allowed]
        elif step == "wait":
            scene.now += number / 1_000
            scene.book.let_go_idle()
        elif step == "renew":
            for renewal in scene.book.renewals(9):
                scene.answer(renewal)
        elif granted:
            back = granted.pop(number % len(granted))
            if not scene.book.take_back(back):
                scene.used -= back.amount
        scene.take_returns()
        spent = sum(each.amount for each in granted)
        assert scene.used == spent + scene.held()
        assert spent <= scene.used <= limit
