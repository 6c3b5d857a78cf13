"""`Quotas`: the door to what is limited, for handlers, middleware and interceptors.

    quotas = Quotas(audit, [Quota("exports", limit=10, period="day", counts="reported")])

    async with quotas.spend("exports"):
        ...

It knows the definitions, has the counters decide, and tells the log. It begins with the first
spending, in the process and on the loop that serves, or with `start`. Once it is forgotten, its
counters end by themselves.
"""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import wait
from contextlib import suppress
from typing import Self

from auditlog.capture.context import current
from auditlog.capture.policy.rules import did_you_mean
from auditlog.capture.recorder import Recorder
from auditlog.errors import QuotaError, SettingsError
from auditlog.quota.callback import OnCrossed
from auditlog.quota.catalogue import Catalogue
from auditlog.quota.counter import Counter
from auditlog.quota.definitions import Definitions
from auditlog.quota.engine import Engine
from auditlog.quota.model import MAX_UNITS, Actor, Basis, Decision, Key, Quota
from auditlog.quota.order import Order, order
from auditlog.quota.recording import Recording
from auditlog.quota.spending import Spending
from auditlog.quota.stats import QuotaStats

NOBODY = Actor()
_UNAVAILABLE = Basis.UNAVAILABLE


class Quotas:
    """The quotas of one application. All of it may be called from any thread and any loop.

    Args:
        audit: The log to which decisions go; its DSN is that of the counters, too.
        quotas: What is limited. The database may say otherwise (`auditlog quota set`).
        file: A TOML file with more of them.
        on_crossed: Called when a threshold was crossed; a plain function is called in a thread.
        timeout_s: How long a decision waits for the database, in seconds.
        refresh_s: How often definitions are read from the database.
        lease_s: For about how long units are taken in advance.

    Raises:
        QuotaError: one that cannot work, or is defined twice.
        SettingsError: the log has no database, or a time is none.
    """

    def __init__(
        self,
        audit: Recorder,
        quotas: Iterable[Quota] = (),
        *,
        file: str | os.PathLike[str] | None = None,
        on_crossed: OnCrossed | None = None,
        timeout_s: float = 0.5,
        refresh_s: float = 5.0,
        lease_s: float = 1.0,
    ) -> None:
        _check_times(timeout_s=timeout_s, refresh_s=refresh_s, lease_s=lease_s)
        self.recorder = audit
        """The log."""
        self._timeout_s = timeout_s
        self._refresh_s = refresh_s
        self._lease_s = lease_s
        self._catalogue = Catalogue(audit, quotas, file)
        self._recording = Recording(audit, on_crossed)
        self._counter = self._make_counter()
        self._try_now = self._counter.try_now
        self._users = 0
        self._lifecycle = threading.RLock()
        self._reset()
        _instances.add(self)

    @property
    def definitions(self) -> Definitions:
        """What applies at the moment; another object once the database says otherwise."""
        return self._catalogue.definitions

    def spend(
        self,
        quota_id: str,
        amount: int = 1,
        *,
        user_id: object = None,
        resource_owner: object = None,
        instance_id: object = None,
        subject: str | None = None,
        action: str | None = None,
    ) -> Spending:
        """Spend units of a quota: to be awaited, or entered by `async with` or `with`.

        Who spends is taken from the request being served and from `bound`, unless it is said here.

        Args:
            quota_id: Which.
            amount: How many units; 0 is always allowed, and tells the usage.
            user_id: Who. Like the other identifiers, anything with a fitting `str`.
            resource_owner: The organisation.
            instance_id: The tenant.
            subject: Whose usage it is. Of a quota per key, route or address that one; of one per
                tenant, or per several things, whatever the application tells apart.
            action: On what, for the rows that tell of it.

        Raises:
            QuotaError: the amount is none.
        """
        if type(amount) is not int or not 0 <= amount <= MAX_UNITS:
            raise QuotaError(f"amount must be a whole number from 0 to {MAX_UNITS}, not {amount!r}")
        wanted = order(
            self.recorder.settings,
            quota_id,
            amount,
            user_id=user_id,
            resource_owner=resource_owner,
            instance_id=instance_id,
            subject=subject,
            action=action,
        )
        return Spending(self, wanted)

    async def carry_out(self, wanted: Order) -> Decision:
        """Decide what `spend` has put together.

        Raises:
            QuotaError: there is no such quota, or it is not known whose usage it is.
        """
        quota = self.definitions.get(wanted.quota_id, wanted.tenant)
        if quota is None and not self._catalogue.read_once.done():
            # As long as the database has not been heard, it may be the one that knows it.
            await self._counter.look(*_question(wanted))
            known = asyncio.wrap_future(self._catalogue.read_once)
            await asyncio.wait({known}, timeout=self._timeout_s)
        quota = quota or self._found(wanted)
        key = wanted.key(quota, self.recorder.settings)
        return await self.decide(quota, key, wanted.amount, wanted.actor)

    def carry_out_in_thread(self, wanted: Order) -> Decision:
        """Do what `carry_out` does, from a thread without an event loop; blocks."""
        quota = self.definitions.get(wanted.quota_id, wanted.tenant)
        if quota is None and not self._catalogue.read_once.done():
            self._counter.look_in_thread(*_question(wanted))
            wait({self._catalogue.read_once}, self._timeout_s)
        quota = quota or self._found(wanted)
        key = wanted.key(quota, self.recorder.settings)
        return self.decide_in_thread(quota, key, wanted.amount, wanted.actor)

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

    async def look(self, quota: Quota, key: Key) -> Decision:
        """Tell the usage, which may be as old as a second, and spend nothing.

        For what is charged afterwards: it is allowed while anything is left. Where it is not, this
        is a refusal once `refuse` is called.
        """
        return self._judged(await self._counter.look(quota, key))

    def look_in_thread(self, quota: Quota, key: Key) -> Decision:
        """Do what `look` does, from a thread without an event loop; blocks."""
        return self._judged(self._counter.look_in_thread(quota, key))

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

    async def start(self) -> None:
        """Begin on the running loop. May be nested.

        It waits for the database, for `timeout_s` at most: then its definitions are known.
        """
        with self._lifecycle:
            self._users += 1
            is_first = self._users == 1
        if is_first:
            await self._counter.start()

    async def aclose(self) -> None:
        """Undo one `start`; the last one gives back what the process holds. Before the log's."""
        if self._is_last():
            await self._counter.aclose()

    def close(self) -> None:
        """Do what `aclose` does, from code without a loop; blocks.

        Raises:
            RuntimeError: called on the loop that counts, which it would block.
        """
        if self._is_last():
            self._counter.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        with self._lifecycle:
            self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_counter(self) -> Counter:
        """Make what counts; it must not know this object, or nobody could forget it.

        Raises:
            SettingsError: the log has no database.
        """
        if not self.recorder.settings.dsn:
            raise SettingsError(
                "quotas are counted in the log's database, and this log has none: pass"
                " AuditLog('postgresql://...'), or use auditlog.testing.MemoryQuotas"
            )
        engine = Engine(
            self.recorder.settings,
            self.recorder.reporter,
            timeout_s=self._timeout_s,
            lease_s=self._lease_s,
            refresh_s=self._refresh_s,
            on_definitions=self._catalogue.read,
            on_crossings=self._recording.crossed,
        )
        weakref.finalize(self, _end, engine).atexit = False
        return engine

    def _found(self, wanted: Order) -> Quota:
        quota = self.definitions.get(wanted.quota_id, wanted.tenant)
        if quota is not None:
            return quota
        known = self.definitions.ids
        hint = did_you_mean(wanted.quota_id, known) if known else "none is defined"
        if not self._catalogue.read_once.done():
            hint += " (the database, which may know it, has not been heard yet)"
        raise QuotaError(f"there is no quota {wanted.quota_id!r} for {wanted.tenant!r}; {hint}")

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

    def _judged(self, look: Decision) -> Decision:
        """Return a look that is allowed only while anything is left."""
        if look.basis is _UNAVAILABLE:
            # Where it is not allowed, it is counted when it is refused.
            if look.allowed:
                self._note_unavailable(look)
        elif look.quota.enforced and look.usage >= look.quota.limit:
            return Decision(
                look.quota,
                look.key,
                look.amount,
                allowed=False,
                previous=look.usage,
                usage=look.usage,
                period_start_us=look.period_start_us,
                resets_in_s=look.resets_in_s,
                basis=look.basis,
            )
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

    def _is_last(self) -> bool:
        with self._lifecycle:
            self._users = max(0, self._users - 1)
            return not self._users

    def _reset(self) -> None:
        self._allowed = self._refused = self._allowed_unavailable = self._refused_unavailable = 0
        self._given_back = self._charged = self._asks = 0
        self._recording.reset()

    def _after_fork(self) -> None:
        """In the child, which has decided nothing yet, and which nobody has started."""
        self._users = 0
        self._lifecycle = threading.RLock()
        self._catalogue.reset()
        self._reset()


def _check_times(**times: float) -> None:
    for name, seconds in times.items():
        # Every comparison with NaN is false, so this one is written to fail then.
        if not isinstance(seconds, int | float) or not 0 < seconds <= threading.TIMEOUT_MAX:
            raise SettingsError(f"{name} must be a number of seconds above 0, not {seconds!r}")


def _question(wanted: Order) -> tuple[Quota, Key]:
    """Return what to ask the database when it is to be asked anything at all."""
    return Quota(wanted.quota_id, 0), Key(wanted.quota_id, wanted.tenant, "")


def _end(counter: Counter) -> None:
    """Let a counter end whose quotas nobody has any more, on whatever thread that is found out."""
    if sys.is_finalizing():
        return  # the thread would never run, and its start would wait for ever
    with suppress(RuntimeError):  # no more threads: the process ends, and the counter by itself
        threading.Thread(target=counter.close, name="auditlog.quotas_end", daemon=True).start()


def _reset_all() -> None:
    for quotas in list(_instances):
        quotas._after_fork()


_instances: "weakref.WeakSet[Quotas]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_reset_all)
