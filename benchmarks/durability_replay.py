r"""A dead process's spool to committed rows: rows a second, beside a plain COPY of such rows.

Measured: a log that starts, finds the lane of a process that was killed, adopts it, reads it,
verifies it, and ships it as a replay, through a temporary table and `ON CONFLICT DO NOTHING`, for
nobody knows which of the rows had been committed; until the last of them is. Every round has a copy
of the same spool and a new database. Beside it: the plain COPY of encoded rows by our writer, which
the aim is a share of; psql's `\copy` of the same bytes, which is the limit of that; and what one
would do by hand, psql's `\copy` into a temporary table and an `INSERT ... ON CONFLICT`, in one
transaction, which is the limit of a replay. Client and server share the machine.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from auditlog import AuditLog
from auditlog.records import Outcome
from auditlog.settings import Settings
from auditlog.tables import LOGS
from benchmarks.database import Server
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name, ratio
from benchmarks.rounds import run as run_on_loop
from benchmarks.shippers import BATCH_ROWS, Cost, Load, Shipper, ours, psql
from benchmarks.workload import records

REPLAY, COPY = "replay of a dead process's spool", "auditlog, plain COPY"
LIMIT, BY_HAND = r"psql \copy", r"psql \copy, temporary table, ON CONFLICT"
AIM = 0.5
AWAY_DSN = "host=/nowhere dbname=nothing"
TIMEOUT_S = 120.0
_STORED = f"SELECT count(*) FROM {LOGS.qualified_name} WHERE protocol = 1"  # noqa: S608  # constants


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int
    rounds: int


FULL, QUICK = Sizes(rows=100_000, rounds=7), Sizes(rows=5_000, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with tempfile.TemporaryDirectory(prefix="auditlog-bench-") as name:
        folder = Path(name)
        spool = _left_behind(folder / "left", sizes.rows)
        load = Load.of(list(records(sizes.rows)))
        shippers = {REPLAY: _replay(spool, sizes.rows), COPY: ours(load, encode=False)}
        if server.psql:
            (file,) = load.write_files(folder, sizes.rows)
            shippers[LIMIT] = psql(server.psql, [file])
            shippers[BY_HAND] = _by_hand(server.psql, file)
        turns = {name: _turn(server, ship, sizes.rows) for name, ship in shippers.items()}
        costs = run_on_loop(interleave("replay", turns, sizes.rounds))
    return [_table(costs, sizes)]


def _left_behind(folder: Path, rows: int) -> Path:
    """Have a process fill a spool, and kill it."""
    process = multiprocessing.get_context("spawn").Process(
        target=_fill_and_die, args=(folder, rows)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return folder


def _fill_and_die(folder: Path, rows: int) -> None:
    logging.disable()  # that the database is away is meant
    audit = AuditLog(settings=Settings(dsn=AWAY_DSN, durability="spool", spool_dir=str(folder)))
    for record in records(rows):
        assert audit.submit(record) is not Outcome.DROPPED
    assert audit.stats().spooled == rows
    os.kill(os.getpid(), signal.SIGKILL)


def _replay(left: Path, rows: int) -> Shipper:
    async def ship(dsn: str) -> Cost:
        with tempfile.TemporaryDirectory(prefix="auditlog-bench-") as name:
            spool = shutil.copytree(left, Path(name, "spool"))
            os.sync()  # the copy is not what is measured
            cpu, started = time.process_time(), time.perf_counter()
            async with AuditLog(settings=Settings(dsn=dsn, spool_dir=str(spool))) as audit:
                async with asyncio.timeout(TIMEOUT_S):
                    # Nobody is told of it: a log is not there to be waited for.
                    while audit.stats().recovered < rows:  # noqa: ASYNC110
                        await asyncio.sleep(0.002)
                cost = Cost(time.perf_counter() - started, time.process_time() - cpu)
        return cost

    return ship


def _by_hand(program: str, file: Path) -> Shipper:
    names = ", ".join(LOGS.column_names)
    script = rf"""
        \set ON_ERROR_STOP on
        \timing on
        BEGIN;
        CREATE TEMPORARY TABLE replay (LIKE {LOGS.qualified_name}) ON COMMIT DROP;
        \copy replay from '{file}' with (format binary)
        INSERT INTO {LOGS.qualified_name} ({names})
            SELECT {names} FROM replay ON CONFLICT DO NOTHING;
        COMMIT;
    """  # noqa: S608  # constants

    async def ship(dsn: str) -> Cost:
        process = await asyncio.create_subprocess_exec(
            *(program, "-X", "-q", "-f", "-", dsn),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(script.encode())
        assert process.returncode == 0
        times = re.findall(r"^Time: ([\d.]+) ms", output.decode(), re.MULTILINE)
        return Cost(sum(map(float, times)) / 1000)

    return ship


def _turn(server: Server, ship: Shipper, rows: int) -> Callable[[], Awaitable[Cost]]:
    async def turn() -> Cost:
        with server.database() as dsn:
            gc.collect()
            cost = await ship(dsn)
            with psycopg.connect(dsn) as connection:
                stored = connection.execute(_STORED.encode()).fetchone()
            assert stored == (rows,)
        return cost

    return turn


def _table(costs: dict[str, list[Cost]], sizes: Sizes) -> Table:
    seconds = {name: [cost.seconds for cost in each] for name, each in costs.items()}
    shares = [a / b for a, b in zip(seconds[COPY], seconds[REPLAY], strict=True)]

    def row(name: str, *aims: Aim) -> Row:
        if name not in costs:
            return Row(name, ("not installed", "", "", ""))
        cpu = statistics.median(cost.client_cpu_seconds for cost in costs[name])
        cells = (
            f"{sizes.rows / statistics.median(seconds[name]):,.0f}",
            f"{statistics.median(seconds[name]) / sizes.rows * 1e6:.1f}",
            f"{cpu / sizes.rows * 1e6:.1f}" if cpu else "",
            f"{ratio(seconds[COPY], seconds[name]):.2f}",
        )
        return Row(name, cells, aims)

    aim = Aim(f"≥ {AIM:g} of the plain COPY", judge(interval(shares), at_least=AIM))
    rows = [row(REPLAY, aim), row(COPY), row(LIMIT), row(BY_HAND)]
    columns = ("rows/s", "µs a row", "client CPU, µs a row", "of the plain COPY")
    return Table("replay: a spool to committed rows", columns, rows, _notes(shares, sizes))


def _notes(shares: list[float], sizes: Sizes) -> tuple[str, ...]:
    return (
        f"{sizes.rows:,} rows; plain COPY in batches of {BATCH_ROWS:,}, psql in one transaction.",
        f"Replay of plain COPY, round by round: from {min(shares):.2f} to {max(shares):.2f}.",
        f"{versions('psycopg')}; loop: {loop_name()}.",
    )
