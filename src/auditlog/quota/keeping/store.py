"""Quotas in the database: laid down, changed and taken away; each deed leaves a row in the trail.

Blocking; for the command line and for jobs. Processes read the same table and take what is set
within seconds. A change and its row in the trail are one transaction, and two changes wait for each
other, so that none is made upon what another one has just replaced.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import Connection, Transaction
from psycopg.rows import dict_row

from auditlog import evidence
from auditlog.capture.policy.rules import did_you_mean
from auditlog.errors import QuotaError
from auditlog.quota.definitions.rows import (
    DEFINITIONS,
    EVERY_TENANT,
    changed_at,
    document,
    quota_from,
    row_from,
    values_from,
)
from auditlog.quota.keeping.statements import statement
from auditlog.quota.model import Quota

AGGREGATE = "auditlog.quota"

# Conflicts with itself, and with no reader.
_LOCK = b"LOCK TABLE logstore.quotas IN SHARE ROW EXCLUSIVE MODE"
_REMOVE = b"DELETE FROM logstore.quotas WHERE quota_id = %s AND instance_id = %s"


@dataclass(frozen=True, slots=True)
class StoredQuota:
    """A row of `logstore.quotas`."""

    values: Mapping[str, Any]
    """By field of `Quota`, whether or not they can work."""
    quota: Quota | None
    problem: str | None
    """Why there is no quota: what is wrong with the values, and what mends it."""
    changed_at: datetime | None
    changed_by: str

    @property
    def id(self) -> str:
        """Name of the quota."""
        return str(self.values["id"])

    @property
    def tenant(self) -> str | None:
        """Whom it is for; None: everybody."""
        tenant: str | None = self.values["tenant"]
        return tenant


def stored(conn: Connection[Any]) -> list[StoredQuota]:
    """Return every quota that is laid down, by name, the one for all tenants before their own.

    Raises:
        psycopg.Error: they cannot be read.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return [_stored(row) for row in cursor.execute(DEFINITIONS).fetchall()]


def find(found: list[StoredQuota], quota_id: str, tenant: str | None) -> StoredQuota | None:
    """Return the quota of that name, of exactly that tenant, or for all; None if there is none."""
    its = (each for each in found if (each.id, each.tenant) == (quota_id, tenant))
    return next(its, None)


def named(found: list[StoredQuota], quota_id: str, tenant: str | None) -> StoredQuota:
    """Do what `find` does.

    Raises:
        QuotaError: there is none.
    """
    if its := find(found, quota_id, tenant):
        return its
    whose = f"for tenant {tenant!r}" if tenant else "for all tenants"
    names = sorted({each.id for each in found if each.tenant == tenant})
    hint = did_you_mean(quota_id, names) if names else "there is none at all"
    raise QuotaError(f"the database has no quota {quota_id!r} {whose}; {hint}")


@contextmanager
def alone(conn: Connection[Any]) -> Iterator[Transaction]:
    """Be the only one who changes quotas, in a transaction; processes go on reading them."""
    with conn.transaction() as transaction:
        conn.execute(_LOCK)
        yield transaction


def values_before(
    found: list[StoredQuota],
    quota_id: str,
    tenant: str | None = None,
    *,
    otherwise: Quota | None = None,
) -> dict[str, Any]:
    """Return, by field, what stays of a quota where nothing else is said.

    Args:
        found: What is stored; read within `alone` if it is to be `put`.
        quota_id: Its name.
        tenant: Whom it is for; None: everybody.
        otherwise: One that is defined elsewhere, for the first one of that name. A tenant's first
            one is before that as the one for all tenants.
    """
    of_id = {each.tenant: each.values for each in found if each.id == quota_id}
    elsewhere = asdict(otherwise) if otherwise else {}
    base = of_id.get(tenant) or of_id.get(None) or elsewhere
    return {**base, "id": quota_id, "tenant": tenant}


def put(
    conn: Connection[Any], quota: Quota, *, by: str | None = None
) -> Literal["set", "unchanged"]:
    """Lay a quota down, in place of the one of that name for the same tenant.

    Args:
        conn: Of a role that may write `logstore.quotas`, and record what it does.
        quota: As it is to be.
        by: The person; None: the login.

    Raises:
        psycopg.Error: it is not set.
    """
    with alone(conn):
        old = find(stored(conn), quota.id, quota.tenant)
        before, after = old and document(old.values), document(asdict(quota))
        if before == after:
            return "unchanged"
        conn.execute(statement("quota_put"), {**row_from(quota), "by": by})
        what = _difference(before, after) if before else f"a limit of {quota.limit}"
        _record(
            conn,
            "audit.quota.set",
            quota.id,
            what,
            tenant=quota.tenant,
            before=before,
            after=after,
            by=by,
        )
    return "set"


def remove(
    conn: Connection[Any], quota_id: str, tenant: str | None = None, *, by: str | None = None
) -> StoredQuota:
    """Take a quota away; what an application says under that name applies again.

    Args:
        conn: Of a role that may write `logstore.quotas`, and record what it does.
        quota_id: Its name.
        tenant: Whom it is for; None: everybody.
        by: The person; None: the login.

    Raises:
        QuotaError: there is none.
        psycopg.Error: it is not removed.
    """
    with alone(conn):
        removed = named(stored(conn), quota_id, tenant)
        conn.execute(_REMOVE, [removed.id, removed.tenant or EVERY_TENANT])
        before = document(removed.values)
        what = f"its limit was {before['limit']}"
        _record(
            conn,
            "audit.quota.removed",
            quota_id,
            what,
            tenant=tenant,
            before=before,
            after=None,
            by=by,
        )
    return removed


def _stored(row: Mapping[str, Any]) -> StoredQuota:
    try:
        quota, problem = quota_from(row), None
    except QuotaError as error:
        quota, problem = None, str(error)
    return StoredQuota(values_from(row), quota, problem, changed_at(row), row["changed_by"])


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    changed = [name for name in after if before[name] != after[name]]
    return ", ".join(f"{name} from {before[name]} to {after[name]}" for name in changed)


def _record(conn: Connection[Any], event: str, quota_id: str, detail: str, **metadata: Any) -> None:
    whose = f"tenant {metadata['tenant']}" if metadata["tenant"] else "all tenants"
    evidence.record(
        conn,
        event,
        (AGGREGATE, quota_id),
        f"the quota {quota_id} of {whose} was {event.rpartition('.')[2]}: {detail}",
        **metadata,
    )
