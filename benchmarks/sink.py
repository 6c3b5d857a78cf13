r"""From encoded rows to committed rows with all shipped indexes: rows a second, and client CPU.

Measured: the same typical rows into a new copy of the same migrated database, by our buffer,
writer and COPY target with their ledger; by psql's `\copy` of the same bytes, which is the limit,
as one transaction and in our batches; by psycopg's `executemany`; by asyncpg's
`copy_records_to_table`. Client and server share the machine, by a Unix socket where it is the
embedded one, and fsync is on. Client CPU is that of the whole process, from getrusage.

Not measured: capture. Ours begins with encoded rows, as the limit does, and the competitors begin
with the values that they take, whose JSON is text already. Ours and asyncpg are run once more from
records, so that the work of encoding is in the time of both.
"""

import gc
import shutil
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from auditlog.tables import LOGS
from benchmarks.competitors import installed
from benchmarks.database import Server
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, loop_name, ratio
from benchmarks.rounds import run as run_on_loop
from benchmarks.shippers import (
    BATCH_ROWS,
    Cost,
    Load,
    Shipper,
    asyncpg_copy,
    ours,
    psql,
    psycopg_executemany,
)
from benchmarks.workload import records

OURS, FROM_RECORDS = "auditlog, from encoded rows", "auditlog, from records"
LIMIT, LIMIT_BATCHED = r"psql \copy, one transaction", rf"psql \copy, {BATCH_ROWS} rows each"
EXECUTEMANY, ASYNCPG = (
    "psycopg executemany, from values",
    "asyncpg copy_records_to_table, from values",
)
ASYNCPG_RECORDS = "asyncpg copy_records_to_table, from records"


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int
    rounds: int


FULL, QUICK = Sizes(rows=50_000, rounds=7), Sizes(rows=5_000, rounds=3)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    load = Load.of(list(records(sizes.rows)))
    folder = Path(tempfile.mkdtemp(prefix="auditlog-bench-"))
    try:
        shippers = _shippers(load, server.psql, folder)
        contestants = {name: _turn(server, ship, sizes.rows) for name, ship in shippers.items()}
        costs = run_on_loop(interleave("sink", contestants, sizes.rounds))
    finally:
        shutil.rmtree(folder)
    return [_table(costs, load)]


def _shippers(load: Load, program: str | None, folder: Path) -> dict[str, Shipper]:
    shippers = {OURS: ours(load, encode=False), FROM_RECORDS: ours(load, encode=True)}
    if program:
        shippers[LIMIT] = psql(program, load.write_files(folder, len(load.tuples)))
        shippers[LIMIT_BATCHED] = psql(program, load.write_files(folder, BATCH_ROWS))
    shippers[EXECUTEMANY] = psycopg_executemany(load)
    if installed("asyncpg"):
        shippers[ASYNCPG] = asyncpg_copy(load, encode=False)
        shippers[ASYNCPG_RECORDS] = asyncpg_copy(load, encode=True)
    return shippers


def _turn(server: Server, ship: Shipper, rows: int) -> Callable[[], Awaitable[Cost]]:
    async def turn() -> Cost:
        with server.database() as dsn:
            gc.collect()
            cost = await ship(dsn)
            with psycopg.connect(dsn) as connection:
                query = f"SELECT count(*) FROM {LOGS.qualified_name}"  # noqa: S608  # a constant
                stored = connection.execute(query.encode()).fetchone()
            assert stored == (rows,)
        return cost

    return turn


def _table(costs: dict[str, list[Cost]], load: Load) -> Table:
    rows = len(load.tuples)
    seconds = {name: [cost.seconds for cost in each] for name, each in costs.items()}
    cpu = {name: [cost.client_cpu_seconds for cost in each] for name, each in costs.items()}

    def row(name: str, *aims: Aim) -> Row:
        if name not in costs:
            return Row(name, ("not installed", "", "", ""))
        return Row(
            name,
            (
                f"{rows / statistics.median(seconds[name]):,.0f}",
                f"{statistics.median(seconds[name]) / rows * 1e6:.1f}",
                f"{statistics.median(cpu[name]) / rows * 1e6:.1f}",
                f"{ratio(seconds[name], seconds[OURS]):.2f}",
            ),
            aims,
        )

    of_limit = ratio(seconds[LIMIT], seconds[OURS]) if LIMIT in costs else 0.0
    faster = ratio(seconds[EXECUTEMANY], seconds[OURS])

    def cheaper_than(theirs: str, ours: str) -> tuple[Aim, ...]:
        if theirs not in costs:
            return ()
        share = ratio(cpu[ours], cpu[theirs])
        return (Aim(f"ours takes less client CPU ({share:.2f} of it)", share < 1),)

    table = [
        row(OURS),
        row(FROM_RECORDS),
        row(LIMIT, Aim(f"ours ≥ 0.95 of it ({of_limit:.2f})", of_limit >= 0.95)),
        row(LIMIT_BATCHED),
        row(EXECUTEMANY, Aim(f"ours ≥ 2 × it ({faster:.1f})", faster >= 2)),
        row(ASYNCPG, *cheaper_than(ASYNCPG, OURS)),
        row(ASYNCPG_RECORDS, *cheaper_than(ASYNCPG_RECORDS, FROM_RECORDS)),
    ]
    columns = ("rows/s", "µs a row", "client CPU, µs a row", "time × ours")
    notes = _notes(load, ASYNCPG in costs)
    return Table("sink: encoded rows to committed rows", columns, table, notes)


def _notes(load: Load, with_asyncpg: bool) -> tuple[str, ...]:
    size = statistics.mean(map(len, load.tuples))
    drivers = versions("psycopg", *(["asyncpg"] if with_asyncpg else []))
    return (
        f"{len(load.tuples):,} rows of {size:.0f} bytes, batches of {BATCH_ROWS:,};"
        f" {drivers}; loop: {loop_name()}.",
    )
