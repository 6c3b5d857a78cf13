"""A month of a million rows goes, while others come: what the writers notice of it.

Measured: `partitions maintain` retires the oldest of thirteen monthly partitions, with and without
an archive, while two processes commit a hundred rows by COPY and one reads the newest of a tenant,
each every ten milliseconds, and while somebody who has read the table keeps a transaction open, for
the first second. Beside it, for the same rows and in the same traffic: what one does without
partitions, DELETE in one transaction and VACUUM; and what one does without care, DROP TABLE of the
attached partition, which waits for that transaction, and lets everybody wait behind itself. Every
turn has a copy of the same database.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from auditlog.partitions.maintaining import maintain
from auditlog.partitions.model import TableConfig
from auditlog.partitions.spans import Span
from auditlog.partitions.windows import name, window
from auditlog.query.newest import newest
from benchmarks.database import Server
from benchmarks.partitions_figures import lies
from benchmarks.partitions_rows import fill
from benchmarks.partitions_scene import TABLE, copied, partition
from benchmarks.partitions_traffic import BATCH_ROWS, READERS, WRITERS, traffic
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge
from benchmarks.rounds import run as run_on_loop

MAINTAIN, ARCHIVED = "partitions maintain", "partitions maintain, archived first"
DELETE, DROP = "DELETE and VACUUM, plain table", "DROP TABLE of the attached partition"
NAMES = (MAINTAIN, ARCHIVED, DROP, DELETE)
KEPT = Span(months=11)
AIM_MS = 100.0
MAX_RUNS = 20
_DELETE = """
    SET LOCAL auditlog.maintenance = 'on';
    DELETE FROM logstore.logs WHERE log_date < '{upper}'
"""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int
    rounds: int
    reading_s: float = 1.0
    """How long somebody's transaction stays open."""
    settle_s: float = 0.5
    """How long the traffic goes on before and after."""


FULL, QUICK = Sizes(rows=1_000_000, rounds=7), Sizes(rows=20_000, rounds=1)


@dataclass(frozen=True)
class Figures:
    """One turn."""

    seconds: float
    writers_ms: float
    readers_ms: float
    errors: int


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    lower, upper = window("month", Span(months=12).before(datetime.now(UTC)))
    leaf = name(TABLE, "month", lower)
    with ExitStack() as stack:
        plain, months = (stack.enter_context(server.database()) for _ in range(2))
        partition(months, "month", since=lower)
        for dsn in (plain, months):
            fill(dsn, sizes.rows, lower, upper)
        archives = stack.enter_context(tempfile.TemporaryDirectory(prefix="auditlog-bench-"))
        ways: dict[str, tuple[str, Callable[[str], None]]] = {
            MAINTAIN: (months, lambda dsn: _maintain(dsn, leaf, None)),
            ARCHIVED: (months, lambda dsn: _maintain(dsn, leaf, archives)),
            DROP: (months, lambda dsn: _execute(dsn, f"DROP TABLE logstore.{leaf}")),
            DELETE: (plain, lambda dsn: _delete(dsn, upper)),
        }
        turns = {title: _turn(server, sizes, *way) for title, way in ways.items()}
        figures = run_on_loop(interleave("partitions_retire", turns, sizes.rounds))
    return [_table(figures, sizes)]


def _maintain(dsn: str, leaf: str, archive: str | None) -> None:
    config = TableConfig(
        TABLE, retain=KEPT, archive=archive, drop_without_archive=archive is None, max_retire=1
    )
    for _ in range(MAX_RUNS):
        (report,) = maintain(dsn, {TABLE: config})
        if not _exists(dsn, leaf):
            return
        time.sleep(0.1)
    raise AssertionError(f"it is still there: {report}")


def _delete(dsn: str, upper: datetime) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(_DELETE.format(upper=upper).encode())
    _execute(dsn, "VACUUM logstore.logs")


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


def _exists(dsn: str, leaf: str) -> bool:
    with psycopg.connect(dsn) as conn:
        return conn.execute("SELECT to_regclass(%s)", [f"logstore.{leaf}"]).fetchone() != (None,)


def _turn(
    server: Server, sizes: Sizes, template: str, retire: Callable[[str], None]
) -> Callable[[], Awaitable[Figures]]:
    async def turn() -> Figures:
        with copied(server, template) as dsn:
            return _watched(dsn, sizes, retire)

    return turn


def _watched(dsn: str, sizes: Sizes, retire: Callable[[str], None]) -> Figures:
    with traffic(dsn) as seen:
        time.sleep(sizes.settle_s)
        with _somebody_reading(dsn, sizes.reading_s):
            began = time.perf_counter()
            retire(dsn)
            ended = time.perf_counter()
        time.sleep(sizes.settle_s)
    writers, readers = (each.worst_ms(began, ended) for each in (seen.writers, seen.readers))
    return Figures(ended - began, writers, readers, len(seen.errors))


@contextmanager
def _somebody_reading(dsn: str, seconds: float) -> Iterator[None]:
    """Have a transaction that has read the table stay open for a while."""
    has_read = threading.Event()

    def read() -> None:
        with psycopg.connect(dsn, application_name="analyst") as conn:
            newest(conn, limit=1)
            has_read.set()
            time.sleep(seconds)

    reader = threading.Thread(target=read)
    reader.start()
    has_read.wait()
    try:
        yield
    finally:
        reader.join()


def _table(figures: dict[str, list[Figures]], sizes: Sizes) -> Table:
    rows = [_row(title, each) for title, each in figures.items()]
    columns = (
        "in all, s",
        "writers' worst wait, ms",
        "95 % of the median",
        "readers'",
        "of all rounds",
        "errors",
    )
    notes = (
        f"{sizes.rows:,} rows, {sizes.rounds} rounds; {WRITERS} writers of {BATCH_ROWS} rows a"
        f" transaction, readers: {READERS}; a transaction that has read the table stays open for"
        f" the first {sizes.reading_s:g} s. Medians of the rounds, and the worst of all.",
        f"{versions('psycopg')}.",
    )
    return Table("partitions: a month is retired in traffic", columns, rows, notes)


def _row(title: str, turns: list[Figures]) -> Row:
    writers = [turn.writers_ms for turn in turns]
    readers = [turn.readers_ms for turn in turns]
    errors = sum(turn.errors for turn in turns)
    cells = (
        f"{statistics.median(turn.seconds for turn in turns):.2f}",
        f"{statistics.median(writers):.0f}",
        lies(writers, ".0f"),
        f"{statistics.median(readers):.0f}",
        f"{max(writers):.0f}, {max(readers):.0f}",
        str(errors),
    )
    if title not in {MAINTAIN, ARCHIVED}:
        return Row(title, cells)
    aims = (
        Aim(f"writers ≤ {AIM_MS:g} ms", judge(interval(writers), at_most=AIM_MS)),
        Aim("0 errors", errors == 0),
    )
    return Row(title, cells, aims)
