"""What a process knows of one counter: its lease, its usage, and how much it is in demand."""

from dataclasses import dataclass

from auditlog.quota.engine.asks import Group
from auditlog.quota.engine.clock import Span
from auditlog.quota.model import Basis, Decision, Key, Quota

NONE_LEFT = -1
"""Of what has fewer units than none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the database said to a group."""

    granted: int
    """How many of its spendings."""
    extra: int
    """Units in advance."""
    previous: int
    usage: int
    free_in_s: float | None = None
    """Seconds until such a spending fits again; None: it never does."""


class Entry:
    """What is known of one counter. Not thread-safe: the book's lock is held by whoever uses it."""

    __slots__ = (
        "before",
        "ends_at",
        "free_at",
        "left",
        "quota",
        "refused_until",
        "renew_at",
        "renewing",
        "seen_at",
        "since",
        "span",
        "spent",
        "units",
        "used",
        "used_at",
    )

    def __init__(self, quota: Quota, span: Span, ends_at: float, now: float) -> None:
        self.quota = quota
        self.span = span
        self.ends_at = ends_at
        """By the monotonic clock."""
        self.units = 0
        """Of the lease, not spent."""
        self.used = 0
        """The counter, without those units, as far as this process knows."""
        self.left = 0
        """What the limit still had when a spending was refused."""
        self.refused_until = 0.0
        self.free_at = 0.0
        """When what was asked last, or refused, fits into the window; in the past: at any time."""
        self.seen_at = 0.0
        self.renew_at = NONE_LEFT
        """With so many units left the lease is renewed."""
        self.renewing = False
        self.used_at = now
        self.since = now
        """When the stretch began in which `spent` was spent; `before`, in that before it."""
        self.spent = 0
        self.before = 0

    def demand(self, now: float, lease_s: float) -> int:
        """Return how many units this process spends in the time that a lease is for."""
        if now - self.since >= lease_s:
            self.before = self.spent if now - self.since < 2 * lease_s else 0
            self.spent = 0
            self.since = now
        return max(self.spent, self.before)

    def suits(self, quota: Quota) -> bool:
        """Tell whether a definition, which may have been read anew, is the one it was made for."""
        if self.quota is not quota:
            if self.quota != quota:
                return False
            self.quota = quota
        return True

    def dealt(self, group: Group, granted: int, previous: int, now: float) -> list[Decision]:
        """Return the decisions of a group's asks, of which the first are granted."""
        decisions = []
        usage = max(0, previous)
        for number, ask in enumerate(group.asks):
            allowed = number < granted
            decision = self.decision(ask.key, ask.amount, allowed, usage, now, Basis.COUNTER)
            decisions.append(decision)
            usage = decision.usage
        return decisions

    def decision(  # noqa: PLR0917  # as those of what it makes
        self, key: Key, amount: int, allowed: bool, previous: int, now: float, basis: Basis
    ) -> Decision:
        """Make a decision about this counter."""
        return Decision(
            self.quota,
            key,
            amount,
            allowed,
            previous,
            previous + amount if allowed else previous,
            self.span.start_us,
            self._resets_in_s(now),
            basis,
        )

    def _resets_in_s(self, now: float) -> float:
        if not self.span.window_us:
            return max(0.0, self.ends_at - now)
        return self.free_at - now if self.free_at > now else self.span.window_us / 1_000_000
