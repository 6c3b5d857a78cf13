"""The words of quotas: what is limited, who spends, what was decided, what was crossed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from auditlog.errors import AuditLogError, QuotaError
from auditlog.quota.limits import periods
from auditlog.quota.limits.checks import find_problems, several
from auditlog.quota.limits.kinds import MAX_PERCENT, MAX_UNITS, REFUNDS, Counts, Per, Policy

__all__ = [
    "MAX_PERCENT",
    "MAX_UNITS",
    "REFUNDS",
    "Actor",
    "Basis",
    "Counts",
    "Crossing",
    "Decision",
    "Key",
    "Per",
    "Policy",
    "Quota",
    "QuotaExceeded",
    "milliseconds",
]


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of something each subject may use in a period, or in a window that rolls.

    Reaching the limit exactly is allowed. Lists may be given as one text.

    Raises:
        QuotaError: what cannot work, with what would.
    """

    id: str
    limit: int
    """In units of what is counted: requests, bytes, milliseconds."""
    period: str = "month"
    """From `minute` to `year`, or several, as in `15 minutes`; at most 100 years."""
    counts: Counts = Counts.REQUESTS
    per: tuple[Per, ...] = (Per.TENANT,)
    rolling: bool = False
    """A window of the period's length that ends now, instead of periods that follow each other."""
    anchor: datetime | None = None
    """When a period begins, past or future; None: 2001-01-01, a Monday, in the time zone.

    Without an offset it is the time of day in the time zone. Kept in UTC.
    """
    time_zone: str = "UTC"
    thresholds: tuple[int, ...] = ()
    """In per cent of the limit: each is told once in a period when it is reached."""
    enforced: bool = True
    """False: observed only; nothing is refused."""
    exact: bool = False
    """Ask the database for every decision, instead of taking units in advance."""
    on_unavailable: Policy = "open"
    """While the database is away: `open` allows, and counts later; `closed` refuses."""
    refunds: tuple[str, ...] = REFUNDS
    """Outcomes (`audit.outcome`) and statuses (HTTP's, or 0 to 16 of gRPC) that are given back."""
    routes: tuple[str, ...] = ()
    """Globs of the paths that count, as in a policy's rules; none: all."""
    methods: tuple[str, ...] = ()
    """Methods that count, in upper or lower case; none: all."""
    tenant: str | None = None
    """Only for this tenant, for whom it goes before one of the same id for all."""
    log_allowed: bool = False
    """Leave a row in `quota_logs` of what is allowed, too."""

    if TYPE_CHECKING:
        # What may be given is more than what is kept: one text for a list, a word for a member.
        def __init__(  # noqa: PLR0917  # as the fields, which the class documents
            self,
            id: str,  # noqa: A002  # the field's name
            limit: int,
            period: str = "month",
            counts: str = Counts.REQUESTS,
            per: str | Sequence[str] = (Per.TENANT,),
            rolling: bool = False,
            anchor: datetime | None = None,
            time_zone: str = "UTC",
            thresholds: int | Sequence[int] = (),
            enforced: bool = True,
            exact: bool = False,
            on_unavailable: Policy = "open",
            refunds: str | int | Sequence[str | int] = REFUNDS,
            routes: str | Sequence[str] = (),
            methods: str | Sequence[str] = (),
            tenant: str | None = None,
            log_allowed: bool = False,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Refuse what cannot work, and bring the rest into one form."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if problem := next(find_problems(values), None):
            raise QuotaError(f"quota {self.id!r}: {problem.field}: {problem.text}")
        per = several(self.per)
        self._set("counts", Counts(self.counts))
        # Whatever order they are given in, it is the same counter.
        self._set("per", tuple(each for each in Per if each in per))
        self._set("period", str(periods.parse(self.period)))
        self._set("thresholds", tuple(sorted(set(several(self.thresholds)))))
        self._set("refunds", _distinct(map(str, several(self.refunds))))
        self._set("routes", _distinct(several(self.routes)))
        self._set("methods", _distinct(method.upper() for method in several(self.methods)))
        if self.anchor is not None:
            self._set("anchor", periods.instant(self.anchor, self.time_zone))

    def of_instant(self, at_us: int) -> tuple[int, int]:
        """Return beginning and end of the period that an instant lies in.

        Of a rolling quota, those of the stretch of its length, counted from 1970.

        Args:
            at_us: Microseconds since 1970, UTC, as are the two returned.
        """
        if self.rolling:
            length = self.window_us
            start = at_us // length * length
            return start, start + length
        return periods.bounds(periods.parse(self.period), at_us, self.anchor, self.time_zone)

    @property
    def window_us(self) -> int:
        """Length of a rolling window, in microseconds."""
        return periods.fixed_us(periods.parse(self.period))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


class Key(NamedTuple):
    """Names one counter, but for the period."""

    quota_id: str
    instance_id: str
    subject: str


class Actor(NamedTuple):
    """Who spends, on what: for the rows that tell of it."""

    user_id: str | None = None
    resource_owner: str | None = None
    action: str | None = None


class Basis(StrEnum):
    """What a decision was founded on."""

    COUNTER = "counter"
    """The database was asked."""
    LEASE = "lease"
    """Units that the process had taken in advance."""
    REMEMBERED = "remembered"
    """A refusal of the database's, at most a second ago."""
    UNAVAILABLE = "unavailable"
    """The quota's `on_unavailable`: the database did not answer."""


class Decision:
    """What became of one spending. Not to be changed."""

    __slots__ = (
        "allowed",
        "amount",
        "basis",
        "key",
        "period_start_us",
        "previous",
        "quota",
        "resets_in_s",
        "usage",
    )

    def __init__(  # noqa: PLR0917  # one for each slot; by position it takes half the time
        self,
        quota: Quota,
        key: Key,
        amount: int,
        allowed: bool,
        previous: int,
        usage: int,
        period_start_us: int,
        resets_in_s: float,
        basis: Basis,
    ) -> None:
        self.quota = quota
        self.key = key
        self.amount = amount
        self.allowed = allowed
        self.previous = previous
        """Usage before; where units were taken in advance, as far as this process knows."""
        self.usage = usage
        """Usage after; of a refusal, the same as before."""
        self.period_start_us = period_start_us
        """Of the counter that was charged; of a rolling window, the instant. Refunds need it."""
        self.resets_in_s = resets_in_s
        """Seconds until the period ends; of a rolling window, until as much again fits, if nobody
        spends meanwhile, and its length if it fits at any time or never.
        """
        self.basis = basis

    @property
    def remaining(self) -> int:
        """Units that are left, never less than none."""
        return max(0, self.quota.limit - self.usage)

    def __repr__(self) -> str:
        """Say it in a line."""
        verdict = "allowed" if self.allowed else "refused"
        return f"<Decision {self.quota.id}: {verdict}, {self.usage} of {self.quota.limit}>"


class QuotaExceeded(AuditLogError):  # noqa: N818  # what it says is no error of the program's
    """A limit is reached; `decision` tells which. Middleware and interceptors answer with it."""

    def __init__(self, decision: Decision) -> None:
        quota_id = decision.quota.id
        super().__init__(
            f"what is left of the quota {quota_id!r} is not known, and it fails closed"
            if decision.basis is Basis.UNAVAILABLE
            else f"the quota {quota_id!r} is used up"
        )
        self.decision = decision


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold was reached: told once in a period, whichever process it happened in."""

    crossing_id: str
    """Also the `log_id` of its row; the same if it has to be told again after a crash."""
    quota_id: str
    instance_id: str
    subject: str
    period_start: datetime
    period_end: datetime
    percent: int
    previous_usage: int
    current_usage: int
    quota_limit: int
    crossed_at: datetime
    resource_owner: str | None = None
    user_id: str | None = None
    action: str | None = None
    stored_at: datetime | None = None
    """When its row was seen in `quota_logs`; None: it was not looked for, or is not there."""
    called_at: datetime | None = None
    """When the callback had returned; None until then."""


def milliseconds(length: timedelta) -> int:
    """Return a length of time as a limit of `execution_ms`."""
    return length // timedelta(milliseconds=1)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
