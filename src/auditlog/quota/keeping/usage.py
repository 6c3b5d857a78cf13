"""What is used of quotas, as the counters have it: in the periods that are running, and before.

Blocking; reads only. Units that processes have taken in advance count as used.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, tuple_row

from auditlog.quota.keeping.statements import statement
from auditlog.quota.model import Quota


@dataclass(frozen=True, slots=True)
class Usage:
    """One counter."""

    quota_id: str
    tenant: str
    subject: str
    """Within the tenant; empty for all of the tenant's."""
    used: int
    limit: int
    """What the database says, else what was last asked with; of a period that is over, then."""
    told_percent: int
    """Highest threshold that was told in the period; 0: none."""
    rolling: bool
    period_start: datetime
    period_end: datetime
    """First instant after it; of a rolling window, that of looking."""
    first_at: datetime
    last_at: datetime
    resets_in: timedelta
    """Until the period ends; of a rolling window, until the last unit has left it."""

    @property
    def percent(self) -> float | None:
        """How much of the limit is used; None: the limit is 0."""
        return round(self.used * 100 / self.limit, 1) if self.limit else None

    @property
    def remaining(self) -> int:
        """Units that are left, never less than none."""
        return max(0, self.limit - self.used)


def usage(
    conn: Connection[Any],
    *,
    quota_id: str | None = None,
    tenant: str | None = None,
    subject: str | None = None,
    over: int = 0,
    past: bool = False,
    rows: int,
) -> list[Usage]:
    """Return counters, the nearest to its limit first.

    Args:
        conn: Of a role that may read the tables of quotas.
        quota_id: Only of this quota; None: of all.
        tenant: Only of this tenant, likewise.
        subject: Only of this subject, likewise.
        over: Only those of which at least so many per cent of the limit are used.
        past: Also of periods that are over; then the newest come first.
        rows: How many, at most.

    Raises:
        psycopg.Error: they cannot be read.
    """
    parameters = {
        "quota_id": quota_id,
        "tenant": tenant,
        "subject": subject,
        "over": over,
        "past": past,
        "rows": rows,
    }
    with conn.cursor(row_factory=class_row(Usage)) as cursor:
        return cursor.execute(statement("usage"), parameters).fetchall()


def has_other_periods(conn: Connection[Any], quota: Quota) -> bool:
    """Tell whether a counter that is running has another period than this quota would give it.

    Args:
        conn: Of a role that may read the tables of quotas.
        quota: One that is set or is to be.

    Raises:
        psycopg.Error: the counters cannot be read.
    """
    parameters = {"quota_id": quota.id, "tenant": quota.tenant}
    with conn.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(statement("current_periods"), parameters).fetchall()
    return any(rolling != quota.rolling or not _fits(quota, *us) for rolling, *us in found)


def _fits(quota: Quota, start_us: int, end_us: int) -> bool:
    if quota.rolling:
        return end_us - start_us == quota.window_us
    return quota.of_instant(start_us) == (start_us, end_us)
