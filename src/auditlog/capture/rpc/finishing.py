"""Rows of the threaded server's RPCs: put together some at a time, and held back for nobody.

What has ended is finished in batches: one by one each takes twice as long, for the caches are full
of the server's own code and data each time. Nothing waits for its batch while the server has
nothing else to do: it is finished at once when no RPC is under way, so when the server has stopped.
What has ended at one end only waits `PATIENCE_S` for the other. A thread looks after both; it lives
only while something waits.
"""

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from itertools import count
from typing import Final, Protocol

PATIENCE_S: Final = 10.0
"""How long the row of an RPC waits for a handler whose client has left, and for a client that does
not take the answer. Not a setting: longer, a crash loses more; shorter, annotations come too late.
"""

BATCH: Final = 16
"""How many are finished together: 0.3 ms of the server's thread (2026-11-25)."""

LOOK_EVERY_S: Final = 0.25


class Unfinished(Hashable, Protocol):
    """What begins, ends, and is then to be finished."""

    def finish(self, error: None, /) -> None:
        """Put the row together and submit it; never raises."""

    def give_up_waiting(self, since_ns: int, /) -> None:
        """End without the other end, if it is still missing; never raises.

        Args:
            since_ns: When it began to wait, by `time.perf_counter_ns`.
        """


class Finishing:
    """All that is to be finished. Every method may be called from any thread, and never blocks.

    No lock is taken for an RPC: whatever is done for each is one step of the interpreter.
    """

    def __init__(
        self,
        patience_s: float = PATIENCE_S,
        look_every_s: float = LOOK_EVERY_S,
        batch: int = BATCH,
    ) -> None:
        self._batch = batch
        self._patience_ns = int(patience_s * 1e9)
        self._look_every_s = look_every_s
        self.forget()

    def begin(self) -> None:
        """Count one that is under way; `end` is to be called once for each."""
        self._begun = next(self._beginnings)

    def wait(self, unfinished: Unfinished) -> None:
        """Let it wait for its other end, from now on."""
        self._waiting[unfinished] = time.perf_counter_ns()
        if not self._watched:
            self._watch()

    def end(self, unfinished: Unfinished) -> None:
        """Finish it, now or with others, and let it wait no more."""
        self._waiting.pop(unfinished, None)
        self._ended.append(unfinished)
        # Racing with `begin`, the comparison may be wrong: then the thread finishes it.
        if next(self._endings) >= self._begun or len(self._ended) >= self._batch:
            self.finish_ended()
        elif not self._watched:
            self._watch()

    def finish_ended(self) -> None:
        """Finish what has ended."""
        while True:
            try:
                unfinished = self._ended.popleft()
            except IndexError:
                return
            unfinished.finish(None)

    def finish_all(self) -> None:
        """Finish what has ended at one end at least."""
        self._give_up(time.perf_counter_ns())
        self.finish_ended()

    def forget(self) -> None:
        """Begin anew, as a forked child does: what is there is its parent's."""
        self._waiting: dict[Unfinished, int] = {}
        self._ended: deque[Unfinished] = deque()
        self._beginnings, self._endings = count(1), count(1)
        self._begun = 0
        self._watched = False
        # Re-entrant: a collection in `_watch` may end another RPC, whose generator it finds.
        self._lock = threading.RLock()

    def _watch(self) -> None:
        with self._lock:
            if self._watched:
                return
            self._watched = True
            # Anew each time, so that it comes before what was registered meanwhile: when an
            # embedded server has been stopped, for one, nothing can be stored any more.
            atexit.unregister(self.finish_all)
            atexit.register(self.finish_all)
            try:
                threading.Thread(target=self._look, name="auditlog-rpc", daemon=True).start()
            except RuntimeError:  # no more threads; the next one tries again
                self._watched = False

    def _look(self) -> None:
        while True:
            time.sleep(self._look_every_s)
            self._give_up(time.perf_counter_ns() - self._patience_ns)
            self.finish_ended()
            with self._lock:
                # In this order: who adds does it in the opposite one, so one of both notices.
                self._watched = False
                if not self._waiting and not self._ended:
                    return
                self._watched = True

    def _give_up(self, limit_ns: int) -> None:
        # It changes under way, and a copy may fail when it does: another time, then.
        with suppress(RuntimeError):
            for unfinished, since_ns in list(self._waiting.items()):
                if since_ns > limit_ns:
                    break
                self._waiting.pop(unfinished, None)
                unfinished.give_up_waiting(since_ns)


class FinishingElsewhere(Finishing):
    """Leaves it all to the thread, for rows that may have to wait for room in a queue."""

    def end(self, unfinished: Unfinished) -> None:
        """Let the thread finish it, and let it wait no more."""
        self._waiting.pop(unfinished, None)
        self._ended.append(unfinished)
        if not self._watched:
            self._watch()


FINISHING: Final = Finishing()
AT_ONCE: Final = Finishing(batch=1)
"""For rows that are to be kept before the client has its answer."""
ELSEWHERE: Final = FinishingElsewhere()
for _each in (FINISHING, AT_ONCE, ELSEWHERE):
    os.register_at_fork(after_in_child=_each.forget)
