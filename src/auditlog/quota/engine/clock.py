"""The database's clock as this process knows it, and the periods that lie around it.

What a lease was taken for ends by the database's clock, not by this machine's, which may be wrong
or be put right while a lease is held. So the monotonic clock is read when a statement is sent, and
the database's while it is answered: a lease ends early by the time that takes, and never late.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from auditlog.quota.model import Quota

SLICES = 60
"""Of a rolling window, as `logstore.spend_quotas` divides it."""
MAX_CACHED = 1_000

_US = 1_000_000


class Span(NamedTuple):
    """Which counter an instant belongs to: that of a period, or a slice of a rolling window."""

    start_us: int
    end_us: int
    """When units that are taken in it can no longer be used."""
    window_us: int
    """Length of the window that rolls; 0 for a period."""


NOWHEN = Span(0, 0, 0)


class Clock:
    """Microseconds since 1970 by the database's clock; by this machine's until that is known."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with this machine's.

        Args:
            monotonic: The monotonic clock, in seconds.
        """
        self.monotonic = monotonic
        self._ahead_us = time.time_ns() // 1000 - int(monotonic() * _US)

    def note(self, now_us: int, sent_at: float) -> None:
        """Take note of an answer.

        Args:
            now_us: The database's clock, while it answered.
            sent_at: The monotonic clock, before it was asked.
        """
        self._ahead_us = now_us - int(sent_at * _US)

    def now_us(self) -> int:
        """Return what the database's clock may show, at most."""
        return self._ahead_us + int(self.monotonic() * _US)

    def monotonic_at(self, us: int) -> float:
        """Return when that instant comes, or came, by the monotonic clock."""
        return (us - self._ahead_us) / _US


class Calendar:
    """Periods of quotas, each computed once. Safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        # By identity: to hash a quota takes longer than all the rest. The quota is kept with it,
        # so that no other one can have its identity.
        self._spans: dict[int, tuple[Quota, Span]] = {}

    def current(self, quota: Quota) -> Span:
        """Return the period, or the slice of the window, that it is now."""
        now_us = self.clock.now_us()
        known = self._spans.get(id(quota))
        if known is not None and known[1].start_us <= now_us < known[1].end_us:
            return known[1]
        span = _span(quota, now_us)
        if len(self._spans) >= MAX_CACHED:
            self._spans = {}
        self._spans[id(quota)] = (quota, span)
        return span


def counted_in(span: Span, now_us: int) -> Span:
    """Return where units were counted that were asked for in a span.

    Of a window the database takes the slice that it is then. This process may have taken it for the
    next one, in which those units would outlive their slice.

    Args:
        span: As it was asked for.
        now_us: The database's clock, as it counted.
    """
    return _slice(span.window_us, now_us) if span.window_us else span


def _span(quota: Quota, now_us: int) -> Span:
    if not quota.rolling:
        return Span(*quota.of_instant(now_us), 0)
    return _slice(quota.window_us, now_us)


def _slice(window_us: int, now_us: int) -> Span:
    slice_us = -(-window_us // SLICES)
    start_us = now_us // slice_us * slice_us
    return Span(start_us, start_us + slice_us, window_us)
