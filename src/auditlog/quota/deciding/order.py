"""What a handler asks for when it spends: which quota, how much, and who pays.

Who is taken from the request being served and from `bound` at the moment of the call; which
counter that is, is known when the quota's definition is.
"""

from collections.abc import Mapping
from typing import NamedTuple

from auditlog.capture.application.surroundings import surroundings
from auditlog.capture.context import current, text_of
from auditlog.capture.in_flight import InFlight
from auditlog.errors import QuotaError
from auditlog.quota.counting.counted import counting_of
from auditlog.quota.counting.subjects import fitting, named, subject_of, tenant_of
from auditlog.quota.model import Actor, Key, Per, Quota
from auditlog.settings import Settings

_ARGUMENTS = {Per.ORGANISATION: "resource_owner", Per.USER: "user_id"}
"""What says it; of the others, `subject` does."""


class Order(NamedTuple):
    """One spending, before it is known what the quota says."""

    quota_id: str
    tenant: str
    amount: int
    said: Actor
    """Who spends, as it was said: what is stored of it may be the same of two."""
    subject: str | None
    holder: InFlight | None
    """The request being served."""

    @property
    def actor(self) -> Actor:
        """Who spends, as it is stored."""
        return Actor(*(None if each is None else fitting(each) for each in self.said))

    def key(self, quota: Quota, settings: Settings) -> Key:
        """Return the counter.

        Raises:
            QuotaError: it is not known whose usage it is.
        """
        return Key(quota.id, self.tenant, self._subject(quota, settings))

    def _subject(self, quota: Quota, settings: Settings) -> str:
        parts = self._parts(quota)
        if self.subject is not None:
            if len(parts) != 1:
                return named(self.subject)
            # The same counter as that of the requests, be it a key, which is stored as a hash.
            parts = dict.fromkeys(parts, self.subject)
        subject = subject_of(quota.per, parts, settings)
        if subject is None:
            raise QuotaError(_unknown(quota, [each for each, part in parts.items() if not part]))
        return subject

    def _parts(self, quota: Quota) -> Mapping[Per, str | None]:
        known = {Per.ORGANISATION: self.said.resource_owner, Per.USER: self.said.user_id}
        holder = self.holder
        if holder is not None and Per.ADDRESS in quota.per:
            known[Per.ADDRESS] = holder.client_address()
        if holder is not None and Per.ROUTE in quota.per:
            known[Per.ROUTE] = counting_of(quota).route(holder.path, holder.protocol)
        return {each: known.get(each) for each in quota.per if each is not Per.TENANT}


def order(
    settings: Settings,
    quota_id: str,
    amount: int,
    *,
    user_id: object,
    resource_owner: object,
    instance_id: object,
    subject: str | None,
    action: str | None,
) -> Order:
    """Put an order together; what is None is taken from where the caller is.

    Args:
        settings: Name the tenant where nothing else does.
        quota_id: Which quota.
        amount: Units.
        user_id: Who.
        resource_owner: Of which organisation.
        instance_id: Of which tenant.
        subject: Whose usage it is.
        action: On what.
    """
    known = surroundings()
    holder = current.get()
    return Order(
        quota_id,
        tenant_of(_text(instance_id, known.instance_id), settings),
        amount,
        Actor(
            _text(user_id, known.user_id),
            _text(resource_owner, known.resource_owner),
            _text(action, None),
        ),
        subject,
        holder if isinstance(holder, InFlight) else None,
    )


def _text(said: object, known: str | None) -> str | None:
    return known if said is None else text_of(said)


def _unknown(quota: Quota, missing: list[Per]) -> str:
    arguments = " and ".join(dict.fromkeys(_ARGUMENTS.get(each, "subject") for each in missing))
    per = " and ".join(missing)
    return f"the quota {quota.id!r} is per {per}, which is not known here: pass {arguments}"
