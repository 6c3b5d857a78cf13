"""What an application's quotas know about themselves: a snapshot of their counters."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuotaStats:
    """One reading, of this process since it began. All of it only grows."""

    allowed: int = 0
    refused: int = 0
    allowed_unavailable: int = 0
    """Of those allowed, how many without the database, which did not answer."""
    refused_unavailable: int = 0
    """Of those refused, likewise."""
    given_back: int = 0
    """Spendings that were taken back."""
    charged: int = 0
    """Spendings that were added afterwards, whatever the limit."""
    crossings: int = 0
    """Thresholds that this process has told."""
    crossings_failed: int = 0
    """Calls of the application's callback that raised, or took too long."""
    asks: int = 0
    """Decisions that had to wait for the database; the others were made with units at hand."""
