"""Who holds a table against everybody, and for how long: seen from outside, in `pg_locks`."""

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Event

import psycopg

PAUSE_S = 0.0005
_HELD = """
    SELECT count(*) > 0 FROM pg_locks
    WHERE locktype = 'relation' AND relation = %s AND mode = 'AccessExclusiveLock' AND granted
"""


@dataclass
class Locks:
    """What was seen, after the context."""

    looks: list[tuple[float, bool]] = field(default_factory=list)
    """When, on the monotonic clock, and whether the table was held."""

    @property
    def interval_ms(self) -> float:
        """Return the median time between two looks."""
        return 1e3 * statistics.median(b[0] - a[0] for a, b in pairwise(self.looks))

    def longest_ms(self, since: float, until: float) -> float:
        """Return the longest time that it can have been held without a break in that time.

        From the last look that saw it free to the next that does: what is between two looks counts
        against whoever held it. Zero: nobody was ever seen.
        """
        longest, free = 0.0, since
        was_held = False
        for at, is_held in self.looks:
            if not since <= at <= until:
                continue
            if not is_held:
                longest = max(longest, at - free) if was_held else longest
                free = at
            was_held = is_held
        return 1e3 * (max(longest, until - free) if was_held else longest)


@contextmanager
def watch(dsn: str, table: str) -> Iterator[Locks]:
    """Look all the time for the length of the context, at the table that has that name now."""
    locks = Locks()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    ours, theirs = context.Pipe()
    process = context.Process(target=_look, args=(dsn, table, theirs, stop), daemon=True)
    process.start()
    try:
        ours.recv()
        yield locks
        stop.set()
        locks.looks += ours.recv()
    finally:
        process.kill()  # it has told all that it saw, or something went wrong
        process.join()


def _look(dsn: str, table: str, pipe: Pipe, stop: Event) -> None:
    looks = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        named = conn.execute("SELECT %s::regclass::oid", [f"logstore.{table}"]).fetchone()
        pipe.send(None)
        while not stop.is_set():
            held = conn.execute(_HELD, named).fetchone()
            assert held
            looks.append((time.perf_counter(), bool(held[0])))
            time.sleep(PAUSE_S)
    pipe.send(looks)
