"""Writers and readers at work on `logstore.logs`, each a process, while something is done to it.

A writer commits a hundred rows by COPY, a reader reads the newest 50 of a tenant, each every ten
milliseconds unless the one before takes longer, which is then its time. What a client does when the
server refuses it something: it counts it, and does it again.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from multiprocessing.synchronize import Event
from typing import Any

import psycopg
from psycopg import Connection

from auditlog.query.newest import newest
from auditlog.settings import Settings
from auditlog.sink.database.ledger import copy_stream
from auditlog.sink.encoding.encode import Encoder
from auditlog.tables import LOGS
from benchmarks.partitions_rows import of_today

WRITERS, READERS = 2, 1
BATCH_ROWS, NEWEST = 100, 50
PACE_S = 0.01
WARM_UP = 50
"""Turns before anything counts: connections, caches of the catalog, plans."""


@dataclass
class Seen:
    """What the clients of one kind saw; times are those of the monotonic clock."""

    turns: list[tuple[float, float]] = field(default_factory=list)
    """When it began and how many seconds it took, of each."""
    rows: int = 0
    errors: list[tuple[float, str]] = field(default_factory=list)
    """When, and what."""

    def add(self, other: "Seen") -> None:
        """Add what another one saw."""
        self.turns += other.turns
        self.rows += other.rows
        self.errors += other.errors

    def worst_ms(self, since: float, until: float) -> float:
        """Return the longest turn of those that were under way in that time."""
        return 1e3 * max(
            (took for began, took in self.turns if began < until and began + took > since),
            default=0.0,
        )


@dataclass(frozen=True)
class Traffic:
    """The clients, and after the context what they saw."""

    writers: Seen
    readers: Seen

    @property
    def errors(self) -> list[tuple[float, str]]:
        """What anybody was refused, and when."""
        return [*self.writers.errors, *self.readers.errors]

    def errors_in(self, since: float, until: float) -> int:
        """Count what was refused in that time."""
        return sum(since <= at <= until for at, _ in self.errors)


@contextmanager
def traffic(dsn: str, *, writers: int = WRITERS, readers: int = READERS) -> Iterator[Traffic]:
    """Let them work for the length of the context; it begins when all of them are warm."""
    seen = Traffic(Seen(), Seen())
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ExitStack() as stack:
        kinds = [(_write, seen.writers)] * writers + [(_read, seen.readers)] * readers
        pipes = [(stack.enter_context(_client(work, dsn, stop)), to) for work, to in kinds]
        for pipe, _ in pipes:
            pipe.recv()
        yield seen
        stop.set()
        for pipe, to in pipes:
            to.add(pipe.recv())


@contextmanager
def _client(work: Callable[..., None], dsn: str, stop: Event) -> Iterator[Pipe]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(dsn, theirs, stop), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()  # it has told all that it saw, or something went wrong
        process.join()


def _write(dsn: str, pipe: Pipe, stop: Event) -> None:
    encode = Encoder(Settings()).encode
    sample = of_today(1_000)

    def turn(conn: Connection[Any], number: int) -> int:
        start = number * BATCH_ROWS % len(sample)
        rows = [encode(record)[1] for record in sample[start : start + BATCH_ROWS]]
        with conn.cursor() as cursor, cursor.copy(LOGS.copy_statement.encode()) as copy:
            copy.write(copy_stream(rows))
        return len(rows)

    _work(dsn, pipe, stop, turn)


def _read(dsn: str, pipe: Pipe, stop: Event) -> None:
    def turn(conn: Connection[Any], number: int) -> int:
        rows = newest(conn, limit=NEWEST, tenant="tenant-1")
        assert len(rows) == NEWEST or number < WARM_UP
        return len(rows)

    _work(dsn, pipe, stop, turn)


def _work(dsn: str, pipe: Pipe, stop: Event, turn: Callable[[Connection[Any], int], int]) -> None:
    seen, number = Seen(), 0
    with psycopg.connect(dsn, autocommit=True) as conn:
        while not stop.is_set():
            began = time.perf_counter()
            try:
                seen.rows += turn(conn, number)
            except psycopg.Error as error:
                seen.errors.append((time.perf_counter(), f"{type(error).__name__}: {error}"))
            took = time.perf_counter() - began
            seen.turns.append((began, took))
            if (number := number + 1) == WARM_UP:
                pipe.send(None)
            time.sleep(max(0.0, PACE_S - took))
    if number < WARM_UP:
        pipe.send(None)
    pipe.send(seen)
