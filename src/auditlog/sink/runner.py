"""Where a job runs: as a task of a running loop, or on a loop of its own in one thread.

Both look the same from outside: `finished` is done when the job has returned, and `stop` and
`cancel` may be called from any thread. At the end of the process, when Python starts no more
threads, `wait` runs the job itself. The writer is one.
"""

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

# How long a connection that was cut may take to be noticed.
CUT_S = 1.0


class Job(Protocol):
    """What runs, once or again and again, until it is stopped. All of it belongs to its loop."""

    async def run(self) -> None:
        """Work until `stop`; finish what is to be finished, and return."""

    def stop(self) -> None:
        """Make `run` finish, and return."""

    def give_up(self) -> bool:
        """Make `run` end now, as if cancelled; False if only cancelling its task can do it."""


class Runner:
    """One run of one job, from start to end. Made by `on_loop` or `in_thread`."""

    def __init__(self, job: Job, on_end: Callable[["Runner"], None]) -> None:
        self.finished: Future[None] = Future()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._job = job
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def on_loop(cls, job: Job, on_end: Callable[["Runner"], None]) -> "Runner":
        """Start the job as a task of the running loop."""
        runner = cls(job, on_end)
        runner._begin(asyncio.get_running_loop())
        return runner

    @classmethod
    def in_thread(cls, job: Job, on_end: Callable[["Runner"], None]) -> "Runner":
        """Start the job on a loop in a background thread; return when that loop runs.

        When there can be no thread, the runner is not alive, and `wait` does all the work.
        """
        runner = cls(job, on_end)
        if sys.is_finalizing():
            # A finalizer submits. The thread would never run, and its start would wait for ever.
            return runner
        begun = threading.Event()
        # A daemon: the interpreter must be able to exit; `atexit` drains before it does.
        thread = threading.Thread(
            target=runner._run_in_thread, args=(begun,), name="auditlog", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            return runner
        begun.wait()
        return runner

    @property
    def alive(self) -> bool:
        """Whether the job can make progress: not on a loop that nobody runs."""
        return not self.finished.done() and self.loop is not None and self.loop.is_running()

    def wait(self, timeout_s: float) -> bool:
        """Block until the job has returned; False when it has not within the time."""
        if self.loop is None:
            self._run_to_the_end(timeout_s)
            # Cut when the time was over, it has finished as well, but not its work.
            return self._task is not None and not self._task.cancelled()
        return bool(wait({self.finished}, timeout_s).done)

    def stop(self) -> None:
        """Ask the job to finish what is left and return."""
        self._call(self._job.stop)

    def cancel(self) -> None:
        """End the job at once; what it had under way stays with it."""
        self._call(self._cut)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        self.loop = loop
        # In a context of its own: the job outlives the request that happened to start it.
        self._task = loop.create_task(
            self._job.run(), name="auditlog.writer", context=contextvars.Context()
        )
        self._task.add_done_callback(self._end)
        return self._task

    def _run_in_thread(self, begun: threading.Event) -> None:
        async def main() -> None:
            task = self._begin(asyncio.get_running_loop())
            begun.set()
            await asyncio.wait({task})

        try:
            _run(main)
        except Exception as error:  # noqa: BLE001  # no file descriptors for a loop, for one
            if not self.finished.done():
                self.finished.set_exception(error)
        finally:
            begun.set()

    def _run_to_the_end(self, timeout_s: float) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            task = self._begin(loop)
            # After the first step of the task, which takes `stop` back.
            loop.call_soon(self._job.stop)
            loop.call_later(timeout_s, self._cut)
            await asyncio.wait({task})

        _run(main)

    def _cut(self) -> None:
        if self._task is None or self._task.done() or self.loop is None:
            return
        if self._job.give_up():
            self.loop.call_later(CUT_S, self._task.cancel)
        else:
            self._task.cancel()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._on_end(self)
        if task.cancelled() or (error := task.exception()) is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)

    def _call(self, callback: Callable[[], object]) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(callback)


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do as `asyncio.run`, but for its end: that starts a thread, which may not be possible."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_Executor(max_workers=1, thread_name_prefix="auditlog"))
    try:
        loop.run_until_complete(main())
        # Flushes of other threads, which have their answer and have not read it yet.
        if tasks := asyncio.all_tasks(loop):
            loop.run_until_complete(asyncio.wait(tasks, timeout=CUT_S))
    finally:
        loop.close()


class _Executor(ThreadPoolExecutor):
    """Looks up names for the loop, also when the process is ending and starts no more threads."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function in the pool, or else here and now."""
        try:
            return super().submit(function, *args, **kwargs)
        except RuntimeError:
            future: Future[Any] = Future()
            try:
                future.set_result(function(*args, **kwargs))
            except Exception as error:  # noqa: BLE001  # whoever asked gets it
                future.set_exception(error)
            return future
