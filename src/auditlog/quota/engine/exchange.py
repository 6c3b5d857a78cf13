"""What waits → one call of the database → everybody's answer: the work of the driver.

Each group that is sent is settled once: dealt out, sent again, or decided without the database. If
the outcome of a call is not known, what it asked for counts as not granted, and the counter may be
ahead of what is used; only a charge is not sent twice either.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Error

from auditlog.quota.engine.asks import Ask, Asks, Given, Group
from auditlog.quota.engine.book import Book
from auditlog.quota.engine.clock import Calendar, Span, counted_in
from auditlog.quota.engine.connection import Link, Row
from auditlog.quota.engine.entry import Answer
from auditlog.quota.engine.owed import Charge, Owed
from auditlog.quota.engine.telling import Teller
from auditlog.quota.engine.wire import asks_json, returns_json
from auditlog.quota.model import Basis, Decision
from auditlog.reporting import Reporter, describe
from auditlog.sink.database.faults import Fault, classify

MAX_GROUPS = 200
"""Of a kind and call: each takes the server some 50 µs (2026-11-28), and the others wait for it."""
MAX_TRIES = 2
"""One failure may be of a connection that was cut; a second is the database's."""
CHARGE_EVERY_S = 0.1
SLIP_S = 2.0
"""A charge counts in a period that began so long after the units were used, at most."""

_UNAVAILABLE = Basis.UNAVAILABLE


class Exchange:
    """Sends, and deals out. All of it but `give_back` belongs to the driver's loop."""

    def __init__(
        self,
        asks: Asks,
        book: Book,
        owed: Owed,
        *,
        calendar: Calendar,
        reporter: Reporter,
    ) -> None:
        """Begin with nothing under way.

        Args:
            asks: What waits for an answer.
            book: What is held and remembered.
            owed: What the database is to be told.
            calendar: Periods, and the database's clock.
            reporter: For what goes wrong.
        """
        self.answers = 0
        """How many groups were answered, for those who measure."""
        self._asks = asks
        self._book = book
        self._owed = owed
        self._calendar = calendar
        self._reporter = reporter
        self._under_way: dict[int, Group] = {}

    def next_at(self) -> float:
        """Return when there is something to send, by the monotonic clock."""
        if len(self._asks) or self._owed.has_returns or self._book.has_low:
            return 0.0
        since = self._owed.since
        return float("inf") if since is None else since + CHARGE_EVERY_S

    def has_debts(self) -> bool:
        """Tell whether there is something left that an end has to see to."""
        return bool(len(self._asks) or self._owed.has_returns or self._owed.since is not None)

    async def send(self, link: Link, teller: Teller, *, everything: bool = False) -> None:
        """Send what waits, and deal out what is answered.

        Args:
            link: To the database.
            teller: Tells what is crossed.
            everything: Send charges too that could wait for others.

        Raises:
            psycopg.Error, OSError: what was sent is settled, one way or the other.
        """
        # First of all, so that leases which are too small for an ask are given back before it.
        groups = self._gather(everything)
        self._under_way = dict(enumerate(groups))
        try:
            await self._give_back(link)
        except BaseException:
            self.settle_under_way()
            raise
        if groups:
            await self._spend(groups, link, teller)

    def settle_under_way(self) -> None:
        """See to what a run has left that ended in the middle of a call, or stands still."""
        self._fail(self._under_way)

    def refuse_waiting(self) -> None:
        """Have everybody decide without the database who waits for it."""
        for group in self._asks.take(len(self._asks)):
            for ask in group.asks:
                self._answer(ask, None)

    def give_up(self) -> None:
        """Say what is not counted, since the process ends while the database is away."""
        self.refuse_waiting()
        if self._owed.since is not None:
            self.report_lost("the process ended while the database was away")

    def give_back(self, decision: Decision) -> None:
        """Take back units that were granted, and not used; from any thread."""
        # What was allowed without the database is still to be charged.
        if decision.basis is not _UNAVAILABLE and self._book.take_back(decision):
            return
        start_us = decision.period_start_us
        window_us = decision.quota.window_us if decision.quota.rolling else 0
        self._owed.give_back(decision.key, Span(start_us, start_us, window_us), decision.amount)

    def report_lost(self, why: str) -> None:
        """Say that units are not counted."""
        self._reporter.report("auditlog.quota_charges_lost", f"used units are not counted: {why}")

    def _gather(self, everything: bool) -> list[Group]:
        since = self._owed.since
        is_due = since is not None and time.monotonic() >= since + CHARGE_EVERY_S
        charges = self._owed.take_charges(MAX_GROUPS) if is_due or everything else []
        groups = [Group(each.quota, each.key, each.units, each.span, each) for each in charges]
        for group in self._asks.take(MAX_GROUPS):
            self._serve(group)
            if group.asks:
                self._book.prepare(group)
                groups.append(group)
        groups += self._book.renewals(MAX_GROUPS)
        _leave_to_last(groups)
        return groups

    def _serve(self, group: Group) -> None:
        """Take out of a group who has gone on, and who is served by what came meanwhile."""
        waiting = []
        for ask in group.asks:
            if ask.given is not None:
                self._answer(ask, None)
            elif decision := self._book.try_now(group.quota, group.key, group.amount):
                self._answer(ask, decision)
            else:
                waiting.append(ask)
        group.asks = waiting

    async def _give_back(self, link: Link) -> None:
        if not (returns := self._owed.take_returns(MAX_GROUPS)):
            return
        try:
            await link.give_back(returns_json(returns))
        except Error:
            if link.is_connected:
                for each in returns:
                    self._owed.give_back(each.key, each.span, each.units)
            raise

    async def _spend(self, groups: list[Group], link: Link, teller: Teller) -> None:
        under_way = self._under_way = dict(enumerate(groups))
        is_undone = False
        sent_at = time.monotonic()
        try:
            for row in await link.spend(asks_json(groups)):
                if crossings := self._deal(under_way.pop(row[0]), row, sent_at):
                    teller.add(crossings)
        except Error as error:
            is_undone = link.is_connected
            if classify(error) is not Fault.DATA or not is_undone:
                raise
            under_way.clear()
            await self._isolate(groups, error, link, teller)
        finally:
            self._fail(under_way, is_undone=is_undone)

    async def _isolate(self, groups: list[Group], error: Error, link: Link, teller: Teller) -> None:
        """One of the groups has all of them refused: halve them, until it is alone."""
        half = len(groups) // 2
        if half:
            try:
                await self._spend(groups[:half], link, teller)
            except BaseException:
                self._fail(dict(enumerate(groups[half:])), is_undone=True)
                raise
            await self._spend(groups[half:], link, teller)
            return
        self._reporter.report(
            "auditlog.quota_impossible", f"a spending cannot be counted: {describe(error)}"
        )
        for ask in groups[0].asks:
            self._answer(ask, None)

    def _deal(self, group: Group, row: Row, sent_at: float) -> Sequence[Mapping[str, Any]]:
        """Deal out an answer; return what was crossed."""
        _, state, granted, extra, previous, usage, now_us, crossings, free_us = row
        self.answers += 1
        self._calendar.clock.note(now_us, sent_at)
        if state != "ok":
            self._miss(group)
            return ()
        group.span = counted_in(group.span, now_us)
        free_in_s = None if free_us is None else (free_us - now_us) / 1_000_000
        answer = Answer(granted, extra, previous, usage, free_in_s)
        decisions = self._book.settle(group, answer)
        for ask, decision in zip(group.asks, decisions, strict=True):
            self._answer(ask, decision)
        return crossings or ()

    def _answer(self, ask: Ask, decision: Decision | None) -> None:
        given = self._asks.answer(ask, decision)
        if given is None:
            return
        granted = decision is not None and decision.allowed
        if given is Given.ALLOWED and not granted and ask.amount:
            span = self._calendar.current(ask.quota)
            self._owed.charge(Charge(ask.quota, ask.key, span, ask.amount, ask.actor))
        elif given is Given.NOTHING and granted and decision is not None:
            self.give_back(decision)

    def _miss(self, group: Group) -> None:
        """By the database's clock it is another period: ask again, by that clock."""
        charge = group.charge
        if charge is None:
            # The database is there, and an ask waits no longer than its owner does.
            self._repeat(group, is_failure=False)
            return
        span = self._calendar.current(group.quota)
        age_s = time.monotonic() - charge.since - SLIP_S
        if span.start_us <= self._calendar.clock.now_us() - int(age_s * 1_000_000):
            charge.span = span
            self._owed.charge(charge)
        else:
            self.report_lost("their period was over before the database was back")

    def _fail(self, under_way: dict[int, Group], *, is_undone: bool = False) -> None:
        """Let go out again what was not answered, unless it is a charge that may have arrived."""
        while under_way:
            _, group = under_way.popitem()
            if group.charge is None:
                self._repeat(group)
            elif is_undone:
                self._owed.charge(group.charge)
            else:
                self.report_lost("the database did not say whether it has taken them")

    def _repeat(self, group: Group, *, is_failure: bool = True) -> None:
        if not group.asks:
            self._book.forget_renewal(group)
        for ask in group.asks:
            ask.tries += is_failure
            if ask.given is not None or ask.tries >= MAX_TRIES:
                self._answer(ask, None)
            else:
                self._asks.put(ask, again=True)


def _leave_to_last(groups: list[Group]) -> None:
    """Have units taken in advance by the last group of a counter: the others come before that."""
    seen = set()
    for group in reversed(groups):
        if group.key in seen:
            group.extra = 0
        elif group.extra:
            seen.add(group.key)
