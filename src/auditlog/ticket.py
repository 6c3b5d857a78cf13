"""What a request holds while it waits for its rows: it is told when they are all durable.

A leaf that capture and sink share. The sink counts the rows that it takes over with a ticket, and
settles each once, from whatever thread; the request waits on its event loop, or in its thread.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class Ticket:
    """Counts the rows of one request that are not durable yet. Safe to use from any thread."""

    __slots__ = ("_failed", "_left", "_lock", "_wakers")

    def __init__(self) -> None:
        # Re-entrant: a signal handler may settle while this very thread is in here.
        self._lock = threading.RLock()
        self._left = 0
        self._failed = False
        self._wakers: list[Callable[[], None]] = []

    def expect(self) -> None:
        """Count one row more; before it can be settled."""
        with self._lock:
            self._left += 1

    def settle(self, durable: bool) -> None:  # its only argument, on a hot path
        """Take note that one row is durable, or that it never will be."""
        with self._lock:
            self._left -= 1
            self._failed = self._failed or not durable
            if self._left > 0:
                return
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    @property
    def is_settled(self) -> bool:
        """Is it decided of every row whether it is durable?"""
        with self._lock:
            return self._left <= 0

    def wait(self, timeout_s: float) -> bool:
        """Block until every row is settled; return whether all are durable, in time."""
        if not self.is_settled:
            settled = threading.Event()
            if not self._is_settled_or(settled.set):
                settled.wait(timeout_s)
        return self._is_durable()

    async def awaited(self, timeout_s: float) -> bool:
        """Do what `wait` does, without blocking the event loop."""
        if self.is_settled:
            return self._is_durable()
        loop = asyncio.get_running_loop()
        settled = loop.create_future()
        thread = threading.get_ident()

        def set_result() -> None:
            if not settled.done():
                settled.set_result(None)

        def wake() -> None:
            if threading.get_ident() == thread:
                set_result()
                return
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(set_result)

        if not self._is_settled_or(wake):
            timer = loop.call_later(timeout_s, set_result)
            try:
                await settled
            finally:
                timer.cancel()
        return self._is_durable()

    def _is_settled_or(self, wake: Callable[[], None]) -> bool:
        """Tell whether there is nothing to wait for; if there is, keep whom to wake."""
        with self._lock:
            if self._left > 0:
                self._wakers.append(wake)
                return False
            return True

    def _is_durable(self) -> bool:
        with self._lock:
            return self._left <= 0 and not self._failed
