"""Unary calls to a real server: what the interceptors cost it, and what is left of its pace.

Measured: a server in a process of its own for each contestant, and one client in another, over
loopback; the methods do next to nothing. For grpc.aio the server's CPU time a call, from its
process's clock: ours is a real log up to the database, whose target swallows the batches, and
every contestant empties its queue between its turns, off the clock. The event loop's thread alone
is told too: it runs the interceptor, and its clock is steadier. For the threaded server the pace
that so many clients reach, each with a connection and one call at a time: ours writes to
PostgreSQL, on the same cores, and every call must be a row in the end.

Not measured: TLS, a network, a client on another machine, which would leave both cores to the
server. An aim is `unclear` when the figure's 95 % interval has it inside.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg

from auditlog.tables import LOGS
from benchmarks.database import Server
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, ratio
from benchmarks.rounds import run as run_on_loop
from benchmarks.rpc.contestants import AIO, BARE, COMPETITORS, OURS, THREADED, contestants
from benchmarks.rpc.processes import Cost, Load, Served, served

AIM_US, AIM_TIMES, AIM_RATIO = 12.0, 8.0, 0.95
CLIENTS = (1, 8, 32)
OTEL = COMPETITORS[0].name
STORED_TIMEOUT_S = 60.0
Costs = dict[str, list[Cost]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    calls: int
    """In one turn; fewer than a queue holds."""
    rounds: int
    """For grpc.aio."""
    threaded_rounds: int
    """For the threaded server, with each number of clients."""
    clients: tuple[int, ...] = CLIENTS


FULL = Sizes(calls=500, rounds=60, threaded_rounds=15)
QUICK = Sizes(calls=50, rounds=2, threaded_rounds=2, clients=(8,))


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return two tables."""
    return [_aio(sizes), _threaded(sizes, server)]


def _aio(sizes: Sizes) -> Table:
    load = Load("get", clients=8, calls=sizes.calls)
    with served(AIO, contestants(AIO)) as servers:
        costs = _measure("grpc.aio", servers, load, sizes.rounds)
    for name, each in servers.items():
        assert name == BARE or each.seen == each.sent, (name, each)
    return _cost_table(costs, load)


def _threaded(sizes: Sizes, server: Server) -> Table:
    with server.database() as dsn:
        with served(THREADED, contestants(THREADED), dsn) as servers:
            costs = {
                clients: _measure(
                    f"grpc.server, {clients} clients",
                    servers,
                    Load("get", clients, sizes.calls),
                    sizes.threaded_rounds,
                    dsn,
                )
                for clients in sizes.clients
            }
        note = _check_stored(servers, dsn)
    return _pace_table(costs, note)


def _measure(
    title: str, servers: dict[str, Served], load: Load, rounds: int, dsn: str | None = None
) -> Costs:
    """Let the contestants take turns, after one each for connections, caches and code paths."""

    def turn(name: str) -> Callable[[], Awaitable[Cost]]:
        async def drive() -> Cost:
            cost = await asyncio.to_thread(servers[name].turn, load)
            if dsn is not None and name == OURS:
                # Leave the next contestant a machine that has nothing to do.
                _wait_until_stored(dsn, servers[name].sent)
            return cost

        return drive

    turns = {name: turn(name) for name in servers}
    run_on_loop(interleave(f"{title}, warming up", turns, 1))
    return run_on_loop(interleave(title, turns, rounds))


def _wait_until_stored(dsn: str, sent: int) -> None:
    deadline = time.monotonic() + STORED_TIMEOUT_S
    while (stored := _stored(dsn)) != sent:
        assert time.monotonic() < deadline, f"{sent} sent, {stored} stored"
        time.sleep(0.1)


def _stored(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        # Not those in which the log tells of itself.
        query = f"SELECT count(*) FROM {LOGS.qualified_name} WHERE protocol <> 0"  # noqa: S608  # a constant
        row = connection.execute(query.encode()).fetchone()
    assert row
    return int(row[0])


def _check_stored(servers: dict[str, Served], dsn: str) -> str:
    """Sent = stored, and nothing was lost on the way."""
    for name, each in servers.items():
        assert name == BARE or each.seen == each.sent, (name, each)
    if OURS not in servers:
        return "Ours is not there yet."
    ours = servers[OURS]
    assert ours.stats["dropped_by_reason"] == {}, ours.stats
    assert ours.sent == ours.stats["written"] == _stored(dsn)
    return f"{ours.sent:,} calls to the audited one in all, and as many rows stored; none dropped."


def _cost_table(costs: Costs, load: Load) -> Table:
    process = {name: [cost.process_us for cost in turns] for name, turns in costs.items()}
    thread = {name: [cost.thread_us for cost in turns] for name, turns in costs.items()}
    more = {name: _differences(figures, process[BARE]) for name, figures in process.items()}

    def row(name: str) -> Row:
        if name not in costs:
            return Row(name, ("not to be had", "", "", ""))
        cells = [f"{statistics.median(process[name]):.0f}", "", "", ""]
        if name != BARE:
            cells[1] = _with_interval(more[name])
            cells[2] = _with_interval(_differences(thread[name], thread[BARE]))
            if OURS in more:
                ours = statistics.median(more[OURS])
                cells[3] = f"{statistics.median(more[name]) / ours:.1f}"
        return Row(name, tuple(cells), _cost_aims(name, more))

    columns = ("µs a call", "added", "added, loop's thread", "× ours")
    notes = (
        f"{load.clients} clients with one call each under way; ± is half of the 95 % interval of"
        f" the median of {len(costs[BARE])} rounds with {load.calls} calls a turn.",
        f"{versions('grpcio', 'protobuf', *_distributions(AIO))}; loop: asyncio.",
    )
    return Table(
        "grpc.aio: server CPU a unary call", columns, [row(name) for name in _all()], notes
    )


def _cost_aims(name: str, more: dict[str, list[float]]) -> tuple[Aim, ...]:
    if OURS not in more:
        return ()
    low, high = interval(more[OURS])
    if name == OURS:
        return (Aim(f"≤ {AIM_US:g} µs", judge((low, high), at_most=AIM_US)),)
    if name == OTEL and OTEL in more:
        theirs = interval(more[OTEL])
        # The worst and the best that both intervals allow.
        times = (theirs[0] / max(high, 0.1), theirs[1] / max(low, 0.1))
        return (Aim(f"≥ {AIM_TIMES:g} ×", judge(times, at_least=AIM_TIMES)),)
    return ()


def _pace_table(costs: dict[int, Costs], note: str) -> Table:
    paces = {
        clients: {name: [cost.per_second for cost in turns] for name, turns in each.items()}
        for clients, each in costs.items()
    }

    def row(name: str) -> Row:
        cells, aims = [], []
        for clients, each in paces.items():
            if name not in each:
                cells += ["not to be had", ""]
                continue
            shares = [a / b for a, b in zip(each[name], each[BARE], strict=True)]
            share = ratio(each[name], each[BARE])
            cells += [f"{statistics.median(each[name]):,.0f}", f"{share:.2f}"]
            if name == OURS:
                met = judge(interval(shares), at_least=AIM_RATIO)
                aims.append(Aim(f"≥ {AIM_RATIO:g} with {clients}", met))
        return Row(name, tuple(cells), tuple(aims))

    columns = [
        text
        for clients in paces
        for text in (f"{clients} client{'s' * (clients > 1)}, calls/s", "of bare")
    ]
    notes = (note, f"{versions('grpcio', 'protobuf', *_distributions(THREADED))}.")
    title = "grpc.server, threaded: unary calls"
    return Table(title, tuple(columns), [row(name) for name in _all()], notes)


def _all() -> list[str]:
    return [BARE, OURS, *(each.name for each in COMPETITORS)]


def _distributions(kind: str) -> list[str]:
    return [each.distribution for each in COMPETITORS if each.works_with(kind)]


def _differences(figures: list[float], of: list[float]) -> list[float]:
    return [a - b for a, b in zip(figures, of, strict=True)]


def _with_interval(differences: list[float]) -> str:
    median, (low, high) = statistics.median(differences), interval(differences)
    return f"{median:.1f} ± {(high - low) / 2:.1f}" if math.isfinite(low) else f"{median:.1f}"
