"""`durability="commit"` under many requests at once: throughput, as a share of `memory`.

Measured: the same application under uvicorn, one worker each, with as many kept connections, each
with one request on its way, in a closed loop; client, server and database share this machine. Under
`commit` a request waits until its received row is committed, and again for its complete row: two
waits and two rows. Beside it stand the application without an audit, which is the limit; the
application that inserts and commits a row itself before it answers, through psycopg's pool; and
the other two modes. Every request must be a row in the end. Not measured: a database elsewhere,
whose round trip each of the two waits would have in it, and a disk with a slower fsync.
"""

import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.competitors import installed
from benchmarks.database import Server
from benchmarks.durability_inserting import POOL_SIZE
from benchmarks.durability_served import AUDITED, BARE, INSERTING, Served, served
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name, ratio
from benchmarks.rounds import run as run_on_loop

NO_AUDIT, INSERTS = "no audit", "the application inserts a row itself, psycopg_pool"
MODES = ("memory", "spool", "commit")
NAMES = (NO_AUDIT, *MODES, INSERTS)
AIM = 0.5
Figures = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    seconds: float
    rounds: int
    connections: int = 64


FULL, QUICK = Sizes(seconds=1.5, rounds=7), Sizes(seconds=0.5, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(_contestant(name, server)) for name in NAMES}
        for each in servers.values():
            each.load(sizes.connections, sizes.seconds / 3)  # caches, and code paths
        turns = {name: _turn(each, sizes) for name, each in servers.items()}
        figures = run_on_loop(interleave("commit", turns, sizes.rounds))
        for name, each in servers.items():
            each.stop()
            # That everything is stored, each turn has waited for.
            assert each.stats.get("dropped_by_reason", {}) == {}, each.stats
            assert each.received() == (each.sent if name == "commit" else 0), name
        return [_table(figures, servers, sizes)]


@contextmanager
def _contestant(name: str, server: Server) -> Iterator[Served]:
    which = {NO_AUDIT: BARE, INSERTS: INSERTING}.get(name, AUDITED)
    with server.database() as dsn, tempfile.TemporaryDirectory(prefix="auditlog-bench-") as folder:
        settings = {"durability": name, "spool_dir": folder} if name in MODES else {}
        with served(which, dsn, **settings) as contestant:
            yield contestant


def _turn(contestant: Served, sizes: Sizes) -> Callable[[], Awaitable[Figures]]:
    async def turn() -> Figures:
        return await asyncio.to_thread(contestant.load, sizes.connections, sizes.seconds)

    return turn


def _table(figures: dict[str, list[Figures]], servers: dict[str, Served], sizes: Sizes) -> Table:
    rates = {name: [each["per_second"] for each in turns] for name, turns in figures.items()}
    shares = [a / b for a, b in zip(rates["commit"], rates["memory"], strict=True)]

    def row(name: str, *aims: Aim) -> Row:
        def median(key: str) -> float:
            return statistics.median(each[key] for each in figures[name])

        cells = (
            f"{median('per_second'):,.0f}",
            f"{ratio(rates[name], rates['memory']):.2f}",
            f"{median('p50_ms'):.1f}",
            f"{median('p99_ms'):.1f}",
            f"{median('server_us'):.0f}",
        )
        return Row(name, cells, aims)

    aim = Aim(f"≥ {AIM:g} of memory", judge(interval(shares), at_least=AIM))
    rows = [row(name, *([aim] if name == "commit" else [])) for name in NAMES]
    columns = ("requests/s", "of memory", "p50, ms", "p99, ms", "server CPU, µs a request")
    return Table("commit: throughput, one worker", columns, rows, _notes(shares, servers, sizes))


def _notes(shares: list[float], servers: dict[str, Served], sizes: Sizes) -> tuple[str, ...]:
    names = ("uvicorn", "httptools", "uvloop", "psycopg", "psycopg-pool")
    recording = [each.sent for each in servers.values() if each.is_recording]
    return (
        f"{sizes.connections} connections, a pool of {POOL_SIZE} for the application that inserts;"
        f" {sum(recording):,} requests sent to the {len(recording)} that record, each has its row.",
        f"commit of memory, round by round: from {min(shares):.2f} to {max(shares):.2f}.",
        f"{versions(*filter(installed, (n.replace('-', '_') for n in names)))};"
        f" loop: {loop_name()}.",
    )
