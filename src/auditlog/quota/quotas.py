"""`Quotas`: the door to what is limited, for handlers, middleware and interceptors.

    quotas = Quotas(audit, [Quota("exports", limit=10, period="day", counts="reported")])

    async with quotas.spend("exports"):
        ...

It knows the definitions and who spends; what it decides by is in `deciding`. It begins with the
first spending, in the process and on the loop that serves, or with `start`. Once it is forgotten,
its counters end by themselves.
"""

import os
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from auditlog.capture.policy.rules import did_you_mean
from auditlog.capture.recorder import Recorder
from auditlog.errors import QuotaError, SettingsError
from auditlog.quota.counter import Counter
from auditlog.quota.deciding.callback import OnCrossed
from auditlog.quota.deciding.decisions import Deciding
from auditlog.quota.deciding.order import Order, order
from auditlog.quota.deciding.spending import Spending
from auditlog.quota.definitions.catalogue import Catalogue
from auditlog.quota.definitions.defined import Definitions
from auditlog.quota.engine import Engine
from auditlog.quota.model import MAX_UNITS, Basis, Decision, Key, Quota


class Quotas(Deciding):
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
        self._timeout_s = timeout_s
        self._refresh_s = refresh_s
        self._lease_s = lease_s
        self._catalogue = Catalogue(audit, quotas, file)
        self._users = 0
        self._lifecycle = threading.RLock()
        super().__init__(audit, on_crossed)
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
            look = await self._counter.look(*_question(wanted))
            if look.basis is not Basis.UNAVAILABLE:
                await self._catalogue.heard(self._timeout_s)
        quota = quota or self._found(wanted)
        key = wanted.key(quota, self.recorder.settings)
        return await self.decide(quota, key, wanted.amount, wanted.actor)

    def carry_out_in_thread(self, wanted: Order) -> Decision:
        """Do what `carry_out` does, from a thread without an event loop; blocks."""
        quota = self.definitions.get(wanted.quota_id, wanted.tenant)
        if quota is None and not self._catalogue.read_once.done():
            look = self._counter.look_in_thread(*_question(wanted))
            if look.basis is not Basis.UNAVAILABLE:
                self._catalogue.heard_in_thread(self._timeout_s)
        quota = quota or self._found(wanted)
        key = wanted.key(quota, self.recorder.settings)
        return self.decide_in_thread(quota, key, wanted.amount, wanted.actor)

    async def start(self) -> None:
        """Begin on the running loop. May be nested.

        It waits for the database, for `connect_timeout_s` at most: then its definitions are known.
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

    def _is_last(self) -> bool:
        with self._lifecycle:
            self._users = max(0, self._users - 1)
            return not self._users

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
        threading.Thread(target=counter.close, name="auditlog.ending", daemon=True).start()


def _reset_all() -> None:
    for quotas in list(_instances):
        quotas._after_fork()


_instances: "weakref.WeakSet[Quotas]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_reset_all)
