r"""Ten million rows in monthly partitions: does adding stay as fast, and reading, as at the start?

Measured: the time in which our writer commits rows of today, in its batches and with its ledger,
into a table that holds a hundred thousand rows and into one that holds ten million, all of the last
twelve months, partitioned by month; and into plain tables of the same sizes. Then, on the same
table, the newest 50 rows of a tenant, as `auditlog tail` reads them. The small tables are made anew
for every round; the large ones grow by a few hundredths in all. psql's `\copy` of as many rows
into the large partitioned one is the limit. Before each turn as many rows go in that nobody times,
after a checkpoint. Client and server share the machine; fsync is on.

The large tables take about 20 GB of disk, and are filled by two connections at once.
"""

import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from auditlog.partitions.spans import Span
from auditlog.query.newest import newest
from benchmarks.database import DSN_VARIABLE, Server
from benchmarks.partitions_figures import lies
from benchmarks.partitions_rows import encoded, fill, of_today, stored
from benchmarks.partitions_scene import MONTHS, with_months
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name
from benchmarks.rounds import run as run_on_loop
from benchmarks.shippers import BATCH_ROWS, ours, psql

PLAIN, PARTITIONED = "plain", "partitioned by month"
LIMIT = r"psql \copy, one transaction"
TENANT, NEWEST, LOOKS = "tenant-1", 50, 20
AIM, AIM_MS = 0.9, 5.0
ROW_BYTES = 1_100
"""With its indexes and some of the log: 895 MB for a million (2026-11-28)."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    small: int
    large: int
    rows: int
    rounds: int


FULL = Sizes(small=100_000, large=10_000_000, rows=20_000, rounds=11)
QUICK = Sizes(small=5_000, large=50_000, rows=2_000, rounds=2)


@dataclass(frozen=True)
class Figures:
    """One turn: how long the rows took to be committed, and each look at the newest."""

    seconds: float
    looks_ms: list[float]


Place = Callable[[], AbstractContextManager[str]]


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    empty: dict[str, Place] = {PLAIN: server.database, PARTITIONED: lambda: with_months(server)}
    _require_room(sizes)
    with ExitStack() as stack:
        large = {name: stack.enter_context(place()) for name, place in empty.items()}
        _fill_all(list(large.values()), sizes.large)
        turns: dict[str, Callable[[], Awaitable[Figures]]] = {}
        for name, place in empty.items():
            turns[_title(name, sizes.small)] = _small_turn(place, server, sizes)
            turns[_title(name, sizes.large)] = _turn(large[name], server, sizes)
        if server.psql:
            turns[LIMIT] = _turn(large[PARTITIONED], server, sizes, by_psql=True)
        figures = run_on_loop(interleave("partitions_size", turns, sizes.rounds))
    return [_table(figures, sizes)]


def _require_room(sizes: Sizes) -> None:
    """Stop before a disk is full; what another machine has is not known here."""
    if DSN_VARIABLE in os.environ:
        return
    needed, free = 2 * sizes.large * ROW_BYTES, shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        raise SystemExit(
            f"partitions_size needs {needed / 1e9:.0f} GB in {tempfile.gettempdir()}, which has"
            f" {free / 1e9:.0f}: set TMPDIR to another folder"
        )


def _fill_all(dsns: list[str], rows: int) -> None:
    last = datetime.now(UTC)
    first = Span(months=MONTHS - 1).before(last)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda dsn: fill(dsn, rows, first, last), dsns))


def _small_turn(place: Place, server: Server, sizes: Sizes) -> Callable[[], Awaitable[Figures]]:
    async def turn() -> Figures:
        with place() as dsn:
            _fill_all([dsn], sizes.small)
            return await _turn(dsn, server, sizes)()

    return turn


def _turn(
    dsn: str, server: Server, sizes: Sizes, *, by_psql: bool = False
) -> Callable[[], Awaitable[Figures]]:
    async def turn() -> Figures:
        await _warm_up(dsn, sizes.rows)
        # Identities must be new, and later than those that are there, as in life.
        since = datetime.now(UTC)
        load = encoded(of_today(sizes.rows))
        gc.collect()
        with tempfile.TemporaryDirectory(prefix="auditlog-bench-") as folder:
            if by_psql and server.psql:
                files = load.write_files(Path(folder), sizes.rows)
                cost = await psql(server.psql, files)(dsn)
            else:
                cost = await ours(load, encode=False)(dsn)
        assert stored(dsn, since) == sizes.rows
        return Figures(cost.seconds, _looks(dsn))

    return turn


async def _warm_up(dsn: str, rows: int) -> None:
    """Ship as many rows before, with nothing owed to the disk.

    The first to touch a page after a checkpoint logs all of it. Other turns make checkpoints; in
    life there are minutes between two, and a table of many pages would pay for those of others.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CHECKPOINT")
    await ours(encoded(of_today(rows)), encode=False)(dsn)


def _looks(dsn: str) -> list[float]:
    """Read the newest so many times, in milliseconds; the first reads the catalog, too."""
    times = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(LOOKS):
            began = time.perf_counter()
            assert len(newest(conn, limit=NEWEST, tenant=TENANT)) == NEWEST
            times.append((time.perf_counter() - began) * 1e3)
    return times


def _title(name: str, rows: int) -> str:
    return f"{name}, {rows:,} rows"


def _table(figures: dict[str, list[Figures]], sizes: Sizes) -> Table:
    rows = [
        _row(_title(name, size), figures, name, sizes)
        for name in (PLAIN, PARTITIONED)
        for size in (sizes.small, sizes.large)
    ]
    if LIMIT in figures:
        rows.append(_row(LIMIT, figures, PARTITIONED, sizes))
    columns = (
        "rows/s",
        f"of that at {sizes.small:,}",
        "95 % of the median",
        "newest 50, ms",
        "the slowest",
    )
    notes = (
        f"{sizes.rows:,} rows of today a turn, in batches of {BATCH_ROWS:,} and up to four of them"
        f" when more wait; {MONTHS} partitions. {LIMIT}: into {PARTITIONED}, {sizes.large:,} rows.",
        f"{sizes.rounds} rounds; {LOOKS} looks a round, the first of them on a new connection,"
        " which reads the catalog as well.",
        f"{versions('psycopg')}; loop: {loop_name()}.",
    )
    return Table("partitions: the same speed at any size", columns, rows, notes)


def _row(title: str, figures: dict[str, list[Figures]], name: str, sizes: Sizes) -> Row:
    these = figures[title]
    small = figures[_title(name, sizes.small)]
    shares = [a.seconds / b.seconds for a, b in zip(small, these, strict=True)]
    medians = [statistics.median(each.looks_ms) for each in these]
    cells = (
        f"{sizes.rows / statistics.median(each.seconds for each in these):,.0f}",
        "" if these is small else f"{statistics.median(shares):.2f}",
        "" if these is small else lies(shares),
        f"{statistics.median(medians):.2f}",
        f"{max(max(each.looks_ms) for each in these):.1f}",
    )
    return Row(title, cells, _aims(title, name, shares, medians, sizes))


def _aims(
    title: str, name: str, shares: list[float], medians: list[float], sizes: Sizes
) -> tuple[Aim, ...]:
    if name != PARTITIONED or title == LIMIT:
        return ()
    quick = Aim(f"newest ≤ {AIM_MS:g} ms", judge(interval(medians), at_most=AIM_MS))
    if title == _title(name, sizes.small):
        return (quick,)
    steady = Aim(f"≥ {AIM:g} of that at {sizes.small:,}", judge(interval(shares), at_least=AIM))
    return (steady, quick)
