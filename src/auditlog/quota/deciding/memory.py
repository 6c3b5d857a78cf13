"""`MemoryCounter`: counters in this process alone, with a clock that stands still until it is set.

What `logstore.spend_quotas` decides, decided here, for tests; nothing is taken in advance.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import uuid_utils

from auditlog.quota.model import Actor, Basis, Crossing, Decision, Key, Quota

SLICES = 60
"""Of a rolling window; the oldest counts until all of it has left."""

_SECOND_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Usage:
    """Of one counter: units by the beginning of a slice, or of the period."""

    units: dict[int, int] = field(default_factory=dict)
    told_percent: int = 0
    told_start: int = 0


class MemoryCounter:
    """Implements `Counter`.

    Args:
        on_crossings: Tells of crossings.
    """

    def __init__(self, on_crossings: Callable[[list[Crossing]], Awaitable[object]]) -> None:
        self.now_us = time.time_ns() // 1000
        """The clock, in microseconds since 1970."""
        self.away = False
        """Is it as if the database did not answer?"""
        self.starts = 0
        self._on_crossings = on_crossings
        self._usages: dict[Key, _Usage] = {}
        self._owed: list[tuple[Quota, Key, int, Actor]] = []
        self._lock = threading.RLock()
        self._telling: set[asyncio.Task[Any]] = set()

    def set_clock(self, now: datetime) -> None:
        """Let it be another instant."""
        self.now_us = (now - _EPOCH) // timedelta(microseconds=1)

    def advance(self, seconds: float) -> None:
        """Let time go on."""
        self.now_us += round(seconds * _SECOND_US)

    def try_now(self, *_: object) -> Decision | None:
        """Hold nothing: everything is asked."""
        return None

    async def ask(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Decide."""
        decision, crossings = self._decide(quota, key, amount, actor)
        await self._tell(crossings)
        return decision

    def ask_in_thread(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Decide."""
        decision, crossings = self._decide(quota, key, amount, actor)
        self._tell_anyhow(crossings)
        return decision

    async def look(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage."""
        return self.look_in_thread(quota, key)

    def look_in_thread(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage."""
        decision, crossings = self._decide(quota, key, 0, Actor())
        self._tell_anyhow(crossings)
        if decision.basis is Basis.COUNTER:
            decision.allowed = not quota.enforced or decision.usage < quota.limit
        return decision

    def charge(self, quota: Quota, key: Key, amount: int, actor: Actor) -> None:
        """Add; at once, or when it is not `away` any more and asked again."""
        with self._lock:
            self._owed.append((quota, key, amount, actor))
            crossings = [] if self.away else self._settle()
        self._tell_anyhow(crossings)

    def give_back(self, decision: Decision) -> None:
        """Take back, of what is still counted."""
        with self._lock:
            self._take_back(decision)

    async def told(self) -> None:
        """Wait until every crossing is told; those of `ask` are when it returns."""
        while self._telling:
            await asyncio.wait(self._telling)

    def begin(self) -> None:
        """There is nothing to begin."""

    async def start(self) -> None:
        """Count a start."""
        self.starts += 1

    async def aclose(self) -> None:
        """Undo a start."""
        self.close()

    def close(self) -> None:
        """Undo a start."""
        self.starts = max(0, self.starts - 1)

    def _decide(
        self, quota: Quota, key: Key, amount: int, actor: Actor
    ) -> tuple[Decision, list[Crossing]]:
        with self._lock:
            if self.away:
                return self._without(quota, key, amount, actor), []
            crossings = self._settle()
            used = self._used(quota, key)
            allowed = not amount or not quota.enforced or used + amount <= quota.limit
            decision = self._decision(quota, key, amount, allowed=allowed, used=used)
            if allowed and amount:
                crossings += self._add(quota, key, amount, actor)
            return decision, crossings

    def _without(self, quota: Quota, key: Key, amount: int, actor: Actor) -> Decision:
        """Decide by the quota's `on_unavailable`; what is allowed is charged later."""
        allowed = quota.on_unavailable == "open" or not quota.enforced
        if allowed and amount:
            self._owed.append((quota, key, amount, actor))
        used = self._used(quota, key)
        basis = Basis.UNAVAILABLE
        return self._decision(quota, key, amount, allowed=allowed, used=used, basis=basis)

    def _settle(self) -> list[Crossing]:
        """Charge what is owed."""
        owed, self._owed = self._owed, []
        return [crossing for each in owed for crossing in self._add(*each)]

    def _take_back(self, decision: Decision) -> None:
        for number, (quota, key, amount, _) in enumerate(self._owed):
            if (quota, key, amount) == (decision.quota, decision.key, decision.amount):
                del self._owed[number]
                return
        usage = self._usages.get(decision.key)
        start = decision.period_start_us
        if usage is not None and start in usage.units:
            usage.units[start] = max(0, usage.units[start] - decision.amount)

    def _add(self, quota: Quota, key: Key, amount: int, actor: Actor) -> list[Crossing]:
        previous = self._used(quota, key)
        usage = self._usages.setdefault(key, _Usage())
        start = self._start_us(quota)
        if not quota.rolling:
            usage.units = {start: usage.units.get(start, 0)}
        usage.units[start] = usage.units.get(start, 0) + amount
        used = range(previous, previous + amount)
        crossed = self._percents(quota, usage, used.stop)
        return [self._crossing(quota, key, percent, used, actor) for percent in crossed]

    def _used(self, quota: Quota, key: Key) -> int:
        usage = self._usages.get(key)
        if usage is None:
            return 0
        if not quota.rolling:
            return usage.units.get(self._start_us(quota), 0)
        oldest = self._start_us(quota) - quota.window_us
        usage.units = {start: units for start, units in usage.units.items() if start >= oldest}
        return sum(usage.units.values())

    def _start_us(self, quota: Quota) -> int:
        if not quota.rolling:
            return quota.of_instant(self.now_us)[0]
        length = quota.window_us // SLICES
        return self.now_us // length * length

    def _percents(self, quota: Quota, usage: _Usage, used: int) -> list[int]:
        """Return the thresholds that are reached, and were not told yet."""
        start = quota.of_instant(self.now_us)[0]
        if usage.told_start != start:
            usage.told_start, usage.told_percent = start, 0
        crossed = [
            percent
            for percent in quota.thresholds
            if percent > usage.told_percent and used >= max(1, -(-quota.limit * percent // 100))
        ]
        usage.told_percent = max([usage.told_percent, *crossed])
        return crossed

    def _crossing(
        self, quota: Quota, key: Key, percent: int, used: range, actor: Actor
    ) -> Crossing:
        start, end = quota.of_instant(self.now_us)
        return Crossing(
            str(uuid_utils.uuid7()),
            *key,
            _instant(start),
            _instant(end),
            percent,
            used.start,
            used.stop,
            quota.limit,
            _instant(self.now_us),
            actor.resource_owner,
            actor.user_id,
            actor.action,
        )

    def _decision(
        self,
        quota: Quota,
        key: Key,
        amount: int,
        *,
        allowed: bool,
        used: int,
        basis: Basis = Basis.COUNTER,
    ) -> Decision:
        usage = used + amount if allowed else used
        return Decision(
            quota,
            key,
            amount,
            allowed,
            used,
            usage,
            self._start_us(quota),
            (self._free_us(quota, key, amount, usage) - self.now_us) / _SECOND_US,
            basis,
        )

    def _free_us(self, quota: Quota, key: Key, amount: int, left: int) -> int:
        """Return when a period ends; of a window, when enough has left for as much again."""
        if not quota.rolling:
            return quota.of_instant(self.now_us)[1]
        length = quota.window_us // SLICES
        most = quota.limit - max(1, amount)
        units = self._usages[key].units if key in self._usages and left > most else {}
        for start in sorted(units):
            left -= units[start]
            if left <= most:
                return ((start + quota.window_us) // length + 1) * length
        return self.now_us + quota.window_us

    async def _tell(self, crossings: list[Crossing]) -> None:
        if crossings:
            await self._on_crossings(crossings)

    def _tell_anyhow(self, crossings: list[Crossing]) -> None:
        """Tell, from a thread or, where there is a loop, as soon as that gets round to it."""
        if not crossings:
            return
        telling: Coroutine[Any, Any, None] = self._tell(crossings)
        try:
            task = asyncio.get_running_loop().create_task(telling)
        except RuntimeError:
            asyncio.run(telling)
            return
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


def _instant(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)
