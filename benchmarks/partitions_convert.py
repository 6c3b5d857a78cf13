"""A plain table becomes a partitioned one, and back, while it is written and read: who notices?

Measured: `partitions enable` and `disable` on a table of two million rows, round after round,
while two processes commit a hundred rows by COPY and one reads the newest of a tenant, each every
ten milliseconds. How long the table is locked against everybody is what the command itself says,
from the lock to the commit, and what is seen from outside, by a process that looks into `pg_locks`
all the time. Beside it: the same done by hand, in one transaction that renames the table and
attaches it to a new one, which reads all of it under the lock; and a transaction that takes the
lock and renames the table twice, which is the limit. In the end, what the writers have committed is
what is stored.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from auditlog.partitions.conversion.disabling import disable
from auditlog.partitions.conversion.enabling import enable
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from benchmarks.database import Server
from benchmarks.partitions_figures import lies
from benchmarks.partitions_rows import fill, stored
from benchmarks.partitions_traffic import BATCH_ROWS, READERS, WRITERS, Traffic, traffic
from benchmarks.partitions_watch import Locks, watch
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interval, judge

USUAL = "nothing"
ENABLE, DISABLE = "partitions enable", "partitions disable"
BY_HAND, BACK_BY_HAND = "by hand: rename, ATTACH", "by hand: DETACH, rename"
LIMIT = "the lock and two renames, the limit"
NAMES = (USUAL, ENABLE, DISABLE, BY_HAND, BACK_BY_HAND, LIMIT)
AIM_MS = 20.0

_BY_HAND = """
    ALTER TABLE logstore.logs RENAME TO logs_by_hand;
    CREATE TABLE logstore.logs (LIKE logstore.logs_by_hand INCLUDING DEFAULTS)
        PARTITION BY RANGE (log_date);
    ALTER TABLE logstore.logs ATTACH PARTITION logstore.logs_by_hand
        FOR VALUES FROM ('-infinity') TO ('3000-01-01 00:00+00');
"""
_BACK_BY_HAND = """
    ALTER TABLE logstore.logs DETACH PARTITION logstore.logs_by_hand;
    DROP TABLE logstore.logs;
    ALTER TABLE logstore.logs_by_hand RENAME TO logs;
"""
_LIMIT = """
    ALTER TABLE logstore.logs RENAME TO logs_renamed;
    ALTER TABLE logstore.logs_renamed RENAME TO logs;
"""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int
    rounds: int
    pause_s: float = 0.5
    """Between two of them, so that each has its own worst."""


FULL, QUICK = Sizes(rows=2_000_000, rounds=9), Sizes(rows=20_000, rounds=2)


@dataclass(frozen=True)
class Turn:
    """One of them, from its beginning to its end, on the monotonic clock."""

    began: float
    ended: float
    locked_s: float | None
    """How long it says itself that it held the table."""


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with server.database() as dsn:
        now = datetime.now(UTC)
        fill(dsn, sizes.rows, Span(months=11).before(now), now)
        with watch(dsn, "logs") as locks, traffic(dsn) as seen:
            turns = _turns(dsn, sizes)
        before = stored(dsn)
        assert before == sizes.rows + seen.writers.rows, (before, sizes.rows, seen.writers.rows)
    return [_table(turns, locks, seen, sizes)]


def _turns(dsn: str, sizes: Sizes) -> dict[str, list[Turn]]:
    steps: dict[str, Callable[[], float | None]] = {
        USUAL: lambda: time.sleep(sizes.pause_s),
        ENABLE: lambda: _enable(dsn),
        DISABLE: lambda: _disable(dsn),
        BY_HAND: lambda: _locked(dsn, _BY_HAND),
        BACK_BY_HAND: lambda: _locked(dsn, _BACK_BY_HAND),
        LIMIT: lambda: _locked(dsn, _LIMIT),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in steps}
    for _ in range(sizes.rounds):
        for name, step in steps.items():
            time.sleep(sizes.pause_s)
            began = time.perf_counter()
            locked_s = step()
            turns[name].append(Turn(began, time.perf_counter(), locked_s))
    return turns


def _enable(dsn: str) -> float:
    with maintenance(dsn) as conn:
        report = enable(conn, "logs", "month")
    assert report.result == "done", report
    return report.locked_s


def _disable(dsn: str) -> float:
    with maintenance(dsn) as conn:
        report = disable(conn, "logs")
    assert report.result == "done", report
    return report.locked_s


def _locked(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("LOCK TABLE logstore.logs IN ACCESS EXCLUSIVE MODE")
        conn.execute(statements.encode())


def _table(turns: dict[str, list[Turn]], locks: Locks, seen: Traffic, sizes: Sizes) -> Table:
    rows = [_row(name, each, locks, seen) for name, each in turns.items()]
    columns = (
        *("in all, s", "locked by its own word, ms", "as seen", "95 % of the median", "at most"),
        *("writers' worst wait, ms", "readers'", "errors"),
    )
    notes = (
        f"{sizes.rows:,} rows to begin with, {sizes.rounds} rounds; {WRITERS} writers of"
        f" {BATCH_ROWS} rows a transaction, readers: {READERS}. Medians of the rounds, and the"
        " worst of all.",
        f"{seen.writers.rows:,} rows committed by the writers meanwhile, and as many stored;"
        f" refused to anybody: {len(seen.errors)}.",
        f"The lock is seen from outside, about every {locks.interval_ms:.1f} ms.",
        f"{versions('psycopg')}.",
    )
    return Table("partitions: enable and disable in traffic", columns, rows, notes)


def _row(name: str, turns: list[Turn], locks: Locks, seen: Traffic) -> Row:
    held = [locks.longest_ms(turn.began, turn.ended) for turn in turns]
    writers = [seen.writers.worst_ms(turn.began, turn.ended) for turn in turns]
    readers = [seen.readers.worst_ms(turn.began, turn.ended) for turn in turns]
    errors = sum(seen.errors_in(turn.began, turn.ended) for turn in turns)
    swaps = [turn.locked_s * 1e3 for turn in turns if turn.locked_s is not None]
    cells = (
        f"{statistics.median(turn.ended - turn.began for turn in turns):.2f}",
        f"{statistics.median(swaps):.1f}" if swaps else "",
        f"{statistics.median(held):.1f}",
        lies(held, ".1f"),
        f"{max(held):.1f}",
        f"{statistics.median(writers):.0f}, {max(writers):.0f}",
        f"{statistics.median(readers):.0f}, {max(readers):.0f}",
        str(errors),
    )
    if name not in {ENABLE, DISABLE}:
        return Row(name, cells)
    aims = (
        Aim(f"locked ≤ {AIM_MS:g} ms", judge(interval(held), at_most=AIM_MS)),
        Aim("0 errors", errors == 0),
    )
    return Row(name, cells, aims)
