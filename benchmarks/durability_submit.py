"""What `durability="spool"` adds to a record that is submitted: it is in a file when that returns.

Measured: `submit` of typical records to a real log on the running loop, in `memory` and in `spool`
mode with fsync by interval, each in a process of its own; the difference within one round is what
counts. Once while PostgreSQL is away, so that everything stays where it was put, and once while it
is shipped: flushing is off the clock then, but for the last column, which has the CPU time of the
whole process from the first record to the last commit. The CPU time is that of the thread that
submits, kernel included; the time that passes has the waits for a lock and a disk in it as well.

Beside them: the limit, which is `crc32` and `os.write` of the same bytes; and what people use for
such a spool, which gets its line of JSON ready made: the `FileHandler` of `logging`, which flushes
each line, and an INSERT into SQLite, write-ahead log, `synchronous=NORMAL`. Neither syncs a file
for a record, and nor do we. All files lie on one disk, in the folder for temporary files.
"""

import gc
import logging
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast
from zlib import crc32

import orjson

from auditlog import AuditLog
from auditlog.records import LogRecord
from auditlog.settings import Durability, Settings
from auditlog.sink.encoding.encode import Encoder
from benchmarks.capture import Counted
from benchmarks.database import Server
from benchmarks.isolated import Turn, isolated
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import added, interleave, interval, judge, loop_name
from benchmarks.rounds import run as run_on_loop
from benchmarks.workload import records

AIM_US = 3.0
MEMORY_AWAY, SPOOL_AWAY = "memory, database away", "spool, database away"
MEMORY, SPOOL = "memory, shipping", "spool, shipping"
LIMIT = "crc32 and os.write of the bytes"
FILE_HANDLER, SQLITE = "logging.FileHandler, a line", "sqlite3, WAL, a line"
OURS = (MEMORY_AWAY, SPOOL_AWAY, MEMORY, SPOOL)
NAMES = (*OURS, LIMIT, FILE_HANDLER, SQLITE)
AWAY_DSN = "host=/nowhere dbname=nothing"
UNBOUNDED = 1 << 40

Costs = dict[str, list[float]]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    records: int
    """In one turn: about what comes between two fsyncs at 1 000 a second.

    Not more: a turn that is longer than a time slice is interrupted where a shorter one is not.
    """
    rounds: int
    committed: int = Settings().batch_rows
    """In one turn that lasts until all are committed."""
    committed_rounds: int = 20


FULL = Sizes(records=100, rounds=150)
QUICK = Sizes(records=50, rounds=8, committed=50, committed_rounds=3)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    cpu = _measure("CPU", sizes, server, time.thread_time, NAMES)
    passed = _measure("time", sizes, server, time.perf_counter, NAMES)
    whole = replace(sizes, records=sizes.committed, rounds=sizes.committed_rounds)
    committed = _measure("in all", whole, server, time.process_time, (MEMORY, SPOOL))
    return [_table(cpu, passed, committed, sizes)]


def _measure(
    title: str, sizes: Sizes, server: Server, clock: Clock, names: tuple[str, ...]
) -> Costs:
    """Measure with one clock; that of the process runs until everything is committed."""
    with ExitStack() as stack:
        dsns = {name: stack.enter_context(server.database()) for name in (MEMORY, SPOOL)}
        make = partial(contestant, sizes.records, clock, dsns)
        turns = stack.enter_context(isolated(make, names))
        figures = run_on_loop(interleave(f"submit, {title}", turns, sizes.rounds))
    return {name: [figure * 1e6 for figure in each] for name, each in figures.items()}


@asynccontextmanager
async def contestant(
    count: int, clock: Clock, dsns: Mapping[str, str], name: str
) -> AsyncIterator[Turn]:
    """Make a contestant, in a process of its own; whoever did nothing fails in the end."""
    with tempfile.TemporaryDirectory(prefix="auditlog-bench-") as folder:
        if name in OURS:
            async with _submitting(name, dsns.get(name), folder, count, clock) as turn:
                yield turn
        else:
            with _STORES[name](Path(folder, "spool"), count) as store:
                yield _timed(store, count, clock)


@asynccontextmanager
async def _submitting(
    name: str, dsn: str | None, folder: str, count: int, clock: Clock
) -> AsyncIterator[Turn]:
    settings = Settings(
        dsn=dsn or AWAY_DSN,
        durability=cast("Durability", name.partition(",")[0]),
        spool_dir=folder if name.startswith("spool") else None,
        max_queued_rows=UNBOUNDED,
        max_queued_bytes=UNBOUNDED,
        drain_timeout_s=10 if dsn else 0.1,
    )
    logging.disable()  # that the database is away is meant
    audit = AuditLog(settings=settings)
    async with audit:

        async def turn() -> float:
            load = list(records(count))
            started = _collected(clock)
            _submit_all(audit, load)
            took = clock() - started
            if dsn is not None:
                assert await audit.flush()
            if clock is time.process_time:
                took = clock() - started
            return took / count

        turns = Counted(turn)
        yield turns
        stats, expected = audit.stats(), turns.count * count
        kept = stats.written if dsn else stats.pending + stats.spooled
        assert (stats.submitted, kept, stats.dropped) == (expected, expected, 0), stats


def _submit_all(audit: AuditLog, load: list[LogRecord]) -> None:
    submit = audit.submit
    for record in load:
        submit(record)


def _timed(work: Callable[[], None], count: int, clock: Clock) -> Turn:
    async def turn() -> float:
        started = _collected(clock)
        work()
        return (clock() - started) / count

    return turn


def _collected(clock: Clock) -> float:
    """Begin without the garbage of others."""
    gc.collect()
    return clock()


@contextmanager
def _written(path: Path, count: int) -> Iterator[Callable[[], None]]:
    encode = Encoder(Settings()).encode
    rows = [encode(record)[1] for record in records(count)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def store() -> None:
        for row in rows:
            crc32(row)
            os.write(descriptor, row)

    yield store
    assert os.fstat(descriptor).st_size >= sum(map(len, rows))
    os.close(descriptor)


@contextmanager
def _logged(path: Path, count: int) -> Iterator[Callable[[], None]]:
    lines = _lines(count)
    logger = logging.getLogger("spool")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler := logging.FileHandler(path))

    def store() -> None:
        for line in lines:
            logger.info(line)

    yield store
    handler.close()
    assert path.stat().st_size >= sum(map(len, lines))


@contextmanager
def _inserted(path: Path, count: int) -> Iterator[Callable[[], None]]:
    lines = _lines(count)
    connection = sqlite3.connect(path, isolation_level=None)  # each INSERT commits
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE spool (line TEXT NOT NULL)")

    def store() -> None:
        for line in lines:
            connection.execute("INSERT INTO spool VALUES (?)", (line,))

    yield store
    assert connection.execute("SELECT count(*) FROM spool").fetchone()[0] >= count
    connection.close()


def _lines(count: int) -> list[str]:
    return [orjson.dumps(record).decode() for record in records(count)]


_STORES = {LIMIT: _written, FILE_HANDLER: _logged, SQLITE: _inserted}


def _table(cpu: Costs, passed: Costs, committed: Costs, sizes: Sizes) -> Table:
    def ours(name: str, beside: str | None = None) -> Row:
        cells, aims = [], []
        for word, costs in (("CPU", cpu), ("time", passed)):
            more = _differences(costs[name], costs[beside]) if beside else None
            cells += [_median(costs[name]), _with_interval(more) if more else ""]
            if more:
                verdict = judge(interval(more), at_most=AIM_US)
                aims.append(Aim(f"≤ {AIM_US:g} µs added, {word}", verdict))
        in_all = _median(committed[name]) if name in committed else ""
        return Row(name, (*cells, in_all), tuple(aims))

    def other(name: str) -> Row:
        return Row(name, ("", _with_interval(cpu[name]), "", _with_interval(passed[name]), ""))

    rows = [ours(MEMORY_AWAY), ours(SPOOL_AWAY, MEMORY_AWAY), ours(MEMORY), ours(SPOOL, MEMORY)]
    rows += [other(name) for name in (LIMIT, FILE_HANDLER, SQLITE)]
    columns = ("CPU, µs a record", "added", "time, µs", "added", "CPU until committed, µs")
    return Table("spool: what a record costs more", columns, rows, _notes(cpu, committed, sizes))


def _notes(cpu: Costs, committed: Costs, sizes: Sizes) -> tuple[str, ...]:
    ours = added(cpu[SPOOL_AWAY], cpu[MEMORY_AWAY])
    times = ", ".join(
        f"{statistics.median(cpu[name]) / ours:.1f} × by {name}"
        for name in (LIMIT, FILE_HANDLER, SQLITE)
    )
    more = _with_interval(_differences(committed[SPOOL], committed[MEMORY]))
    return (
        f"{sizes.records} records a turn, {sizes.rounds} rounds; ± is half of the 95 % interval of"
        " the median.",
        f"Of what the spool adds in CPU time: {times}.",
        f"The way through the spool into PostgreSQL takes {more} µs a record more CPU in all,"
        f" the thread that syncs included; {sizes.committed:,} records a turn.",
        f"{versions('orjson')}, SQLite {sqlite3.sqlite_version}; loop: {loop_name()}.",
    )


def _differences(figures: list[float], of: list[float]) -> list[float]:
    return [a - b for a, b in zip(figures, of, strict=True)]


def _median(figures: list[float]) -> str:
    return f"{statistics.median(figures):.1f}"


def _with_interval(figures: list[float]) -> str:
    low, high = interval(figures)
    return f"{statistics.median(figures):.1f} ± {(high - low) / 2:.1f}"
