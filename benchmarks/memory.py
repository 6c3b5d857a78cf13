"""What a full queue takes, as a multiple of the encoded bytes in it.

Measured: the resident set of a new process before and after it fills our buffer with typical rows,
once to the default number of rows and once, with that bound lifted, to the default number of bytes.
Beside it the same number of records queued as the objects they are, which is what a logger's queue
does. The limit is 1: the bytes themselves. Not measured: a batch under way, which for the length of
one COPY exists a second time, joined.
"""

import gc
import multiprocessing
import resource
import statistics
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from auditlog.settings import Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.queue.accounts import Accounts
from auditlog.sink.queue.buffer import Buffer
from benchmarks.report import Aim, Row, Table
from benchmarks.rounds import interleave
from benchmarks.rounds import run as run_on_loop
from benchmarks.workload import records

AIM = 1.2
NO_BOUND = 1 << 40
_STATM = Path("/proc/self/statm")
_WARM_UP_ROWS = 100


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int
    max_bytes: int
    rounds: int


FULL = Sizes(Settings().max_queued_rows, Settings().max_queued_bytes, rounds=5)
QUICK = Sizes(Settings().max_queued_rows, 8 << 20, rounds=2)


@dataclass(frozen=True)
class Filled:
    """What one process saw."""

    rows: int
    encoded_bytes: int
    resident_bytes: int

    @property
    def ratio(self) -> float:
        """Memory taken for each encoded byte."""
        return self.resident_bytes / self.encoded_bytes


Job: TypeAlias = Callable[[], Filled]


def run(sizes: Sizes) -> list[Table]:
    """Measure, and return the table."""
    contestants: dict[str, Job] = {
        f"auditlog, {sizes.rows:,} rows": partial(fill_buffer, sizes.rows, NO_BOUND),
        f"auditlog, {sizes.max_bytes / 2**20:g} MiB": partial(
            fill_buffer, NO_BOUND, sizes.max_bytes
        ),
        f"records as objects, {sizes.rows:,}": partial(fill_list, sizes.rows),
    }
    turns = {name: _in_new_process(job) for name, job in contestants.items()}
    return [_table(run_on_loop(interleave("memory", turns, sizes.rounds)))]


def fill_buffer(rows: int, max_bytes: int) -> Filled:
    """Put encoded rows into a buffer until it is full. Runs in a new process."""
    settings = Settings(max_queued_rows=rows, max_queued_bytes=max_bytes)
    encode = Encoder(settings).encode
    for record in records(_WARM_UP_ROWS):
        encode(record)
    buffer = Buffer(settings, Accounts(), lambda: None)
    before = _resident_bytes()
    # By number of bytes: a typical row is larger than 256.
    for record in records(min(rows, max_bytes // 256)):
        table, row = encode(record)
        if buffer.put(table, row, low_priority=False):
            break
    taken = _resident_bytes() - before
    stats = buffer.snapshot()
    return Filled(stats.queued, stats.queued_bytes, taken)


def fill_list(rows: int) -> Filled:
    """Queue the records themselves. Runs in a new process."""
    queue = deque(records(_WARM_UP_ROWS))
    queue.clear()
    before = _resident_bytes()
    queue.extend(records(rows))
    taken = _resident_bytes() - before
    encode = Encoder(Settings()).encode
    return Filled(rows, sum(len(encode(record)[1]) for record in queue), taken)


def _in_new_process(job: Job) -> Callable[[], Awaitable[Filled]]:
    async def turn() -> Filled:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(job)

    return turn


def _resident_bytes() -> int:
    gc.collect()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    # The peak, in bytes on macOS; nothing here is freed before the second reading.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _table(filled: dict[str, list[Filled]]) -> Table:
    rows = []
    for name, each in filled.items():
        took = statistics.median(one.ratio for one in each)
        encoded = each[0].encoded_bytes
        resident = statistics.median(one.resident_bytes for one in each)
        aims = (Aim(f"≤ {AIM:g} ×", took <= AIM),) if name.startswith("auditlog") else ()
        cells = (
            f"{each[0].rows:,}",
            f"{encoded / 2**20:.1f}",
            f"{resident / 2**20:.1f}",
            f"{took:.2f}",
        )
        rows.append(Row(name, cells, aims))
    columns = ("rows", "encoded, MiB", "resident, MiB", "× encoded")
    return Table("memory of a full queue", columns, rows)
