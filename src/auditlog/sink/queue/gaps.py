"""What was lost and is not yet told in the trail itself: counts by reason and tenant, with times.

Bounded: past `MAX_ENTRIES` tenants are no longer told apart, and their losses add up under none.
"""

from dataclasses import dataclass, replace

MAX_ENTRIES = 1000


@dataclass(slots=True)
class Gap:
    """So many records of a tenant are missing between two instants, for a reason."""

    reason: str
    tenant: str | None
    """None: of several tenants, or of one that is not known."""
    count: int
    first_us: int
    """`log_date` of the first record lost, in microseconds since 1970; or when it was lost."""
    last_us: int
    exact: bool = True
    """False: at least so many, as where a damaged file no longer tells."""


class Gaps:
    """The losses since they were last taken. Not locked: whoever counts rows holds a lock."""

    def __init__(self) -> None:
        self._gaps: dict[tuple[str, str | None], Gap] = {}

    def __bool__(self) -> bool:
        """Tell whether anything was lost."""
        return bool(self._gaps)

    def add(self, gap: Gap) -> None:
        """Add to what is known of the same reason and tenant; the gap itself stays the caller's."""
        tenant = gap.tenant
        known = self._gaps.get((gap.reason, tenant))
        if known is None and len(self._gaps) >= MAX_ENTRIES:
            tenant = None
            known = self._gaps.get((gap.reason, None))
        if known is None:
            entry = replace(gap, tenant=tenant)
            known = self._gaps.setdefault((gap.reason, tenant), entry)
            if known is entry:
                return
            # A signal handler was faster.
        known.count += gap.count
        known.first_us = min(known.first_us, gap.first_us)
        known.last_us = max(known.last_us, gap.last_us)
        known.exact = known.exact and gap.exact

    def take(self) -> list[Gap]:
        """Hand out all of them, to be told; whoever cannot tell them adds them again."""
        gaps, self._gaps = self._gaps, {}
        return list(gaps.values())
