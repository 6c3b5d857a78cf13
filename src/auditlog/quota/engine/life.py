"""When a driver runs, and where: begun by the first who needs it, ended by the last who used it.

It runs on the loop of whoever starts it, else on a loop in a background thread; a loop that ended
is replaced by the next one that needs the driver. What a process holds when it ends, and nobody
closed the engine, is given back by an exit handler.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from auditlog.sink.runner import Job, Runner


class Life:
    """The runs of one driver, one after the other. Thread-safe."""

    def __init__(self, driver: Job, drain_s: float, is_idle: Callable[[], bool]) -> None:
        """Keep what is needed to run; nothing runs yet.

        Args:
            driver: What is to run.
            drain_s: How long an end may take, in seconds.
            is_idle: Does the process hold nothing and owe nothing? Then there is no need to run.
        """
        self._driver = driver
        self._drain_s = drain_s
        self._is_idle = is_idle
        # Re-entrant: a signal handler may spend while this very thread is starting the driver.
        self._lock = threading.RLock()
        self._users = 0
        self._starting = False
        self._runner: Runner | None = None

    @property
    def runs(self) -> bool:
        """Does the driver run, on a loop that can go on?"""
        runner = self._runner
        return runner is not None and runner.alive

    @property
    def is_here(self) -> bool:
        """Does it run on the loop that this code is on, which must not be blocked then?"""
        runner = self._runner
        return runner is not None and runner.loop is not None and runner.loop is _running_loop()

    def begin(self, *, in_thread: bool = False, anew: bool = False) -> None:
        """Start the driver, unless it runs; if `anew`, what runs is about to end."""
        with self._lock:
            if self._starting or (self.runs and not anew):
                return
            self._starting = True
            is_on_loop = _running_loop() is not None and not in_thread
            start = Runner.on_loop if is_on_loop else Runner.in_thread
            try:
                runner = start(self._driver, self._on_end)
                self._runner = runner if runner.alive else None
            finally:
                self._starting = False

    def enter(self, *, in_thread: bool = False) -> bool:
        """Begin, for one user more; tell whether this is the first."""
        with self._lock:
            self._users += 1
            self.begin(in_thread=in_thread)
            return self._users == 1

    async def leave(self) -> None:
        """Undo one `enter`; the last one ends the driver, within the time for that."""
        runner = self._leave(here=True)
        if runner is None:
            return
        runner.stop()
        finished = asyncio.wrap_future(runner.finished)
        await asyncio.wait({finished}, timeout=self._drain_s)
        if not finished.done():
            runner.cancel()
            await asyncio.wait({finished}, timeout=self._drain_s)

    def leave_in_thread(self) -> None:
        """Do what `leave` does, and block.

        Raises:
            RuntimeError: called on the loop that the driver runs on, which it would block.
        """
        if self.is_here:
            raise RuntimeError("close() would wait for its own loop: await aclose() there")
        self._finish(self._leave(here=False))

    def end(self) -> None:
        """End the driver whoever uses it, and block: the process is about to end."""
        with self._lock:
            self._users = 0
        self._finish(self._leave(here=False))

    def _finish(self, runner: Runner | None) -> None:
        if runner is None:
            return
        deadline = time.monotonic() + self._drain_s
        runner.stop()
        if not runner.wait(max(0.0, deadline - time.monotonic())):
            runner.cancel()
            runner.wait(self._drain_s)

    def _leave(self, *, here: bool) -> Runner | None:
        """Return what is to be ended; a run of its own, if there are things left from another."""
        with self._lock:
            self._users = max(0, self._users - 1)
            if self._users:
                return None
            if not self.runs:
                self._runner = None
                if not self._is_idle():
                    start = Runner.on_loop if here else Runner.in_thread
                    self._runner = start(self._driver, self._on_end)
            return self._runner

    def _on_end(self, runner: Runner) -> None:
        # Not under the lock: a start that replaced this runner may hold it on this very thread.
        if self._runner is runner:
            self._runner = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
