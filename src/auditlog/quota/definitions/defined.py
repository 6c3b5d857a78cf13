"""The quotas that apply, from all the places where they may be laid down. Immutable.

What is in the database goes before what the code or a file says about the same quota and tenant;
one for a tenant goes before one for all. Names of tenants are spelled as in the rows of the trail.
"""

from collections import Counter
from collections.abc import Iterable

from auditlog.errors import QuotaError
from auditlog.quota.model import Counts, Quota


class Definitions:
    """What is limited, by name and tenant. Asked for the same, it gives the same object.

    Args:
        own: Those of the application, from its code and its file.
        stored: Those of the database.

    Raises:
        QuotaError: the application's name one twice.
    """

    __slots__ = ("_automatic", "_for_all", "_for_others", "_for_tenant")

    def __init__(self, own: Iterable[Quota], stored: Iterable[Quota] = ()) -> None:
        own = tuple(own)
        _refuse_twins(own)
        chosen = {(quota.id, quota.tenant): quota for quota in (*own, *stored)}
        self._for_all: dict[str, Quota] = {}
        self._for_tenant: dict[str, dict[str, Quota]] = {}
        for quota in chosen.values():
            self._place_of(quota)[quota.id] = quota
        self._for_others = _automatic(self._for_all)
        # Only of tenants with a quota of their own, so it cannot grow by whoever asks.
        self._automatic: dict[str, tuple[Quota, ...]] = {}

    @property
    def ids(self) -> list[str]:
        """Every name there is, in alphabetical order."""
        everywhere = [self._for_all, *self._for_tenant.values()]
        return sorted({name for quotas in everywhere for name in quotas})

    def get(self, quota_id: str, tenant: str) -> Quota | None:
        """Return the quota of a name that applies to a tenant; None if there is none."""
        own = self._for_tenant.get(tenant)
        if own is not None and quota_id in own:
            return own[quota_id]
        return self._for_all.get(quota_id)

    def automatic(self, tenant: str) -> tuple[Quota, ...]:
        """Return the quotas of a tenant that count by themselves, without a handler's report."""
        own = self._for_tenant.get(tenant)
        if own is None:
            return self._for_others
        found = self._automatic.get(tenant)
        if found is None:
            found = self._automatic[tenant] = _automatic({**self._for_all, **own})
        return found

    def _place_of(self, quota: Quota) -> dict[str, Quota]:
        if quota.tenant is None:
            return self._for_all
        return self._for_tenant.setdefault(quota.tenant, {})


def _automatic(quotas: dict[str, Quota]) -> tuple[Quota, ...]:
    return tuple(quota for quota in quotas.values() if quota.counts is not Counts.REPORTED)


def _refuse_twins(quotas: Iterable[Quota]) -> None:
    for (name, tenant), times in Counter((quota.id, quota.tenant) for quota in quotas).items():
        if times > 1:
            whom = "every tenant" if tenant is None else f"the tenant {tenant!r}"
            raise QuotaError(f"the quota {name!r} for {whom} is defined {times} times; keep one")
