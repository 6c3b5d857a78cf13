"""What one decision about a quota takes: from a lease, beside `limits` and an upsert per request.

Measured: the time from asking to knowing, one decision after the other, each way in a process of
its own, all of them for one subject. Ours from a lease is `Quotas.decide`, as the middleware calls
it, and `quotas.spend`, as a handler does; a turn in which a unit did not come from a lease is
taken again. `limits` is the engine of slowapi and Flask-Limiter: its fixed window in memory, which
no other process knows of. The others ask the database for every decision: ours with `exact=True`,
and the upsert that people write themselves, committed each time. In the end each counter must say
what was decided. Not measured: what renewing a lease costs, which is about a statement a second;
`quota_served` has that in it.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from auditlog.quota.model import Basis
from benchmarks import quota_scene as scene
from benchmarks.competitors import installed
from benchmarks.database import Server
from benchmarks.isolated import Turn, isolated
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name, ratio
from benchmarks.rounds import run as run_on_loop

LEASE, SPEND = "auditlog, from a lease", "auditlog, from a lease, by `quotas.spend`"
EXACT, UPSERT = "auditlog, exact", "an upsert per request, psycopg"
LIMITS = "limits, memory storage"
NAMES = (LEASE, SPEND, LIMITS, EXACT, UPSERT)
AIM_US = 3.0
_TRIES = 100
_PAUSE_S = 0.005
"""Before a turn, off the clock: the loop stood still, and what runs beside has to catch up."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    decisions: int
    """In one turn of those who need no answer of the database's."""
    asked: int
    """In one turn of those who do."""
    rounds: int


FULL, QUICK = Sizes(decisions=1_000, asked=50, rounds=60), Sizes(decisions=100, asked=5, rounds=3)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with server.database() as dsn:
        scene.make_table(dsn)
        return [run_on_loop(_run(sizes, dsn))]


async def _run(sizes: Sizes, dsn: str) -> Table:
    there = [name for name in NAMES if name != LIMITS or installed("limits")]
    with isolated(partial(contestant, sizes, dsn), there) as contestants:
        return _table(await interleave("quota_lease", contestants, sizes.rounds))


def contestant(sizes: Sizes, dsn: str, name: str) -> AbstractAsyncContextManager[Turn]:
    """Make a contestant, in a process of its own; whoever counted something else fails."""
    if name == LIMITS:
        return _limits(sizes.decisions)
    if name == UPSERT:
        return _upsert(sizes.asked, dsn)
    if name == EXACT:
        return _ours(sizes.asked, dsn, name, Basis.COUNTER)
    return _ours(sizes.decisions, dsn, name, Basis.LEASE)


@asynccontextmanager
async def _ours(count: int, dsn: str, name: str, basis: Basis) -> AsyncIterator[Turn]:
    quota, turns = scene.quota(name, exact=basis is Basis.COUNTER), 0
    async with scene.counting(dsn, quota) as quotas:
        decide = partial(quotas.decide, quota, scene.key(name), 1, scene.ACTOR)
        spend = partial(quotas.spend, name, user_id=scene.USER, instance_id=scene.TENANT)

        async def turn() -> float:
            nonlocal turns
            for _ in range(_TRIES):
                await asyncio.sleep(_PAUSE_S)
                seconds, decisions = await _timed(spend if name == SPEND else decide, count)
                turns += 1
                assert all(decision.allowed for decision in decisions)
                if all(decision.basis is basis for decision in decisions):
                    return seconds
            raise AssertionError("no lease is large enough for a turn")

        yield turn
    assert scene.counted(dsn, name) == turns * count


@asynccontextmanager
async def _limits(count: int) -> AsyncIterator[Turn]:
    from limits import parse, storage, strategies  # noqa: PLC0415  # an extra

    memory, limit = storage.MemoryStorage(), parse(f"{2**53} per year")
    limiter, turns = strategies.FixedWindowRateLimiter(memory), 0

    async def turn() -> float:
        nonlocal turns
        turns += 1
        gc.collect()
        started = time.perf_counter()
        # slowapi calls it so: nothing of it waits.
        hits = [limiter.hit(limit, scene.TENANT, scene.USER) for _ in range(count)]
        elapsed = time.perf_counter() - started
        assert all(hits)
        return elapsed / count

    yield turn
    assert memory.get(limit.key_for(scene.TENANT, scene.USER)) == turns * count


@asynccontextmanager
async def _upsert(count: int, dsn: str) -> AsyncIterator[Turn]:
    turns = 0
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

        async def turn() -> float:
            nonlocal turns
            turns += 1
            return (await _timed(partial(scene.upsert, connection, UPSERT), count))[0]

        yield turn
    assert scene.upserted(dsn, UPSERT) == turns * count


async def _timed(decide: Callable[[], Awaitable[Any]], count: int) -> tuple[float, list[Any]]:
    """Return the seconds that one took, and all of them."""
    gc.collect()
    started = time.perf_counter()
    decisions = [await decide() for _ in range(count)]
    return (time.perf_counter() - started) / count, decisions


def _table(seconds: dict[str, list[float]]) -> Table:
    def row(name: str, *aims: Aim) -> Row:
        reach = "one process" if name == LIMITS else "every process"
        if name not in seconds:
            return Row(name, ("not installed", "", reach))
        micros = statistics.median(seconds[name]) * 1e6
        share = ratio(seconds[name], seconds[LEASE])
        return Row(name, (f"{micros:,.1f}", f"{share:,.1f}", reach), aims)

    lies = interval(figure * 1e6 for figure in seconds[LEASE])
    aim = Aim(f"≤ {AIM_US:g} µs", judge(lies, at_most=AIM_US))
    rows = [row(name, *([aim] if name == LEASE else [])) for name in NAMES]
    note = f"{versions(*filter(installed, ('limits', 'psycopg')))}; loop: {loop_name()}."
    columns = ("µs a decision", "× ours", "counts across")
    return Table("quota_lease: one decision about a quota", columns, rows, (note,))
