"""Requests that wait: for their rows to be durable, or for room in the queue.

Never longer than their setting says, and not at all while it has just been in vain: a database that
hangs must not hang the service. Then it is tried once a second whether that is over.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.buffer import Buffer
from auditlog.ticket import Ticket

PROBE_EVERY_S = 1.0


class Durability:
    """Says of the rows of a request whether they are durable, in time. For any thread and loop."""

    def __init__(
        self,
        settings: Settings,
        accounts: Accounts,
        committed_at: Callable[[], float],
        hurry: Callable[[], None],
        reporter: Reporter,
    ) -> None:
        """Begin with a breaker that is closed.

        Args:
            settings: What durable means, and how long to wait for it.
            accounts: Where refused requests are counted.
            committed_at: When the writer last committed a batch, by the monotonic clock.
            hurry: Has the writer try at once, however long it wants to wait; from any thread.
            reporter: For the first of those that waited in vain.
        """
        self._timeout_s = settings.commit_timeout_s
        self._refuses = settings.durability == "commit"
        self._accounts = accounts
        self._committed_at = committed_at
        self._hurry = hurry
        self._reporter = reporter
        self._failed_at: float | None = None
        self._probed_at = 0.0

    @property
    def is_open(self) -> bool:
        """Is it known that waiting is in vain?"""
        return self._failed_at is not None and self._committed_at() <= self._failed_at

    async def wait(self, ticket: Ticket) -> bool:
        """Wait until the rows of a ticket are durable; False if they are not so in time."""
        return self._note(ticket, self._may_wait() and await ticket.awaited(self._timeout_s))

    def wait_in_thread(self, ticket: Ticket) -> bool:
        """Do what `wait` does, and block."""
        return self._note(ticket, self._may_wait() and ticket.wait(self._timeout_s))

    def _may_wait(self) -> bool:
        if not self.is_open:
            return True
        now = time.monotonic()
        if now - self._probed_at < PROBE_EVERY_S:
            return False
        self._probed_at = now
        # Or else it is the back-off that says when requests are served again, up to retry_max_s.
        self._hurry()
        # What is committed then closes the breaker. A request that waits for that would hold a
        # thread of the server, and in a small pool, one after the other, all of them.
        return not self._refuses

    def _note(self, ticket: Ticket, is_durable: bool) -> bool:
        if is_durable:
            self._failed_at = None
            return True
        # A row that is lost, and settled, says nothing about the next one.
        if not (ticket.is_settled or self.is_open):
            self._failed_at = self._probed_at = time.monotonic()
        if self._refuses:
            with self._accounts.lock:
                self._accounts.refused += 1
            self._reporter.report(
                "auditlog.request_refused",
                "requests are refused: their rows cannot be committed in commit_timeout_s",
                level=logging.ERROR,
            )
        else:
            self._reporter.report(
                "auditlog.not_durable",
                "requests are answered though their records are not on the disk: see spool_dir",
                level=logging.ERROR,
            )
        return False


class Room:
    """Waits until the queue takes a row, for `on_overflow="block"`."""

    def __init__(self, settings: Settings, buffer: Buffer, is_spilling: Callable[[], bool]) -> None:
        """Watch a queue.

        Args:
            settings: How long to wait.
            buffer: The queue.
            is_spilling: Does the spool take what finds no room?
        """
        self._timeout_s = settings.block_timeout_s
        self._buffer = buffer
        self._is_spilling = is_spilling

    async def wait(self) -> None:
        """Wait until there is room, or it has taken too long."""
        deadline = time.monotonic() + self._timeout_s
        while asked := self._ask(deadline):
            try:
                await asked.awaited(deadline - time.monotonic())
            finally:
                self._buffer.no_longer_ask(asked)

    def wait_in_thread(self) -> None:
        """Do the same, and block; on an event loop return at once, for it may be the writer's."""
        if _is_on_loop():
            return
        deadline = time.monotonic() + self._timeout_s
        while asked := self._ask(deadline):
            try:
                asked.wait(deadline - time.monotonic())
            finally:
                self._buffer.no_longer_ask(asked)

    def _ask(self, deadline: float) -> Ticket | None:
        if self._is_spilling() or time.monotonic() >= deadline:
            return None
        return self._buffer.ask_for_room()


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
