"""`Quotas`: the door to what is limited, for handlers, middleware and interceptors.

    quotas = Quotas(audit, [Quota("exports", limit=10, period="day", counts="reported", per="user")])

    async with quotas.spend("exports"):
        ...

It knows the definitions, has the counters decide, and tells the log. It begins with the first
spending, in the process and on the loop that serves, or with `start`.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Self

from auditlog.capture.application.surroundings import surroundings
from auditlog.capture.context import current
from auditlog.capture.policy.rules import did_you_mean
from auditlog.capture.recorder import Recorder
from auditlog.errors import QuotaError
from auditlog.quota.counter import Counter
from auditlog.quota.definitions import Definitions
from auditlog.quota.model import MAX_UNITS, Actor, Basis, Crossing, Decision, Key, Per, Quota
from auditlog.quota.recording import OnCrossed, Recording
from auditlog.quota.rows import quota_from
from auditlog.quota.spending import Spending
from auditlog.quota.stats import QuotaStats

NOBODY = Actor()
_UNAVAILABLE = Basis.UNAVAILABLE


class Quotas:
    """The quotas of one application.

    Args:
        audit: The log to which decisions go; its DSN is that of the counters too.
        quotas: What is limited. The database may say otherwise (`auditlog quota set`).
        file: A TOML file with more of them.
        on_crossed: Called when a threshold was crossed; a plain function is called in a thread.
        timeout_s: How long a decision waits for the database, in seconds.
        refresh_s: How often definitions are read from the database.
        lease_s: For about how long a process takes units in advance.

    Raises:
        QuotaError: one that cannot work, or is defined twice.
        SettingsError: the log has no database.
    """

    def __init__(
        self,
        audit: Recorder,
        quotas: Iterable[Quota] = (),
        *,
        file: str | PathLike[str] | None = None,
        on_crossed: OnCrossed | None = None,
        timeout_s: float = 0.5,
        refresh_s: float = 5.0,
        lease_s: float = 1.0,
    ) -> None:
        self.recorder = audit
        self._own = (*quotas, *_of_file(file))
        self.definitions = Definitions(self._own)
        """What applies at the moment; replaced as a whole when the database says otherwise."""
        self._recording = Recording(audit, on_crossed)
        self._counter = self._make_counter(timeout_s, refresh_s, lease_s)
        self._try_now = self._counter.try_now
        self._allowed = self._refused = self._allowed_unavailable = self._refused_unavailable = 0
        self._given_back = self._charged = self._asks = 0

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
            subject: Whose usage it is, where the quota is per something else than those.
            action: On what, for the rows that tell of it.

        Raises:
            QuotaError: there is no such quota, or it is not known whose usage it is.
        """
        if type(amount) is not int or not 0 <= amount <= MAX_UNITS:
            raise QuotaError(f"amount must be a whole number from 0 to {MAX_UNITS}, not {amount!r}")
        known = surroundings()
        user = _text(user_id, known.user_id)
        owner = _text(resource_owner, known.resource_owner)
        tenant = _text(instance_id, known.instance_id) or self.recorder.settings.instance_id
        quota = self.get(quota_id, tenant)
        if subject is None:
            subject = _subject(quota, user, owner)
        key = Key(quota.id, tenant, subject)
        return Spending(self, quota, key, amount, Actor(user, owner, action))

    def get(self, quota_id: str, tenant: str) -> Quota:
        """Return the quota of a name that applies to a tenant.

        Raises:
            QuotaError: there is none.
        """
        quota = self.definitions.get(quota_id, tenant)
        if quota is None:
            known = self.definitions.ids
            hint = did_you_mean(quota_id, known) if known else "none is defined"
            raise QuotaError(f"there is no quota {quota_id!r} for the tenant {tenant!r}; {hint}")
        return quota

    async def decide(
        self, quota: Quota, key: Key, amount: int, actor: Actor = NOBODY
    ) -> Decision:
        """Spend, and tell; a refusal is a decision like any other. Never raises.

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
        """Tell the usage, and spend nothing. Allowed means that at least one unit is left.

        For what is charged afterwards: where it is not allowed, `refuse` makes it known.
        """
        return await self._counter.look(quota, key)

    def look_in_thread(self, quota: Quota, key: Key) -> Decision:
        """Do what `look` does, from a thread without an event loop; blocks."""
        return self._counter.look_in_thread(quota, key)

    def refuse(self, decision: Decision, actor: Actor = NOBODY) -> None:
        """Count and record a refusal that a look has led to."""
        self._note(decision, actor)

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
        """Begin on the running loop. May be nested."""
        await self._counter.start()

    async def aclose(self) -> None:
        """Undo one `start`; the last one gives back what the process holds. Before the log's."""
        await self._counter.aclose()

    def close(self) -> None:
        """Do what `aclose` does, from code without a loop; blocks."""
        self._counter.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_counter(self, timeout_s: float, refresh_s: float, lease_s: float) -> Counter:
        """Make what counts. Called once, from the constructor; the rest of it is there by then."""
        from auditlog.quota.engine import Engine  # noqa: PLC0415

        return Engine(
            self.recorder.settings,
            self.recorder.reporter,
            timeout_s=timeout_s,
            lease_s=lease_s,
            refresh_s=refresh_s,
            on_definitions=self._on_definitions,
            on_crossings=self._on_crossings,
        )

    def _on_definitions(self, rows: Sequence[Mapping[str, Any]]) -> None:
        stored = []
        for row in rows:
            try:
                stored.append(quota_from(row))
            except QuotaError as error:
                self.recorder.reporter.report("auditlog.quota_invalid", str(error))
        self.definitions = Definitions(self._own, stored)

    async def _on_crossings(self, crossings: Sequence[Crossing]) -> list[str]:
        return await self._recording.crossed(crossings)

    def _note(self, decision: Decision, actor: Actor) -> None:
        """Count a decision, and tell of it where that is called for."""
        # Each of the additions is one step of the interpreter: nothing is called within it.
        if decision.allowed:
            self._allowed += 1
            if decision.quota.log_allowed:
                self._recording.decided(decision, actor)
        else:
            self._refused += 1
            self._recording.decided(decision, actor)
        if decision.basis is _UNAVAILABLE:
            self._note_unavailable(decision)

    def _note_unavailable(self, decision: Decision) -> None:
        if decision.allowed:
            self._allowed_unavailable += 1
        else:
            self._refused_unavailable += 1
        policy = decision.quota.on_unavailable
        holder = current.get()
        if holder is not None:
            holder.metadata["audit.quota_unavailable"] = policy
        self.recorder.reporter.report(
            "auditlog.quota_unavailable",
            f"the database did not answer in time: the quota {decision.quota.id!r} is {policy}"
            " (on_unavailable)",
        )


def _of_file(file: str | PathLike[str] | None) -> tuple[Quota, ...]:
    if file is None:
        return ()
    from auditlog.quota.file import load  # noqa: PLC0415

    return load(file)


def _text(said: object, known: str | None) -> str | None:
    return known if said is None else str(said)


def _subject(quota: Quota, user: str | None, owner: str | None) -> str:
    parts = {Per.TENANT: "", Per.USER: user, Per.ORGANISATION: owner}
    for per in quota.per:
        if not parts.get(per) and per is not Per.TENANT:
            raise QuotaError(f"TODO {per}")
    return "/".join(str(parts[per]) for per in quota.per if per is not Per.TENANT)
