"""The loop between what waits and the database: one task, one call under way.

What comes while a call is under way goes out with the next one. It also lets go of idle leases,
reads definitions, and looks for crossings that nobody told. While the database is away nothing
waits: that is said at once, and this loop finds out when it is back.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from psycopg import Error

from auditlog.errors import AuditLogError
from auditlog.quota.engine.asks import Asks
from auditlog.quota.engine.book import Book
from auditlog.quota.engine.connection import Link
from auditlog.quota.engine.exchange import Exchange
from auditlog.quota.engine.telling import Teller
from auditlog.remedies import identify, remedy_of
from auditlog.reporting import Reporter, describe
from auditlog.sink.database.faults import Fault, classify

LOOK_EVERY_S = 30.0
"""For crossings that nobody told; give or take a half, so that processes take turns."""
UNTOLD_AFTER_S = 60.0
MAX_UNFINISHED = 100
MIN_SWEEP_S = 0.05
MAX_SWEPT = 1_000
"""Counters that are looked at in one go: 0.25 ms (2026-11-28), in which the loop stands still."""
RETRY_MIN_S, RETRY_MAX_S = 0.05, 2.0
TELL_S = 2.0
"""How long the end waits for crossings to be told."""

_FAILURES = (Error, OSError, AuditLogError)

_REMEDIES = {
    "0A000": remedy_of("25006"),
    "42501": "GRANT USAGE ON SCHEMA logstore TO ...; GRANT SELECT ON logstore.quotas TO ...; GRANT"
    " EXECUTE ON FUNCTION logstore.spend_quotas(jsonb), logstore.return_quotas(jsonb),"
    " logstore.unfinished_crossings(interval, integer), logstore.crossings_called(uuid[]) TO ...",
    "42883": "the schema is of another version: run `auditlog migrate`",
}
"""By SQLSTATE, where quotas need something else than the log."""


class Driver:
    """Runs on one loop at a time; `wake` and `is_away` may be used from any thread."""

    def __init__(
        self,
        make_link: Callable[[], Link],
        exchange: Exchange,
        asks: Asks,
        book: Book,
        *,
        make_teller: Callable[[Callable[[], None]], Teller],
        reporter: Reporter,
        on_definitions: Callable[[Sequence[Mapping[str, Any]]], None],
        timeout_s: float,
        lease_s: float,
        refresh_s: float,
    ) -> None:
        """Make one that does not run.

        Args:
            make_link: Makes a connection to the database, for each run another one.
            exchange: What is done with it.
            asks: What waits for an answer.
            book: What is held and remembered.
            make_teller: Makes what tells crossings; given how to wake this driver.
            reporter: For what goes wrong.
            on_definitions: Given the rows of `logstore.quotas`, when they were read.
            timeout_s: A call that takes longer means that the database is away.
            lease_s: How long a lease may be idle.
            refresh_s: How often definitions are read.
        """
        self._make_link = make_link
        self._link = make_link()
        self._exchange = exchange
        self._asks = asks
        self._book = book
        self._teller = make_teller(self.wake)
        self._reporter = reporter
        self._on_definitions = on_definitions
        self._timeout_s = timeout_s
        self._sweep_s = max(lease_s / 2, MIN_SWEEP_S)
        self._refresh_s = refresh_s
        self._is_down = False
        self._failures = 0
        self._stopping = self._given_up = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._task: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._first = asyncio.Event()
        self._retry_at = self._refresh_at = self._sweep_at = self._look_at = 0.0

    @property
    def runs(self) -> bool:
        """Is there a run, on a loop that can go on?"""
        loop = self._loop
        return loop is not None and loop.is_running()

    def is_away(self) -> bool:
        """Tell whether it is known that waiting for the database is in vain."""
        if self._is_down:
            return True
        busy_since = self._link.busy_since
        return busy_since is not None and time.monotonic() - busy_since > self._timeout_s

    def wake(self) -> None:
        """Say, from any thread, that something has come."""
        loop = self._loop
        if loop is None:
            return
        if threading.get_ident() == self._thread and loop.is_running():
            self._due.set()
            return
        with suppress(RuntimeError):  # the loop was closed under us
            loop.call_soon_threadsafe(self._due.set)

    async def ready(self, timeout_s: float) -> None:
        """Wait until the database has answered for the first time, or was found to be away."""
        await asyncio.sleep(0)  # its task takes its first step
        if self._loop is asyncio.get_running_loop():
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._first.wait()

    def stop(self) -> None:
        """Make `run` give back what is held, and end."""
        self._stopping = True
        self._due.set()

    def give_up(self) -> bool:
        """Make `run` end now; False if only cancelling its task can do it."""
        self._stopping = self._given_up = True
        self._due.set()
        return self._link.hang_up()

    async def run(self) -> None:
        """Serve until `stop`. Only one run counts, the one begun last."""
        self._begin()
        task, link = self._task, self._link
        try:
            while await self._wait():
                await self._step()
            await self._end()
        except Exception as error:
            self._reporter.report(
                "auditlog.quota_failed",
                f"{describe(error)}: a defect of the engine's own; it begins anew when it is asked",
            )
            raise
        finally:
            if self._task is task:
                self._exchange.settle_under_way()
                self._exchange.refuse_waiting()
                self._loop = self._task = None
                self._first.set()
            await link.close()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            self._due.set()  # so that a run that is superseded on this loop finds that out
        self._loop, self._thread = loop, threading.get_ident()
        self._task = asyncio.current_task()
        self._link.retire()
        self._link = self._make_link()
        self._asks.open()
        self._stopping = self._given_up = self._is_down = False
        self._failures = 0
        # Made here: an Event belongs to the loop it first waits on.
        self._due, self._first = asyncio.Event(), asyncio.Event()
        now = time.monotonic()
        self._retry_at = self._refresh_at = 0.0
        self._sweep_at = now + self._sweep_s
        self._look_at = now + LOOK_EVERY_S * _spread(0, 1)
        self._exchange.settle_under_way()

    def _is_current(self) -> bool:
        return self._task is asyncio.current_task()

    async def _wait(self) -> bool:
        """Wait until there is something to do; False when this run is to end."""
        while self._is_current() and not self._stopping:
            self._due.clear()
            seconds = self._next_at() - time.monotonic()
            if seconds <= 0:
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._due.wait()
        return False

    def _next_at(self) -> float:
        times = [self._sweep_at] if len(self._book) else []
        if self._is_down:
            return min(*times, self._retry_at, float("inf"))
        told_at = 0.0 if self._teller.told else self._look_at
        return min(*times, self._exchange.next_at(), self._refresh_at, told_at)

    async def _step(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now >= self._sweep_at:
            # All of the book in the time for that, whatever its size.
            part = min(1.0, MAX_SWEPT / max(1, len(self._book)))
            self._book.let_go_idle(MAX_SWEPT)
            self._sweep_at = now + self._sweep_s * part
        if self._is_down and now < self._retry_at:
            return
        try:
            await self._link.connect()
        except _FAILURES as error:
            self._note_failure(error, nothing_sent=True)
        else:
            await self._talk()
        self._first.set()

    async def _talk(self) -> None:
        """Do what is due with the connection; whatever fails makes the database away."""
        try:
            if self._is_down:
                # First of all what may be sent twice.
                self._refresh_at = 0.0
                await self._look_around()
            await self._exchange.send(self._link, self._teller)
            await self._look_around()
        except _FAILURES as error:
            self._note_failure(error)
        else:
            self._failures = 0
            self._is_down = False

    def _note_failure(self, error: Exception, *, nothing_sent: bool = False) -> None:
        self._failures += 1
        if nothing_sent or self._failures > 1:
            self._is_down = True
            self._exchange.refuse_waiting()
        ceiling = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(self._failures, 30))
        # Full jitter: a restarted database is not met by all its processes at once.
        self._retry_at = time.monotonic() + ceiling * _spread(0, 1)
        self._reporter.report(
            "auditlog.quota_database_failed",
            f"{describe(error)}; quotas cannot be counted:"
            f" {_remedy(error) or 'see `auditlog doctor`'}",
        )

    async def _look_around(self) -> None:
        """Read definitions, and look after crossings, when that is due."""
        now = time.monotonic()
        await self._note_told()
        if now >= self._refresh_at:
            self._refresh_at = now + self._refresh_s
            await self._read_definitions()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S * _spread(0.5, 1.5)
            for row in await self._link.unfinished(UNTOLD_AFTER_S, MAX_UNFINISHED):
                self._teller.add([row])

    async def _note_told(self) -> None:
        told = self._teller.told
        if told:
            count = len(told)
            await self._link.called(told[:count])
            del told[:count]

    async def _read_definitions(self) -> None:
        try:
            self._on_definitions(await self._link.definitions())
        except Exception as error:
            is_away = isinstance(error, Error) and classify(error) is Fault.RETRY
            if is_away or not self._link.is_connected:
                raise
            # Those of before apply, and those of the code.
            self._reporter.report(
                "auditlog.quota_definitions_failed",
                f"{describe(error)}; logstore.quotas is not read:"
                f" {(_remedy(error) if isinstance(error, Error) else '') or 'see its rows'}",
            )

    async def _end(self) -> None:
        """Give back what is held, as far as the database takes it, and answer who still asks."""
        while self._is_current() and not self._given_up:
            self._book.let_go_all()
            await self._teller.finish(TELL_S)
            try:
                await self._pay()
            except _FAILURES as error:
                self._note_failure(error, nothing_sent=True)
                self._exchange.give_up()
            if self._asks.close():
                break

    async def _pay(self) -> None:
        while self._is_current() and (self._exchange.has_debts() or self._teller.told):
            await self._link.connect()
            await self._exchange.send(self._link, self._teller, everything=True)
            await self._note_told()
            self._book.let_go_all()


def _remedy(error: Exception) -> str:
    if not isinstance(error, Error):
        return str(error)
    known = identify(error)
    return _REMEDIES.get(known.sqlstate) or known.remedy


def _spread(least: float, most: float) -> float:
    return random.uniform(least, most)  # noqa: S311  # spreading, not secrecy
