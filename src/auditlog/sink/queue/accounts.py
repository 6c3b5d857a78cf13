"""Where every record is: the counters that buffer, spool and writer keep together, under one lock.

One lock, so that a row that moves from one to the other is in every snapshot exactly once.
"""

import struct
import threading
import time

from auditlog.sink.encoding.tuples import log_date_of, tenant_of
from auditlog.sink.queue.gaps import Gap, Gaps
from auditlog.sink.queue.stats import LossReason


class Accounts:
    """The counters of one log. All but `lock` are read and changed while holding it."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler may submit while its thread is counting.
        self.lock = threading.RLock()
        self.submitted = 0
        self.written = 0
        self.spooled = 0
        self.dead_lettered = 0
        self.recovered = 0
        self.refused = 0
        self.dropped: dict[str, int] = {}
        self.gaps = Gaps()
        self.lost_at: float | None = None
        """When a record was last lost, by the monotonic clock."""
        self.gaps_since = 0.0
        """When the oldest loss in `gaps` was noted, likewise."""

    def lose(self, reason: LossReason, table: int, row: bytes) -> None:
        """Count a row that was submitted, and is lost."""
        self._lose(_gap_of(reason, table, row))

    def lose_all(self, reason: LossReason, rows: list[list[bytes]], *, is_own: bool = True) -> None:
        """Count rows, by table; those of other processes are told of, but were submitted there."""
        for table, rows_of_table in enumerate(rows):
            for row in rows_of_table:
                self._lose(_gap_of(reason, table, row), is_own=is_own)

    def lose_unknown(self, reason: LossReason, count: int) -> None:
        """Count records that were submitted, and of which nothing is known."""
        now_us = time.time_ns() // 1000
        self._lose(Gap(reason, None, count, now_us, now_us))

    def lose_unread(
        self, count: int, first_us: int | None, last_us: int | None, *, exact: bool, is_own: bool
    ) -> None:
        """Count records that the spool held between two others, and that are damaged."""
        now_us = time.time_ns() // 1000
        first_us = now_us if first_us is None else first_us
        last_us = max(first_us, now_us) if last_us is None else last_us
        gap = Gap(LossReason.DAMAGED, None, count, first_us, last_us, exact)
        self._lose(gap, is_own=is_own)
        if is_own:
            self.spooled -= count

    def _lose(self, gap: Gap, *, is_own: bool = True) -> None:
        if not self.gaps:
            self.gaps_since = time.monotonic()
        self.gaps.add(gap)
        self.lost_at = time.monotonic()
        if is_own:
            # Without a call between reading and writing, at which a signal handler may lose one.
            if gap.reason not in self.dropped:
                self.dropped[gap.reason] = 0
            self.dropped[gap.reason] += gap.count


def _gap_of(reason: LossReason, table: int, row: bytes) -> Gap:
    try:
        date = log_date_of(table, row)
        return Gap(reason, tenant_of(row), 1, date, date)
    except (IndexError, ValueError, struct.error):  # not a tuple, whoever made it
        now_us = time.time_ns() // 1000
        return Gap(reason, None, 1, now_us, now_us)
