"""What the middleware adds to a request, in microseconds of the thread's CPU time.

Measured: a Starlette application with one plain route, called directly with a scope of eight
headers, bare and with a middleware around it, each in a process of its own; the difference within
one round is what counts. Ours is a real `AuditLog` and a real writer: capture, policy, redaction,
encoding and queueing are timed. Not measured: a server, a network, the database. The target
swallows the batches, and every contestant empties its queue between its turns, off the clock. CPU
time, because the time for which other programs take the core away is nobody's merit. The split of
ours into parts comes from loops over one record, whose caches are warmer than in life; capture is
what is left, so the difference is in there.
"""

import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from auditlog import AuditLog, AuditMiddleware
from auditlog.records import LogRecord
from auditlog.settings import Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.testing import MemorySink
from benchmarks.competitors import MIDDLEWARES
from benchmarks.isolated import Turn, isolated
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import added, interleave, loop_name
from benchmarks.rounds import run as run_on_loop
from benchmarks.unshipped import Unshipped
from benchmarks.workload import application, scope

BARE, OURS = "bare application", "auditlog"
ENCODE, SUBMIT = "encode", "submit"
AIM_US = 9.0
OWN = (BARE, OURS, ENCODE, SUBMIT)


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    requests: int
    """In one turn; fewer than a queue holds."""
    rounds: int


FULL, QUICK = Sizes(requests=500, rounds=80), Sizes(requests=200, rounds=10)


def run(sizes: Sizes) -> list[Table]:
    """Measure, and return the table."""
    return [run_on_loop(_run(sizes))]


async def _run(sizes: Sizes) -> Table:
    competitors = [each.name for each in MIDDLEWARES if each.there]
    with isolated(partial(contestant, sizes.requests), [*OWN, *competitors]) as contestants:
        return _table(await interleave("capture", contestants, sizes.rounds))


@asynccontextmanager
async def contestant(requests: int, name: str) -> AsyncIterator[Turn]:
    """Make a contestant, in a process of its own; whoever did nothing fails in the end."""
    if name in {OURS, SUBMIT}:
        async with Unshipped() as audit:
            turns = Counted((_ours if name == OURS else _submit)(audit, requests))
            yield turns
        stats, expected = audit.stats(), turns.count * requests
        assert (stats.submitted, stats.written, stats.dropped) == (expected, expected, 0)
    elif name == ENCODE:
        yield _encode(requests)
    else:
        app = application()
        flush: Callable[[], int] = int
        for each in MIDDLEWARES:
            if each.name == name:
                flush = each.add_to(app, True)
        turns = Counted(_requests_to(app, requests, flush))
        yield turns
        assert name == BARE or flush() == turns.count * requests


class Counted:
    """A contestant that knows how many turns it had."""

    def __init__(self, turn: Turn) -> None:
        self.count = 0
        self._turn = turn

    async def __call__(self) -> float:
        """Take a turn."""
        self.count += 1
        return await self._turn()


def _requests_to(
    app: Callable[..., Awaitable[None]], requests: int, settle: Callable[[], object] = int
) -> Turn:
    async def turn() -> float:
        scopes = [scope() for _ in range(requests)]
        gc.collect()
        started = time.thread_time()
        while scopes:
            await app(scopes.pop(), _receive, _send)
        elapsed = time.thread_time() - started
        settle()
        return elapsed / requests

    return turn


def _ours(audit: AuditLog, requests: int) -> Turn:
    app = application()
    app.add_middleware(AuditMiddleware, audit=audit)
    timed = _requests_to(app, requests)

    async def turn() -> float:
        elapsed = await timed()
        await audit.flush()
        return elapsed

    return turn


def _encode(requests: int) -> Turn:
    encode = Encoder(Settings()).encode

    async def turn() -> float:
        record = await captured_record()
        started = time.thread_time()
        for _ in range(requests):
            encode(record)
        return (time.thread_time() - started) / requests

    return turn


def _submit(audit: AuditLog, requests: int) -> Turn:
    async def turn() -> float:
        record = await captured_record()
        started = time.thread_time()
        for _ in range(requests):
            audit.submit(record)
        elapsed = time.thread_time() - started
        await audit.flush()
        return elapsed / requests

    return turn


async def captured_record() -> LogRecord:
    """Return what the middleware makes of the request."""
    sink = MemorySink(Settings())
    app = application()
    app.add_middleware(AuditMiddleware, audit=sink)
    await app(scope(), _receive, _send)
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    return record


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: object) -> None:
    pass


def _table(seconds: dict[str, list[float]]) -> Table:
    micros = {name: [figure * 1e6 for figure in figures] for name, figures in seconds.items()}
    bare = micros[BARE]
    ours = added(micros[OURS], bare)
    encode = statistics.median(micros[ENCODE])
    submit = statistics.median(micros[SUBMIT])
    rows = [
        Row(BARE, (f"{statistics.median(bare):.1f}", "", "")),
        _row(OURS, micros[OURS], bare, ours, (Aim(f"≤ {AIM_US:g} µs", ours <= AIM_US),)),
        Row("· of that, capture", ("", f"{ours - submit:.1f}", "")),
        Row("· of that, encode", ("", f"{encode:.1f}", "")),
        Row("· of that, queue", ("", f"{submit - encode:.1f}", "")),
    ]
    for each in MIDDLEWARES:
        if each.there:
            reached = added(micros[each.name], bare) / ours
            aim = Aim(f"≥ {each.aim:g} ×", reached >= each.aim)
            rows.append(_row(each.name, micros[each.name], bare, ours, (aim,)))
        else:
            rows.append(Row(each.name, ("not installed", "", "")))
    distributions = [each.distribution for each in MIDDLEWARES if each.there]
    note = f"{versions('starlette', *distributions)}; loop: {loop_name()}."
    return Table("capture: CPU time a request", ("µs in all", "µs added", "× ours"), rows, (note,))


def _row(
    name: str, figures: list[float], bare: list[float], ours: float, aims: tuple[Aim, ...]
) -> Row:
    more = added(figures, bare)
    cells = (f"{statistics.median(figures):.1f}", f"{more:.1f}", f"{more / ours:.1f}")
    return Row(name, cells, aims)
