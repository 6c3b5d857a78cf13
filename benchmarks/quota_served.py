"""What quotas with leases add to the requests of a served application, at a fixed rate.

Measured: the same application under uvicorn with its audit trail, once with `QuotaMiddleware`
inside and two quotas that nobody uses up, one of the tenant by the month and one of the client's
address in a rolling minute; one worker each, a client in another process, the database on the same
two cores. A request's time counts from the moment when it was due. Leases are renewed meanwhile, on
the server's own loop. Every request must be a row in the end, and a unit of the month's counter.
Not measured: quotas with `exact=True`, which add a round trip to the database.
"""

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from benchmarks.competitors import installed
from benchmarks.database import Server
from benchmarks.durability_served import AUDITED, Served, served
from benchmarks.partitions_figures import lies
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name
from benchmarks.rounds import run as run_on_loop

WITHOUT, WITH = "with AuditMiddleware", "and with QuotaMiddleware, two quotas"
LIMITED = ("serve", "limited")
CONTESTANTS = {WITHOUT: AUDITED, WITH: LIMITED}
AIM_MS = 0.2
Figures = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    seconds: float
    rounds: int
    rate: float = 1_000.0
    connections: int = 32


FULL, QUICK = Sizes(seconds=3, rounds=15), Sizes(seconds=1, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(served(which, stack.enter_context(server.database())))
            for name, which in CONTESTANTS.items()
        }
        for each in servers.values():
            each.load(sizes.connections, sizes.seconds, sizes.rate)  # caches, and code paths
        turns = {name: _turn(each, sizes) for name, each in servers.items()}
        figures = run_on_loop(interleave("quota_served", turns, sizes.rounds))
        for each in servers.values():
            each.stop()
            assert each.stats["dropped_by_reason"] == {}, each.stats
        _check_counters(servers[WITH])
        return [_table(figures, sizes)]


def _turn(contestant: Served, sizes: Sizes) -> Callable[[], Awaitable[Figures]]:
    async def turn() -> Figures:
        return await asyncio.to_thread(
            contestant.load, sizes.connections, sizes.seconds, sizes.rate
        )

    return turn


def _check_counters(limited: Served) -> None:
    """What was held in advance has come back, so the counter of the month has what was sent."""
    with psycopg.connect(limited.dsn) as connection:
        used = connection.execute("SELECT used FROM logstore.quota_usage").fetchall()
    assert used == [(limited.sent,)], (used, limited.sent)


def _table(figures: dict[str, list[Figures]], sizes: Sizes) -> Table:
    def differences(key: str) -> list[float]:
        pairs = zip(figures[WITH], figures[WITHOUT], strict=True)
        return [more[key] - less[key] for more, less in pairs]

    def row(name: str, *aims: Aim) -> Row:
        keys = {"p50_ms": ".2f", "p99_ms": ".2f", "server_us": ".0f"}
        medians = [
            f"{statistics.median(turn[key] for turn in figures[name]):{form}}"
            for key, form in keys.items()
        ]
        return Row(name, tuple(medians), aims)

    p99 = differences("p99_ms")
    aim = Aim(f"p99 within {AIM_MS:g} ms", judge(interval(p99), at_most=AIM_MS))
    reached = statistics.median(turn["per_second"] for turn in figures[WITH])
    columns = ("p50, ms", "p99, ms", "server CPU, µs a request")
    return Table(
        f"quota_served: requests under quotas, {sizes.rate:,.0f} a second",
        columns,
        [row(WITHOUT), row(WITH, aim)],
        (
            f"Added, round by round: {_said(differences('p50_ms'))} ms to p50, {_said(p99)} ms to"
            f" p99, {_said(differences('server_us'), '+.0f')} µs of CPU. Reached {reached:,.0f}/s.",
            f"{versions('uvicorn', *filter(installed, ('httptools', 'uvloop')))};"
            f" loop: {loop_name()}.",
        ),
    )


def _said(values: list[float], form: str = "+.2f") -> str:
    where = lies(values, form)
    return f"median {statistics.median(values):{form}}" + (f" ({where})" if where else "")
