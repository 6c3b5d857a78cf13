"""Spendings that wait for the database → groups that one call asks for, and answers dealt out.

Spendings of one counter that want equal amounts are one group, answered by a number: so many of
them are granted, the first ones. Pure, and thread-safe: who waits, and how, is the caller's.
"""

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum

from auditlog.quota.engine.clock import NOWHEN, Span
from auditlog.quota.engine.owed import Charge
from auditlog.quota.model import Actor, Decision, Key, Quota

MAX_WAITING = 10_000
"""Spendings; each is a request that is held up."""
MAX_IN_GROUP = 1_000


class Given(Enum):
    """What somebody went on with who could not wait any longer."""

    ALLOWED = "the units are to be charged, unless they are granted yet"
    NOTHING = "the units are to be given back, if they are granted yet"


class Ask:
    """One spending that waits."""

    __slots__ = ("actor", "amount", "decision", "failed", "given", "key", "quota", "tries", "wake")

    def __init__(
        self, quota: Quota, key: Key, amount: int, actor: Actor, wake: Callable[[], None]
    ) -> None:
        """Describe it.

        Args:
            quota: As it is to be applied.
            key: Whose counter.
            amount: Units.
            actor: Who spends.
            wake: Called from any thread when the answer is there, or when none will come.
        """
        self.quota = quota
        self.key = key
        self.amount = amount
        self.actor = actor
        self.wake = wake
        self.tries = 0
        self.decision: Decision | None = None
        self.failed = False
        """Will there be no decision?"""
        self.given: Given | None = None
        """What its owner went on with."""


class Group:
    """Equal spendings of one counter; with none, a charge, or units in advance and no more."""

    __slots__ = ("amount", "asks", "charge", "extra", "key", "quota", "span")

    def __init__(
        self, quota: Quota, key: Key, amount: int, span: Span = NOWHEN, charge: Charge | None = None
    ) -> None:
        self.quota = quota
        self.key = key
        self.amount = amount
        self.asks: list[Ask] = []
        self.span = span
        self.extra = 0
        """Units that are wanted in advance."""
        self.charge = charge


class Asks:
    """What waits to be sent. Each ask is answered once, or its owner has gone on without."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler may spend while this very thread is in here.
        self._lock = threading.RLock()
        self._groups: deque[Group] = deque()
        self._open: dict[tuple[Key, int, int], Group] = {}
        self._waiting = 0
        self.is_closed = False
        """Has whoever answers found nothing more to do, and ended?"""

    def __len__(self) -> int:
        """Count the spendings that are not sent yet."""
        return self._waiting

    def put(self, ask: Ask, *, again: bool = False) -> bool:
        """Let a spending wait; False if too many do.

        Args:
            ask: The spending.
            again: It was sent before, and nothing came of it.
        """
        with self._lock:
            if self._waiting >= MAX_WAITING and not again:
                return False
            counter = (ask.key, id(ask.quota), ask.amount)
            group = self._open.get(counter)
            if group is None or len(group.asks) >= MAX_IN_GROUP:
                group = self._open[counter] = Group(ask.quota, ask.key, ask.amount)
                self._groups.append(group)
            group.asks.append(ask)
            self._waiting += 1
            return True

    def open(self) -> None:
        """Begin, or begin again, to answer."""
        self.is_closed = False

    def close(self) -> bool:
        """End, unless something waits: then somebody was faster, and is to be answered."""
        with self._lock:
            self.is_closed = not self._waiting
            return self.is_closed

    def take(self, most: int) -> list[Group]:
        """Hand over the groups that have waited longest."""
        with self._lock:
            taken = [self._groups.popleft() for _ in range(min(most, len(self._groups)))]
            for group in taken:
                counter = (group.key, id(group.quota), group.amount)
                if self._open.get(counter) is group:
                    del self._open[counter]
                self._waiting -= len(group.asks)
            return taken

    def answer(self, ask: Ask, decision: Decision | None) -> Given | None:
        """Give an ask its decision; None: nobody knows one.

        Returns:
            What its owner went on with, to whom the decision comes too late.
        """
        with self._lock:
            if ask.given is not None or ask.decision is not None or ask.failed:
                return ask.given
            ask.decision = decision
            ask.failed = decision is None
        ask.wake()
        return None

    def leave(self, ask: Ask, given: Given) -> Decision | None:
        """Go on without an answer; return the decision if it is there after all."""
        with self._lock:
            if ask.decision is None and not ask.failed:
                ask.given = given
            return ask.decision
