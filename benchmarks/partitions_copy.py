r"""COPY into twelve monthly partitions against the plain table: rows a second, as a share of it.

Measured: the same rows into a new copy of the same migrated database, once as it is and once
partitioned into the twelve months up to this one, with its own tools. By our writer, in its batches
and with its ledger; and by psql's `\copy` of the same bytes as one statement, which is the limit.
The rows are those of today, as traffic makes them, which all go into one partition; and once more
rows with dates anywhere in the year, in no order, which is the worst that a replay of old spools
can be. Client and server share the machine; fsync is on.

Not measured: making the partitions.
"""

import gc
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from auditlog.partitions.spans import Span
from benchmarks.database import Server
from benchmarks.partitions_figures import lies
from benchmarks.partitions_rows import between, encoded, of_today, stored
from benchmarks.partitions_scene import MONTHS, with_months
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name, ratio
from benchmarks.rounds import run as run_on_loop
from benchmarks.shippers import BATCH_ROWS, Cost, Load, Shipper, ours, psql

ROWS = TODAY, YEAR = "rows of today", "rows of the whole year"
OURS, LIMIT = "auditlog", r"psql \copy, one transaction"
PLAIN, PARTITIONED = "plain", "partitioned"
AIM = 0.9

Place = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int
    rounds: int


FULL, QUICK = Sizes(rows=100_000, rounds=11), Sizes(rows=5_000, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    now = datetime.now(UTC)
    # Partitions are of whole months: a year back from now is not in the oldest any more.
    year = between(Span(months=MONTHS - 1).before(now), now, sizes.rows)
    loads = {TODAY: encoded(of_today(sizes.rows)), YEAR: encoded(year)}
    places: dict[str, Place] = {
        PLAIN: server.database,
        PARTITIONED: lambda: with_months(server),
    }
    with tempfile.TemporaryDirectory(prefix="auditlog-bench-") as folder:
        ways = _ways(loads, server.psql, Path(folder))
        turns = {
            f"{way} · {place}": _turn(places[place], ship, sizes.rows)
            for way, ship in ways.items()
            for place in places
        }
        costs = run_on_loop(interleave("partitions_copy", turns, sizes.rounds))
    return [_table(list(ways), costs, sizes)]


def _ways(loads: Mapping[str, Load], program: str | None, folder: Path) -> dict[str, Shipper]:
    ways: dict[str, Shipper] = {}
    for rows, load in loads.items():
        ways[f"{OURS}, {rows}"] = ours(load, encode=False)
        if program:
            of_these = folder / rows
            of_these.mkdir()
            ways[f"{LIMIT}, {rows}"] = psql(program, load.write_files(of_these, len(load.tuples)))
    return ways


def _turn(place: Place, ship: Shipper, rows: int) -> Callable[[], Awaitable[Cost]]:
    async def turn() -> Cost:
        with place() as dsn:
            gc.collect()
            cost = await ship(dsn)
            assert stored(dsn) == rows
        return cost

    return turn


def _table(ways: list[str], costs: dict[str, list[Cost]], sizes: Sizes) -> Table:
    seconds = {name: [cost.seconds for cost in each] for name, each in costs.items()}
    rows = [
        _row(way, seconds[f"{way} · {PLAIN}"], seconds[f"{way} · {PARTITIONED}"], sizes)
        for way in ways
    ]
    columns = ("plain, rows/s", "partitioned, rows/s", "of plain", "95 % of the median")
    notes = (
        f"{sizes.rows:,} rows, {MONTHS} partitions; ours in batches of {BATCH_ROWS:,}, and up to"
        " four of them when more wait, in one partition or in all of them.",
        f"{versions('psycopg')}; loop: {loop_name()}.",
    )
    return Table("partitions: COPY into twelve of them", columns, rows, notes)


def _row(way: str, plain: list[float], partitioned: list[float], sizes: Sizes) -> Row:
    shares = [a / b for a, b in zip(plain, partitioned, strict=True)]
    cells = (
        f"{sizes.rows / statistics.median(plain):,.0f}",
        f"{sizes.rows / statistics.median(partitioned):,.0f}",
        f"{ratio(plain, partitioned):.2f}",
        lies(shares),
    )
    return Row(way, cells, (Aim(f"≥ {AIM:g} of plain", judge(interval(shares), at_least=AIM)),))
