"""The same application under uvicorn, bare and audited: throughput, and latency at a fixed rate.

Measured: one worker each, a client in another process, and for the audited one the database, all on
this machine and its cores. CPU is that of the server's process, with the shipping in it. The
competitors ship nothing. Saturation is a closed loop over kept connections. Latency is an open
loop at a fixed rate, where a request's time counts from the moment when it was due. The log has its
default settings, so its writer runs on the server's own loop. Every request must be a row in the
end, and none dropped. Not measured: a database elsewhere, which would leave both cores to the
server. The client is our own (`load.py`), because a fresh machine has no other.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg

from auditlog.tables import LOGS
from benchmarks.competitors import MIDDLEWARES, installed
from benchmarks.database import Server
from benchmarks.report import Aim, Row, Table, versions
from benchmarks.rounds import added, interleave, loop_name, ratio
from benchmarks.rounds import run as run_on_loop

BARE, AUDITED = "bare application", "with AuditMiddleware"
COMPETITORS = {each.name: each.distribution for each in MIDDLEWARES if each.there}
AIM_RATIO, AIM_MS = 0.7, 1.0
STORED_TIMEOUT_S = 30.0
Figures = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    seconds: float
    rounds: int
    rate: float = 2_000.0
    connections: int = 32


FULL, QUICK = Sizes(seconds=3, rounds=7), Sizes(seconds=1, rounds=2)


def run(sizes: Sizes, server: Server) -> list[Table]:
    """Measure, and return two tables."""
    names = {BARE: "bare", AUDITED: "audited", **COMPETITORS}
    with server.database() as dsn, ExitStack() as stack:
        servers = {name: stack.enter_context(_served(mode, dsn)) for name, mode in names.items()}
        for served in servers.values():
            _load(served, sizes.connections, sizes.seconds / 4, None)  # caches, and code paths
        saturated = _measure("uvicorn, saturated", servers, sizes, None)
        two = {name: servers[name] for name in (BARE, AUDITED)}
        steady = _measure(f"uvicorn, {sizes.rate:g}/s", two, sizes, sizes.rate)
    return [_throughput(saturated, servers[AUDITED]), _latency(steady, sizes)]


@dataclass
class _Served:
    """A server that runs, and what became of it."""

    process: subprocess.Popen[str]
    dsn: str
    audited: bool
    sent: int = 0
    stats: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def port(self) -> int:
        """Where it listens; waits until it does, so ask when all have been started."""
        return int(_line(self.process))

    def cpu_seconds(self) -> float:
        """Ask for the CPU time of its process."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(_line(self.process))


@contextmanager
def _served(mode: str, dsn: str) -> Iterator[_Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve", mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AUDITLOG_DSN": dsn},
    )
    with process:
        try:
            served = _Served(process, dsn, mode == "audited")
            yield served
            assert process.stdin
            process.stdin.close()
            served.stats = json.loads(_line(process))
            _check(served)
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def _check(served: _Served) -> None:
    """Sent = stored, and nothing was lost on the way."""
    if served.audited:
        assert served.stats["dropped_by_reason"] == {}, served.stats
        assert served.stats["written"] == served.sent == _stored(served.dsn)


def _measure(
    title: str, servers: dict[str, _Served], sizes: Sizes, rate: float | None
) -> dict[str, list[Figures]]:
    def turn(served: _Served) -> Callable[[], Awaitable[Figures]]:
        async def drive() -> Figures:
            return await asyncio.to_thread(_load, served, sizes.connections, sizes.seconds, rate)

        return drive

    contestants = {name: turn(served) for name, served in servers.items()}
    return run_on_loop(interleave(title, contestants, sizes.rounds))


def _load(served: _Served, connections: int, seconds: float, rate: float | None) -> Figures:
    arguments = [served.port, connections, seconds, *([rate] if rate else [])]
    command = [sys.executable, "-m", "benchmarks.load", *map(str, arguments)]
    before = served.cpu_seconds()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    figures: Figures = json.loads(output)
    served.sent += int(figures["sent"])
    if served.audited:
        _wait_until_stored(served)
    figures["server_us"] = (served.cpu_seconds() - before) / figures["sent"] * 1e6
    return figures


def _wait_until_stored(served: _Served) -> None:
    """Leave the next contestant a machine that has nothing to do."""
    deadline = time.monotonic() + STORED_TIMEOUT_S
    while (stored := _stored(served.dsn)) != served.sent:
        assert time.monotonic() < deadline, f"{served.sent} sent, {stored} stored"
        time.sleep(0.1)


def _stored(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        # Not those in which the log tells of itself.
        query = f"SELECT count(*) FROM {LOGS.qualified_name} WHERE protocol <> 0"  # noqa: S608  # a constant
        row = connection.execute(query.encode()).fetchone()
    assert row
    return int(row[0])


def _throughput(figures: dict[str, list[Figures]], audited: _Served) -> Table:
    rates = {name: [each["per_second"] for each in turns] for name, turns in figures.items()}
    cpu = {name: [each["server_us"] for each in turns] for name, turns in figures.items()}

    def row(name: str, *aims: Aim) -> Row:
        if name not in rates:
            return Row(name, ("not installed", "", "", ""))
        kept = ratio(rates[name], rates[BARE])
        took, more = statistics.median(cpu[name]), added(cpu[name], cpu[BARE])
        rate = statistics.median(rates[name])
        return Row(name, (f"{rate:,.0f}", f"{kept:.2f}", f"{took:.0f}", f"{more:.0f}"), aims)

    kept = ratio(rates[AUDITED], rates[BARE])
    aims = (Aim(f"≥ {AIM_RATIO:g} of bare", kept >= AIM_RATIO), Aim("dropped = 0", met=True))
    rows = [row(BARE), row(AUDITED, *aims), *(row(each.name) for each in MIDDLEWARES)]
    notes = (
        f"{audited.stats['written']:,} requests sent to the audited one in all, and as many rows"
        " stored.",
        f"{_versions()}; loop: {loop_name()}.",
    )
    columns = ("requests/s", "of bare", "server CPU, µs a request", "added")
    return Table("uvicorn, saturated, one worker", columns, rows, notes)


def _latency(figures: dict[str, list[Figures]], sizes: Sizes) -> Table:
    def row(name: str, *aims: Aim) -> Row:
        p50, p99 = ([each[key] for each in figures[name]] for key in ("p50_ms", "p99_ms"))
        return Row(name, (f"{statistics.median(p50):.2f}", f"{statistics.median(p99):.2f}"), aims)

    p99 = {name: [each["p99_ms"] for each in turns] for name, turns in figures.items()}
    aim = Aim(f"p99 within {AIM_MS:g} ms of bare", within(p99[AUDITED], p99[BARE], AIM_MS))
    more = [a - b for a, b in zip(p99[AUDITED], p99[BARE], strict=True)]
    reached = statistics.median(each["per_second"] for each in figures[AUDITED])
    return Table(
        f"uvicorn at {sizes.rate:,.0f} requests/s",
        ("p50, ms", "p99, ms"),
        [row(BARE), row(AUDITED, aim)],
        (
            f"Differences of p99, round by round: median {statistics.median(more):+.2f} ms,"
            f" from {min(more):+.2f} to {max(more):+.2f}. Bare alone: from {min(p99[BARE]):.2f}"
            f" to {max(p99[BARE]):.2f}. Reached {reached:,.0f}/s.",
        ),
    )


def within(figures: list[float], of: list[float], aim: float) -> bool | None:
    """Tell whether figures exceed others by no more than the aim; None if noise hides it.

    When the same bare application differs from itself by more than the aim, from round to round,
    a difference of that size says nothing, whichever way it points.
    """
    if len(of) < 2 or max(of) - min(of) > aim:
        return None
    return added(figures, of) <= aim


def _versions() -> str:
    return versions("uvicorn", *(name for name in ("httptools", "uvloop") if installed(name)))
