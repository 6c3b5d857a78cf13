"""What the database is to be told without anybody waiting: units to give back, and to charge.

Both are summed up by counter, so that they are bounded by the counters and not by the traffic; and
there may be only so many of those. Thread-safe.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from auditlog.quota.engine.clock import Span
from auditlog.quota.model import MAX_UNITS, Actor, Key, Quota

MAX_COUNTERS = 20_000

_Counter = tuple[Key, int, int]


@dataclass(slots=True)
class Charge:
    """Units that were used already."""

    quota: Quota
    key: Key
    span: Span
    units: int
    actor: Actor
    """The last of those who used them."""
    since: float = field(default_factory=time.monotonic)
    """When the first were used, by the monotonic clock."""


@dataclass(slots=True)
class Return:
    """Units that were taken and not used."""

    key: Key
    span: Span
    units: int


class Owed:
    """Charges and returns that are not sent yet."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        """Begin with nothing.

        Args:
            on_lost: Called when units are forgotten since there are those of too many counters.
        """
        self._lock = threading.RLock()
        self._on_lost = on_lost
        self._charges: dict[_Counter, Charge] = {}
        self._returns: dict[_Counter, Return] = {}

    @property
    def since(self) -> float | None:
        """When the oldest charge was put here, by the monotonic clock; None: there is none."""
        with self._lock:
            return next((charge.since for charge in self._charges.values()), None)

    @property
    def has_returns(self) -> bool:
        """Are there units to give back?"""
        return bool(self._returns)

    def charge(self, charge: Charge) -> None:
        """Add units that were used."""
        counter = (charge.key, charge.span.start_us, charge.span.window_us)
        with self._lock:
            kept = self._charges.get(counter)
            if kept is not None:
                kept.units = min(kept.units + charge.units, MAX_UNITS)
                kept.quota, kept.actor = charge.quota, charge.actor
                return
            if len(self._charges) < MAX_COUNTERS:
                self._charges[counter] = charge
                return
        self._on_lost()

    def give_back(self, key: Key, span: Span, units: int) -> None:
        """Add units that were not used; of what is still to be charged they are taken off."""
        counter = (key, span.start_us, span.window_us)
        with self._lock:
            if (charge := self._charges.get(counter)) is not None:
                taken = min(units, charge.units)
                charge.units -= taken
                units -= taken
                if not charge.units:
                    del self._charges[counter]
            if not units:
                return
            if (kept := self._returns.get(counter)) is not None:
                kept.units = min(kept.units + units, MAX_UNITS)
                return
            if len(self._returns) < MAX_COUNTERS:
                self._returns[counter] = Return(key, span, min(units, MAX_UNITS))
                return
        self._on_lost()

    def take_charges(self, most: int) -> list[Charge]:
        """Hand over the oldest charges."""
        with self._lock:
            return [self._charges.pop(each) for each in list(self._charges)[:most]]

    def take_returns(self, most: int) -> list[Return]:
        """Hand over the oldest returns."""
        with self._lock:
            return [self._returns.pop(each) for each in list(self._returns)[:most]]
