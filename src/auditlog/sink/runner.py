"""Where a writer runs: as a task of a running loop, or on a loop of its own in one thread.

Both look the same from outside: `finished` is done when the writer has returned, and `stop` and
`cancel` may be called from any thread.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future

from auditlog.sink.writer import Writer


class Runner:
    """One run of one writer, from start to end. Made by `on_loop` or `in_thread`."""

    def __init__(self, writer: Writer, on_end: Callable[["Runner"], None]) -> None:
        self.finished: Future[None] = Future()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._writer = writer
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def on_loop(cls, writer: Writer, on_end: Callable[["Runner"], None]) -> "Runner":
        """Start the writer as a task of the running loop."""
        runner = cls(writer, on_end)
        runner._begin(asyncio.get_running_loop())
        return runner

    @classmethod
    def in_thread(cls, writer: Writer, on_end: Callable[["Runner"], None]) -> "Runner":
        """Start the writer on a loop in a background thread; return when that loop runs."""
        runner = cls(writer, on_end)
        begun = threading.Event()
        # A daemon: the interpreter must be able to exit; `atexit` drains before it does.
        threading.Thread(
            target=asyncio.run, args=(runner._own_loop(begun),), name="auditlog", daemon=True
        ).start()
        begun.wait()
        return runner

    @property
    def alive(self) -> bool:
        """Whether the writer can still make progress."""
        return not self.finished.done() and self.loop is not None and not self.loop.is_closed()

    def stop(self) -> None:
        """Ask the writer to ship what is left and return."""
        self._call(self._writer.stop)

    def cancel(self) -> None:
        """End the writer at once; what it had under way stays with it."""
        if self._task is not None:
            self._call(self._task.cancel)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        self.loop = loop
        self._task = loop.create_task(self._writer.run(), name="auditlog.writer")
        self._task.add_done_callback(self._end)
        return self._task

    async def _own_loop(self, begun: threading.Event) -> None:
        task = self._begin(asyncio.get_running_loop())
        begun.set()
        await asyncio.wait({task})

    def _end(self, task: asyncio.Task[None]) -> None:
        self._on_end(self)
        if task.cancelled() or (error := task.exception()) is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(error)

    def _call(self, callback: Callable[[], object]) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(callback)
