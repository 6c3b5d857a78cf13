"""Decisions: a counter makes them, and they are counted, told to the log, and noted in the request.

By whoever knows quota and counter already: the doors for traffic, and the one for handlers, which
find that out first.
"""

from auditlog.capture.context import current
from auditlog.capture.recorder import Recorder
from auditlog.quota.counter import Counter
from auditlog.quota.deciding.callback import OnCrossed
from auditlog.quota.deciding.recording import Recording
from auditlog.quota.deciding.stats import QuotaStats
from auditlog.quota.model import Actor, Basis, Decision, Key, Quota

NOBODY = Actor()
_UNAVAILABLE = Basis.UNAVAILABLE


class Deciding:
    """The base of `Quotas`. All of it may be called from any thread and any loop."""

    def __init__(self, recorder: Recorder, on_crossed: OnCrossed | None) -> None:
        self.recorder = recorder
        """The log."""
        self._recording = Recording(recorder, on_crossed)
        self._counter = self._make_counter()
        self._try_now = self._counter.try_now
        self._reset()

    async def decide(self, quota: Quota, key: Key, amount: int, actor: Actor = NOBODY) -> Decision:
        """Spend, and tell; a refusal is a decision like any other.

        Args:
            quota: As it is to be applied.
            key: Whose counter.
            amount: Units.
            actor: Who spends, on what.
        """
        decision = self._try_now(quota, key, amount)
        if decision is None:
            self._asks += 1
            decision = await self._counter.ask(quota, key, amount, actor)
        self._note(decision, actor)
        return decision

    def decide_in_thread(
        self, quota: Quota, key: Key, amount: int, actor: Actor = NOBODY
    ) -> Decision:
        """Do what `decide` does, from a thread without an event loop; blocks."""
        decision = self._try_now(quota, key, amount)
        if decision is None:
            self._asks += 1
            decision = self._counter.ask_in_thread(quota, key, amount, actor)
        self._note(decision, actor)
        return decision

    def begin(self) -> None:
        """Begin to read what the database says of quotas, if that has not begun; does not wait."""
        self._counter.begin()

    async def look(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage, which may be as old as a second, and spend nothing.

        For what is charged afterwards: it is allowed while anything is left. Where it is not, this
        is a refusal once `refuse` is called.
        """
        return self._seen(await self._counter.look(quota, key))

    def look_in_thread(self, quota: Quota, key: Key) -> Decision:
        """Do what `look` does, from a thread without an event loop; blocks."""
        return self._seen(self._counter.look_in_thread(quota, key))

    def refuse(self, look: Decision, actor: Actor = NOBODY) -> None:
        """Count and tell that somebody was refused because of what a look has shown.

        Args:
            look: What it has shown: not allowed.
            actor: Who wanted to spend, on what.
        """
        self._note(look, actor)

    def charge(self, quota: Quota, key: Key, amount: int, actor: Actor = NOBODY) -> None:
        """Add what was used already, whatever the limit; does not wait."""
        if amount > 0:
            self._charged += 1
            self._counter.charge(quota, key, amount, actor)

    def give_back(self, decision: Decision) -> None:
        """Take back a spending that was allowed; does not wait. To be called once."""
        if decision.allowed and decision.amount:
            self._given_back += 1
            self._counter.give_back(decision)

    def stats(self) -> QuotaStats:
        """Read the counters of this process."""
        return QuotaStats(
            allowed=self._allowed,
            refused=self._refused,
            allowed_unavailable=self._allowed_unavailable,
            refused_unavailable=self._refused_unavailable,
            given_back=self._given_back,
            charged=self._charged,
            crossings=self._recording.crossings,
            crossings_failed=self._recording.failed,
            asks=self._asks,
        )

    def _make_counter(self) -> Counter:
        """Make what counts; it is to tell of crossings by `_recording`."""
        raise NotImplementedError

    def _note(self, decision: Decision, actor: Actor) -> None:
        """Count a decision, and tell of it where that is called for."""
        # Each addition is one step of the interpreter: nothing is called within it.
        if decision.allowed:
            self._allowed += 1
            if decision.quota.log_allowed:
                self._recording.decided(decision, actor)
        else:
            self._refused += 1
            self._recording.decided(decision, actor)
        if decision.basis is _UNAVAILABLE:
            self._note_unavailable(decision)

    def _seen(self, look: Decision) -> Decision:
        # Where it is not allowed, it is counted when it is refused.
        if look.allowed and look.basis is _UNAVAILABLE:
            self._note_unavailable(look)
        return look

    def _note_unavailable(self, decision: Decision) -> None:
        if decision.allowed:
            self._allowed_unavailable += 1
        else:
            self._refused_unavailable += 1
        policy = "open" if decision.allowed else "closed"
        holder = current.get()
        if holder is not None:
            holder.metadata["audit.quota_unavailable"] = policy
        self.recorder.reporter.report(
            "auditlog.quota_unavailable",
            "the database does not say what is used, so on_unavailable decides: the quota"
            f" {decision.quota.id!r} fails {policy}",
        )

    def _reset(self) -> None:
        self._allowed = self._refused = self._allowed_unavailable = self._refused_unavailable = 0
        self._given_back = self._charged = self._asks = 0
        self._recording.reset()
