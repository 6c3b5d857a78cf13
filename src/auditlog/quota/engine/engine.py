"""`Engine`: the counters of `auditlog.quota.counter.Counter`, kept in PostgreSQL.

A decision is founded on what this process holds or remembers of a counter (`book`), or the
database is asked: whoever asks waits (`asks`) for the one task that talks to it (`driver`). It
works from any thread and loop, survives a fork, loops that come and go, and a database that is not
there; then `Quota.on_unavailable` decides, within `timeout_s`.
"""

import asyncio
import atexit
import multiprocessing.util
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from auditlog.postgres import embedded
from auditlog.quota.engine.asks import Ask, Asks, Given
from auditlog.quota.engine.book import Book
from auditlog.quota.engine.clock import Calendar, Clock
from auditlog.quota.engine.connection import Link
from auditlog.quota.engine.driver import Driver
from auditlog.quota.engine.exchange import Exchange
from auditlog.quota.engine.life import Life
from auditlog.quota.engine.owed import Charge, Owed
from auditlog.quota.engine.telling import Tell, Teller
from auditlog.quota.model import MAX_UNITS, Actor, Basis, Decision, Key, Quota
from auditlog.reporting import Reporter, describe
from auditlog.settings import Settings

MIN_CALL_S = 2.0
"""A call is given up after that, or twice `timeout_s`: its connection is taken for dead."""

_NOBODY = Actor()
_UNAVAILABLE = Basis.UNAVAILABLE


class Engine:
    """Counts in PostgreSQL, for one process.

    What is decided without the database because `on_unavailable` is open is charged by the engine
    itself, when the database is back.
    """

    _book: Book

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        *,
        timeout_s: float = 0.5,
        lease_s: float = 1.0,
        refresh_s: float = 5.0,
        on_definitions: Callable[[Sequence[Mapping[str, Any]]], None],
        on_crossings: Tell,
    ) -> None:
        """Make one that does not run yet.

        Args:
            settings: The DSN, and time limits of connecting and of the end.
            reporter: For what goes wrong.
            timeout_s: How long a spending waits for the database, in seconds.
            lease_s: For how long units are taken in advance, and how long they may be idle.
            refresh_s: How often the limits that are laid down in the database are read.
            on_definitions: Given their rows, as `rows.quota_from` reads them; on the engine's loop.
            on_crossings: Tells crossings of one spending, and returns the identities of those that
                are told; the others are told again after a minute. On that loop.
        """
        self._settings = settings
        self._reporter = reporter
        self._timeout_s = timeout_s
        self._lease_s = lease_s
        self._refresh_s = refresh_s
        self._on_definitions = on_definitions
        self._on_crossings = on_crossings
        self._make()
        _instances.add(self)

    @property
    def asked(self) -> int:
        """How many groups of spendings the database has answered."""
        return self._exchange.answers

    def try_now(self, quota: Quota, key: Key, amount: int) -> Decision | None:
        """Decide without waiting; see `Counter.try_now`."""
        return self._book.try_now(quota, key, amount)

    async def ask(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Spend, and wait for the database at most `timeout_s`; see `Counter.ask`."""
        loop = asyncio.get_running_loop()
        thread = threading.get_ident()
        answered = loop.create_future()

        def settle() -> None:
            if not answered.done():
                answered.set_result(None)

        def wake() -> None:
            if threading.get_ident() == thread:
                settle()
                return
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._abandon(ask)

        ask = Ask(quota, key, amount, actor, wake)
        if not self._put(ask):
            # Whoever spends in a row must not keep the loop from finding the database again.
            await asyncio.sleep(0)
            return self._without_database(ask)
        timer = loop.call_later(self._timeout_s, settle)
        try:
            await answered
        except BaseException:
            self._abandon(ask)
            raise
        finally:
            timer.cancel()
        return self._outcome(ask)

    def ask_in_thread(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Do what `ask` does, and block; see `Counter.ask_in_thread`.

        Raises:
            RuntimeError: called on the loop that the engine runs on, which it would block.
        """
        answered = threading.Event()
        ask = Ask(quota, key, amount, actor, answered.set)
        if not self._put(ask):
            return self._without_database(ask)
        if self._life.is_here:
            self._abandon(ask)
            raise RuntimeError("this would wait for its own loop: use `async with` or `await`")
        answered.wait(self._timeout_s)
        return self._outcome(ask)

    async def look(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage; see `Counter.look`."""
        seen = self._book.recent(quota, key)
        return _looked(seen or await self.ask(quota, key, 0, _NOBODY))

    def look_in_thread(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage, and block; see `Counter.look_in_thread`."""
        seen = self._book.recent(quota, key)
        return _looked(seen or self.ask_in_thread(quota, key, 0, _NOBODY))

    def charge(self, quota: Quota, key: Key, amount: int, actor: Actor) -> None:
        """Add what was used already; see `Counter.charge`."""
        if amount <= 0:
            return
        span = self._calendar.current(quota)
        self._owed.charge(Charge(quota, key, span, min(amount, MAX_UNITS), actor))
        self._book.add(key, span, amount)
        self._run()

    def give_back(self, decision: Decision) -> None:
        """Take back a spending that was allowed; see `Counter.give_back`."""
        if not decision.allowed or not decision.amount:
            return
        self._exchange.give_back(decision)
        self._run()

    def begin(self) -> None:
        """Run, without being asked for anything; see `Counter.begin`."""
        if not self._life.runs:
            self._run()

    async def start(self) -> None:
        """Begin on the running loop; waits for the first answer, `connect_timeout_s` at most.

        Or the first spendings would be decided without the database, where it has to be started.
        """
        if self._life.enter():
            await self._driver.ready(self._settings.connect_timeout_s)

    async def aclose(self) -> None:
        """Undo one `start`; the last one gives back what the process holds."""
        await self._life.leave()

    def close(self) -> None:
        """Do what `aclose` does, and block; see `Counter.close`."""
        self._life.leave_in_thread()

    def _make(self) -> None:
        calendar = Calendar(Clock())
        self._calendar = calendar
        self._asks = Asks()
        self._owed = Owed(self._note_lost)
        self._book = Book(calendar, self._owed, self._lease_s, self._note_low)
        call_s = max(MIN_CALL_S, 2 * self._timeout_s)
        self._exchange = Exchange(
            self._asks,
            self._book,
            self._owed,
            calendar=calendar,
            reporter=self._reporter,
        )
        self._driver = Driver(
            partial(Link, self._settings, self._resolve_dsn, call_s),
            self._exchange,
            self._asks,
            self._book,
            make_teller=partial(Teller, self._on_crossings, self._reporter),
            reporter=self._reporter,
            on_definitions=self._on_definitions,
            timeout_s=self._timeout_s,
            lease_s=self._lease_s,
            refresh_s=self._refresh_s,
        )
        self._life = Life(self._driver, self._settings.drain_timeout_s, self._is_idle)

    def _put(self, ask: Ask) -> bool:
        """Let an ask wait for the database; False if that is in vain."""
        if not self._run() or self._driver.is_away() or not self._asks.put(ask):
            return False
        self._run()
        return True

    def _run(self) -> bool:
        """See to it that the driver runs, and knows of what has come; False if it cannot run."""
        if self._asks.is_closed or not self._driver.runs:
            self._life.begin(anew=self._asks.is_closed)
        self._driver.wake()
        return self._driver.runs or self._life.runs

    def _abandon(self, ask: Ask) -> None:
        """Give back what an ask is granted, or was just now: nobody spends it."""
        if decision := self._asks.leave(ask, Given.NOTHING):
            self.give_back(decision)

    def _outcome(self, ask: Ask) -> Decision:
        """Return the decision that has come, or that is made since none did in time."""
        is_allowed = _is_open(ask.quota)
        decision = self._asks.leave(ask, Given.ALLOWED if is_allowed else Given.NOTHING)
        if decision is not None:
            return decision
        return self._without_database(ask) if ask.failed else self._unavailable(ask)

    def _without_database(self, ask: Ask) -> Decision:
        """Decide, and have charged what nobody else charges."""
        decision = self._unavailable(ask)
        if decision.allowed and ask.amount:
            self.charge(ask.quota, ask.key, ask.amount, ask.actor)
        return decision

    def _unavailable(self, ask: Ask) -> Decision:
        quota, key, amount = ask.quota, ask.key, ask.amount
        span = self._calendar.current(quota)
        seen = self._book.recent(quota, key, max_age_s=float("inf"))
        used = seen.usage if seen is not None else 0
        allowed = not amount or _is_open(quota)
        ends_in_s = (span.end_us - self._calendar.clock.now_us()) / 1_000_000
        return Decision(
            quota,
            key,
            amount,
            allowed,
            used,
            used + amount if allowed else used,
            span.start_us,
            span.window_us / 1_000_000 or max(0.0, ends_in_s),
            _UNAVAILABLE,
        )

    def _note_low(self) -> None:
        self._run()

    def _note_lost(self) -> None:
        self._exchange.report_lost("there are those of too many counters")

    def _is_idle(self) -> bool:
        return not (
            len(self._book) or len(self._asks) or self._owed.has_returns or self._owed.since
        )

    async def _resolve_dsn(self) -> str:
        dsn = self._settings.dsn or ""
        if dsn.startswith(embedded.SCHEME):
            dsn = await asyncio.to_thread(embedded.resolve_dsn, dsn)
            # Exit handlers run last in, first out: before the embedded server is stopped.
            atexit.unregister(_close_all)
            atexit.register(_close_all)
        return dsn

    def _after_fork(self) -> None:
        """In the child: the parent keeps its leases, its loop and its connection."""
        _inherited.append((self._driver, self._life))
        self._reporter = Reporter()
        self._make()


def _is_open(quota: Quota) -> bool:
    """Tell whether what cannot be decided is allowed."""
    return quota.on_unavailable == "open" or not quota.enforced


def _looked(decision: Decision) -> Decision:
    """Say whether at least one unit is left; or may be, as far as anybody knows."""
    quota = decision.quota
    if decision.basis is _UNAVAILABLE:
        decision.allowed = _is_open(quota)
    else:
        decision.allowed = not quota.enforced or decision.usage < quota.limit
    return decision


def _close_all() -> None:
    """The last resort, for applications that never closed their engine."""
    for engine in list(_instances):
        if not engine._is_idle():
            try:
                engine._life.end()
            except Exception as error:  # noqa: BLE001  # the other engines hold units as well
                engine._reporter.report(
                    "auditlog.quota_failed", f"units are not given back: {describe(error)}"
                )


def _reset_all() -> None:
    for engine in list(_instances):
        engine._after_fork()


# What a child got from its parent is kept, unused: closing it would end the parent's connection.
_inherited: list[Any] = []
_instances: "weakref.WeakSet[Engine]" = weakref.WeakSet()
atexit.register(_close_all)
os.register_at_fork(after_in_child=_reset_all)
# A forked child of multiprocessing ends without exit handlers, but runs its finalizers.
multiprocessing.util.register_after_fork(
    Engine, lambda _: multiprocessing.util.Finalize(None, _close_all, exitpriority=0)
)
