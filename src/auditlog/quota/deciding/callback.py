"""The application's `on_crossed`, called so that nothing it does holds up what calls it.

A coroutine function runs on the loop that waits for it, a plain one in a thread of its own: those
of a pool would stay, and be joined at the exit, and a callback may never return.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeAlias

from auditlog.quota.model import Crossing
from auditlog.reporting import describe

OnCrossed: TypeAlias = Callable[[Crossing], Awaitable[Any] | Any]
"""A coroutine function, or a plain one, which is called in a thread."""

MAX_THREADS = 4
"""So many calls of a plain function are under way at once; the others wait for one to return."""

_Call: TypeAlias = tuple[Crossing, "Future[Any]"]


class Callback:
    """Calls the application back. From one loop at a time."""

    def __init__(self, on_crossed: OnCrossed) -> None:
        self._on_crossed = on_crossed
        self._is_coroutine = iscoroutinefunction(on_crossed)
        self._waiting: deque[_Call] = deque()
        self._threads = 0
        self._lock = threading.Lock()

    async def call(self, crossing: Crossing) -> None:
        """Call, and wait for the return. Cancelled, it leaves a thread to itself.

        Raises:
            Exception: whatever the application's code raises.
        """
        if self._is_coroutine:
            await self._on_crossed(crossing)
            return
        answer = await asyncio.wrap_future(self._begin(crossing))
        if isawaitable(answer):  # of an object, or a lambda, around a coroutine function
            await answer

    def reset(self) -> None:
        """In a child process: the threads are the parent's."""
        self._waiting = deque()
        self._threads = 0
        self._lock = threading.Lock()

    def _begin(self, crossing: Crossing) -> "Future[Any]":
        returned: Future[Any] = Future()
        with self._lock:
            self._waiting.append((crossing, returned))
            if self._threads == MAX_THREADS:
                return returned
            self._threads += 1
        try:
            # A daemon: the interpreter must be able to exit.
            threading.Thread(target=self._run, name="auditlog.callback", daemon=True).start()
        except RuntimeError:  # no more threads can be had: what waits is told by somebody else
            with self._lock:
                self._threads -= 1
            raise
        return returned

    def _run(self) -> None:
        while (call := self._next()) is not None:
            crossing, returned = call
            if not returned.set_running_or_notify_cancel():
                continue
            try:
                answer = self._on_crossed(crossing)
            except BaseException as error:  # noqa: BLE001  # whoever waits gets it
                returned.set_exception(_harmless(error))
            else:
                returned.set_result(answer)

    def _next(self) -> _Call | None:
        """Return what is to be called next; None: this thread is over."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None


def _harmless(error: BaseException) -> Exception:
    """Return what may be raised where it is waited for: an exit would end the loop there."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(describe(error))
