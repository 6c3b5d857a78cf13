"""`partitions maintain` with nothing to do, which is what it does nearly always: how long?

Measured: a run over a table of four hundred daily partitions, and of twelve monthly ones, from the
opening of its connection to its report; and the command in a process of its own, as cron starts it.
Beside it, in the same database: the one query of the catalog that nobody gets around, names and
bounds of all partitions, on a new connection, which is the limit.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from auditlog.partitions.maintaining import maintain
from auditlog.partitions.model import TableConfig
from auditlog.partitions.spans import Span
from benchmarks.database import Server
from benchmarks.partitions_figures import lies
from benchmarks.partitions_scene import TABLE, partition, with_months
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge
from benchmarks.rounds import run as run_on_loop

AIM_S = 1.0
AHEAD_DAYS = 100
LIMIT = "one query of the catalog"
CONFIG = TableConfig(TABLE, retain=Span(months=36), drop_without_archive=True)
_BOUNDS = """
    SELECT relname, pg_get_expr(relpartbound, pg_class.oid)
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'logstore.logs'::regclass
"""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    days: int
    rounds: int


FULL, QUICK = Sizes(days=400, rounds=15), Sizes(days=120, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with ExitStack() as stack:
        months = stack.enter_context(with_months(server))
        days = stack.enter_context(server.database())
        since = datetime.now(UTC) - timedelta(days=sizes.days - AHEAD_DAYS)
        partition(days, "day", since, ahead=Span(days=AHEAD_DAYS))
        for dsn in (months, days):
            _settle(dsn)
        turns = {
            f"{_count(days)} daily partitions": _turn(lambda: _maintain(days)),
            f"{_count(months)} monthly partitions": _turn(lambda: _maintain(months)),
            f"{_count(days)} daily, the command": _turn(lambda: _command(days)),
            LIMIT: _turn(lambda: _count(days)),
        }
        seconds = run_on_loop(interleave("partitions_idle", turns, sizes.rounds))
    return [_table(seconds, sizes)]


def _turn(call: Callable[[], object]) -> Callable[[], Awaitable[float]]:
    async def turn() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return turn


def _maintain(dsn: str) -> None:
    (report,) = maintain(dsn, {TABLE: CONFIG})
    assert report.plan is not None, report.error
    assert not report.plan.operations, report.plan.operations


def _settle(dsn: str) -> None:
    """Have the first runs do what there is to do."""
    for _ in range(3):
        maintain(dsn, {TABLE: CONFIG})


def _command(dsn: str) -> None:
    command = [sys.executable, "-m", "auditlog", "partitions", "maintain", "--json"]
    run = subprocess.run(
        command, env={**os.environ, "AUDITLOG_DSN": dsn}, check=False, capture_output=True
    )
    # 1: there is something to look at, such as the number of locks.
    assert run.returncode in {0, 1}, run.stderr


def _count(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        return len(conn.execute(_BOUNDS).fetchall())


def _table(seconds: dict[str, list[float]], sizes: Sizes) -> Table:
    rows = [_row(title, each) for title, each in seconds.items()]
    columns = ("ms", "95 % of the median", "the slowest")
    notes = (f"{sizes.rounds} rounds.", f"{versions('psycopg')}.")
    return Table("partitions: maintenance with nothing to do", columns, rows, notes)


def _row(title: str, seconds: list[float]) -> Row:
    cells = (
        f"{statistics.median(seconds) * 1e3:.0f}",
        lies([each * 1e3 for each in seconds], ".0f"),
        f"{max(seconds) * 1e3:.0f}",
    )
    aim = Aim(f"≤ {AIM_S:g} s", judge(interval(seconds), at_most=AIM_S))
    return Row(title, cells, (aim,) if "daily partitions" in title else ())
