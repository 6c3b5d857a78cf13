"""Group commit: one thread lets many records share one fdatasync, which releases the GIL.

The thread is started by the first record that wants it, ends when nothing has come for a while,
and does not keep the process alive. Where there can be none, the work is done by whoever asks.
"""

import _thread
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeAlias

from auditlog.reporting import Reporter, describe

OnDurable: TypeAlias = Callable[[bool], None]

IDLE_S = 10.0
"""For so long a thread without work stays: starting one takes 0.1 ms."""
_PATIENCE_S = 10.0


@dataclass(slots=True)
class Work:
    """What one round makes durable."""

    descriptors: list[int] = field(default_factory=list)
    """The round's own; closed by it."""
    folders: list[str] = field(default_factory=list)
    on_durable: list[OnDurable] = field(default_factory=list)
    error: OSError | None = None
    """Why not everything is here that should be."""


class Syncer:
    """Runs rounds, in a thread or at once."""

    def __init__(
        self,
        collect: Callable[[], Work | None],
        on_failure: Callable[[], None],
        delay_s: float,
        reporter: Reporter,
    ) -> None:
        """Make a syncer; no thread is started yet.

        Args:
            collect: Gives what is to be made durable; None when nothing is. From any thread.
            on_failure: Called when that failed, before the records' owners are told.
            delay_s: How long the thread gathers records for a round.
            reporter: Told of failures.
        """
        self._collect = collect
        self._on_failure = on_failure
        self._delay_s = delay_s
        self._reporter = reporter
        self.failing = ""
        self.forget()

    def forget(self) -> None:
        """Begin anew in a forked child, where there is no thread and locks may be held for ever."""
        # Its `put` may be interrupted by itself, as by a signal handler; that of an Event may not.
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._starting = threading.RLock()
        self._has_thread = False
        self._round = threading.RLock()

    def wake(self) -> bool:
        """Have a round run soon; False when there can be no thread, so that the caller must."""
        if sys.is_finalizing():
            return False  # the thread is frozen, wherever it was
        with self._starting:
            self._calls.put(None)
            if not self._has_thread:
                self._has_thread = self._start()
            return self._has_thread

    def run(self) -> None:
        """Run a round, and return when what was written before the call is durable, or is not."""
        if sys.is_finalizing():
            # Nobody else runs any more, and who holds the lock will not give it back.
            self._round = threading.RLock()
        # Not for ever: a disk may hang, and the process wants to end.
        if not self._round.acquire(timeout=_PATIENCE_S):
            self._fail(f"fdatasync has not returned for {_PATIENCE_S:.0f} s")
            return
        try:
            work = self._collect()
            if work is not None:
                self.do(work)
        finally:
            self._round.release()

    def _start(self) -> bool:
        try:
            # Not `threading.Thread`, whose start must not be interrupted by a start: a signal
            # handler of the first record's thread may append as well.
            _thread.start_new_thread(self._loop, (self._calls,))
        except RuntimeError:
            return False
        return True

    def _loop(self, calls: "SimpleQueue[None]") -> None:
        while True:
            try:
                calls.get(timeout=IDLE_S)
            except Empty:
                with self._starting:
                    if calls.empty():
                        self._has_thread = False
                        return
            try:
                time.sleep(self._delay_s)
                while not calls.empty():
                    calls.get()
                self.run()
            except Exception as error:  # noqa: BLE001  # the next round may well succeed
                self._fail(describe(error))

    def do(self, work: Work) -> None:
        """Make something durable, and tell whoever waits for it."""
        error = work.error
        for descriptor in work.descriptors:
            error = _attempt(os.fdatasync, descriptor) or error
            with suppress(OSError):
                os.close(descriptor)
        for folder in work.folders:
            error = _attempt(_sync_folder, folder) or error
        if error is None:
            self.failing = ""
        else:
            self._fail(f"fdatasync: {describe(error)}, {error.strerror}")
        for call in work.on_durable:
            # Whoever wants to know must not keep the others from it.
            with suppress(Exception):
                call(error is None)

    def _fail(self, what: str) -> None:
        self.failing = f"what is written may not outlive the machine: {what}"
        with suppress(Exception):
            self._on_failure()
        self._reporter.report("auditlog.spool_failed", f"{self.failing}: check the disk")


def _attempt(do: Callable[..., None], target: int | str) -> OSError | None:
    try:
        do(target)
    except OSError as error:
        return error
    return None


def _sync_folder(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return  # settled and removed meanwhile
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
