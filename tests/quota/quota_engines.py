"""Engines for tests, what they told, and what the database says of their counters."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

import trail
from auditlog.quota.engine import Engine
from auditlog.quota.model import Actor, Basis, Crossing, Decision, Key, Quota
from auditlog.reporting import Reporter
from auditlog.settings import Settings

NOBODY = Actor()


class Lines(Reporter):
    """Keeps the reasons of lines, however many there are of one."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self.messages: list[str] = []

    def report(self, reason: str, message: str, *, level: int = logging.WARNING) -> None:
        self.reasons.append(reason)
        self.messages.append(message)


@dataclass
class Told:
    """What an engine has told."""

    definitions: list[Sequence[Mapping[str, Any]]] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)
    fails: bool = False
    crossed: asyncio.Event = field(default_factory=asyncio.Event)
    read: asyncio.Event = field(default_factory=asyncio.Event)

    def on_definitions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.definitions.append(rows)
        self.read.set()

    async def on_crossings(self, crossings: list[Crossing]) -> list[str]:
        self.crossings += crossings
        self.crossed.set()
        if self.fails:
            raise ValueError("the teller's own")
        return [each.crossing_id for each in crossings]


def engine(dsn: str, told: Told | None = None, lines: Lines | None = None, **given: Any) -> Engine:
    """An engine that does not run yet. It waits long for a database: the machine may be slow."""
    told = told or Told()
    given = {"timeout_s": 20.0, "refresh_s": 60.0} | given
    return Engine(
        Settings(dsn=dsn),
        lines or Lines(),
        on_definitions=told.on_definitions,
        on_crossings=told.on_crossings,
        **given,
    )


@asynccontextmanager
async def running(dsn: str, *given: Any, **more: Any) -> AsyncIterator[Engine]:
    """An engine on this loop, for the length of the context."""
    made = engine(dsn, *given, **more)
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


async def spend(engine: Engine, quota: Quota, key: Key, amount: int = 1) -> Decision:
    """Spend as a door does."""
    return engine.try_now(quota, key, amount) or await engine.ask(quota, key, amount, NOBODY)


def used(dsn: str, subject: str = "s") -> int:
    """What the database has counted for a subject, in all periods."""
    with psycopg.connect(dsn) as conn:
        query = "SELECT coalesce(sum(used), 0) FROM logstore.quota_usage WHERE subject = %s"
        row = conn.execute(query, [subject]).fetchone()
        assert row is not None
        return int(row[0])


async def until_used(dsn: str, units: int, subject: str = "s", *, most: int = 0) -> None:
    """Wait until the database has counted so much, or `most`."""
    accepted = range(units, max(units, most) + 1)
    await trail.until(lambda: used(dsn, subject) in accepted)


async def until(basis: Basis, decide: Callable[[], object]) -> Decision:
    """Decide again and again until it is founded on that; the test's time limit bounds it."""
    while True:
        decision = await decide()  # type: ignore[misc]
        assert isinstance(decision, Decision)
        if decision.basis is basis:
            return decision
        await asyncio.sleep(0.01)
