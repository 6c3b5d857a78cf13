"""How many exact decisions a second one process gets, with many requests that wait for theirs.

Measured: so many requests at once, each of which asks for one unit, waits until it is decided, and
asks again; PostgreSQL is on the same two cores. Either each request has a subject of its own, or
all of them have the same: one row of a counter, which every decision has to lock. Ours gathers what
is asked while a statement is under way. Beside it stands the upsert that people write themselves,
one statement and one commit for each request, through psycopg's pool. In the end the counters must
say what was decided. Not measured: a database elsewhere, whose round trip every decision would wait
for, and would gather more.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from auditlog.quota.model import Basis
from benchmarks import quota_scene as scene
from benchmarks.competitors import installed
from benchmarks.database import Server
from benchmarks.isolated import Turn, isolated
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import interleave, interval, judge, loop_name, ratio
from benchmarks.rounds import run as run_on_loop

DISTINCT, HOT = "auditlog, exact, a subject each", "auditlog, exact, one hot subject"
UPSERTS, HOT_UPSERTS = "an upsert per request, a subject each", "an upsert per request, one subject"
NAMES = (DISTINCT, UPSERTS, HOT, HOT_UPSERTS)
_OWN = {DISTINCT: UPSERTS, HOT: HOT_UPSERTS}
AIM = 5_000
POOL_SIZE = 8

Decide = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    requests: int
    """At once."""
    each: int
    """Decisions that each of them asks for in one turn, one after the other."""
    rounds: int


FULL, QUICK = Sizes(requests=128, each=40, rounds=11), Sizes(requests=32, each=5, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return the table."""
    with server.database() as dsn:
        scene.make_table(dsn)
        return [run_on_loop(_run(sizes, dsn))]


async def _run(sizes: Sizes, dsn: str) -> Table:
    there = [name for name in NAMES if name in _OWN or installed("psycopg_pool")]
    with isolated(partial(contestant, sizes, dsn), there) as contestants:
        return _table(await interleave("quota_exact", contestants, sizes.rounds), sizes)


def contestant(sizes: Sizes, dsn: str, name: str) -> AbstractAsyncContextManager[Turn]:
    """Make a contestant, in a process of its own; whoever counted something else fails."""
    return (_ours if name in _OWN else _upserts)(sizes, dsn, name)


@asynccontextmanager
async def _ours(sizes: Sizes, dsn: str, name: str) -> AsyncIterator[Turn]:
    quota = scene.quota(name, exact=True)
    async with scene.counting(dsn, quota) as quotas:

        async def decide(subject: str) -> None:
            decision = await quotas.decide(quota, scene.key(name, subject), 1, scene.ACTOR)
            assert decision.allowed
            assert decision.basis is Basis.COUNTER

        turns = _Turns(sizes, name, decide)
        yield turns
    assert scene.counted(dsn, name) == turns.decided


@asynccontextmanager
async def _upserts(sizes: Sizes, dsn: str, name: str) -> AsyncIterator[Turn]:
    from psycopg_pool import AsyncConnectionPool  # noqa: PLC0415  # an extra

    kwargs = {"autocommit": True}
    pool = AsyncConnectionPool(dsn, min_size=POOL_SIZE, open=False, kwargs=kwargs)
    async with pool:

        async def decide(subject: str) -> None:
            async with pool.connection() as connection:
                await scene.upsert(connection, name, subject)

        turns = _Turns(sizes, name, decide)
        yield turns
    assert scene.upserted(dsn, name) == turns.decided


class _Turns:
    """Asks for many requests at once, and counts what was decided."""

    def __init__(self, sizes: Sizes, name: str, decide: Decide) -> None:
        self.decided = 0
        self._sizes, self._is_hot, self._decide = sizes, name in {HOT, HOT_UPSERTS}, decide

    async def __call__(self) -> float:
        """Return decisions a second."""
        gc.collect()
        started = time.perf_counter()
        await asyncio.gather(*map(self._request, range(self._sizes.requests)))
        count = self._sizes.requests * self._sizes.each
        self.decided += count
        return count / (time.perf_counter() - started)

    async def _request(self, number: int) -> None:
        subject = scene.USER if self._is_hot else f"user-{number}"
        for _ in range(self._sizes.each):
            await self._decide(subject)


def _table(rates: dict[str, list[float]], sizes: Sizes) -> Table:
    def row(name: str, *aims: Aim) -> Row:
        if name not in rates:
            return Row(name, ("not installed", "", ""), aims)
        beside = _OWN.get(name, name)
        times = f"{ratio(rates[name], rates[beside]):.1f}" if beside in rates else ""
        low, high = min(rates[name]), max(rates[name])
        cells = (f"{statistics.median(rates[name]):,.0f}", f"{low:,.0f} to {high:,.0f}", times)
        return Row(name, cells, aims)

    aim = Aim(f"≥ {AIM:,}/s", judge(interval(rates[DISTINCT]), at_least=AIM))
    rows = [row(name, *([aim] if name == DISTINCT else [])) for name in NAMES]
    columns = ("decisions/s", "round by round", "× the upsert")
    names = ("psycopg", "psycopg-pool")
    there = [name for name in names if installed(name.replace("-", "_"))]
    note = (
        f"{sizes.requests} requests at once, a pool of {POOL_SIZE} for the upserts;"
        f" {versions(*there)}; loop: {loop_name()}."
    )
    return Table("quota_exact: exact decisions of one process", columns, rows, (note,))
