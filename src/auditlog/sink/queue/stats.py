"""What the sink knows about itself: a snapshot of its counters, and a verdict on its health.

The invariant, true in every snapshot: `submitted = written + pending + spooled + dropped +
dead_lettered`. The counters behind it are kept by the buffer, under the lock that moves the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class LossReason(StrEnum):
    """Why a record was given up. Each is counted, and none happens without a log line."""

    CAPTURE = "capture"
    OVERFLOW = "overflow"
    UNENCODABLE = "unencodable"
    REJECTED = "rejected"
    SHUTDOWN = "shutdown"
    DAMAGED = "damaged"


class HealthStatus(StrEnum):
    """`ok`: rows flow. `degraded`: rows wait, or will, or were lost just now. `failed`: act."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Health:
    """A verdict with its reason and what mends it; both empty when all is well."""

    status: HealthStatus = HealthStatus.OK
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """One consistent reading. What waits, as `queued`, rises and falls; all else only grows."""

    submitted: int = 0
    written: int = 0
    queued: int = 0
    in_flight: int = 0
    spooled: int = 0
    dead_lettered: int = 0
    dropped_by_reason: Mapping[str, int] = field(default_factory=dict)
    queued_bytes: int = 0
    batches: int = 0
    retries: int = 0
    recovered: int = 0
    """Rows that another process left in the spool, and this one has brought home."""
    refused: int = 0
    """Requests refused because their rows could not be committed in time."""

    @property
    def pending(self) -> int:
        """Rows accepted and not yet committed: in the queue, or in a batch under way."""
        return self.queued + self.in_flight

    @property
    def dropped(self) -> int:
        """Rows lost, for whatever reason."""
        return sum(self.dropped_by_reason.values())
