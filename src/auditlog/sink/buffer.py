"""Encoded tuples waiting to be shipped: bounded by rows and by bytes, safe from any thread.

`put` takes a tuple and hands back what was lost for it; `take` hands out a batch, which counts as
in flight until it is `settle`d. Rows and counters move under one lock, so every snapshot adds
up. The buffer does no I/O and no waiting: it tells by a callback when a batch is worth taking.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import uuid_utils

from auditlog.settings import Settings
from auditlog.sink.stats import LossReason, Stats
from auditlog.tables import TABLES

BACKLOG_FACTOR = 4
"""How many batches a backlog is shipped in one: 7.7 µs a row instead of 10.2 (2026-11-24).

Not more: a batch is joined and hashed on the loop, and 4 000 rows hold it up for two milliseconds.
"""


@dataclass(slots=True)
class Batch:
    """Rows that are written in one transaction, under one identity."""

    rows: list[list[bytes]]
    """Tuples by table, in the order of `TABLES`."""
    batch_id: UUID = field(default_factory=lambda: UUID(bytes=uuid_utils.uuid7().bytes))

    @property
    def size(self) -> int:
        """How many rows."""
        return sum(map(len, self.rows))

    def halves(self) -> tuple["Batch", "Batch"]:
        """Split in two, each with a new identity: the old one was rolled back."""
        first, second = Batch([]), Batch([])
        left = self.size // 2
        for rows in self.rows:
            first.rows.append(rows[:left])
            second.rows.append(rows[left:])
            left -= len(first.rows[-1])
        return first, second


class Buffer:
    """The queue. `put`, `drop` and `snapshot` may be called from any thread."""

    def __init__(self, settings: Settings, on_due: Callable[[], None]) -> None:
        """Make an empty buffer.

        Args:
            settings: The bounds, and the sizes that make a batch due.
            on_due: Called, outside the lock, when the first row arrives after silence and when
                a batch is full; must not block.
        """
        self._settings = settings
        self._on_due = on_due
        # Re-entrant: a signal handler may submit while this very thread is inside `put`.
        self._lock = threading.RLock()
        # By table, and within each by priority: high first.
        self._queues: list[tuple[deque[bytes], deque[bytes]]] = [(deque(), deque()) for _ in TABLES]
        self._queued = 0
        self._queued_bytes = 0
        self._in_flight = 0
        self._in_flight_bytes = 0
        # What the queue may still grow by; what is in flight takes room as well.
        self._rows_left = settings.max_queued_rows
        self._bytes_left = settings.max_queued_bytes
        self._batch_rows = settings.batch_rows
        self._batch_bytes = settings.batch_bytes
        self._oldest_at = 0.0
        self._submitted = 0
        self._written = 0
        self._dropped: dict[str, int] = {}

    def put(self, table: int, row: bytes, low_priority: bool) -> Sequence[bytes]:
        """Queue a tuple; return the tuples lost by that, which may include this one."""
        size = len(row)
        lost: Sequence[bytes] = ()
        # Whatever the application put there: nothing below may fail halfway.
        low_priority = low_priority is True
        with self._lock:
            self._submitted += 1
            if self._rows_left <= 0 or self._bytes_left < size:
                lost = self._make_room(row, low_priority=low_priority)
                if lost and lost[-1] is row:
                    return lost
            self._queues[table][low_priority].append(row)
            self._rows_left -= 1
            self._bytes_left -= size
            queued = self._queued = self._queued + 1
            before = self._queued_bytes
            self._queued_bytes = before + size
            if queued == 1:
                self._oldest_at = time.monotonic()
            elif queued != self._batch_rows and not (
                before < self._batch_bytes <= self._queued_bytes
            ):
                return lost
        self._on_due()
        return lost

    def drop(self, reason: LossReason) -> None:
        """Count a record that never became a tuple."""
        with self._lock:
            self._submitted += 1
            self._count_dropped(reason, 1)

    def take(self) -> Batch | None:
        """Hand out the next batch, denied and failed requests first; None when empty."""
        with self._lock:
            if not self._queued:
                return None
            factor = min(max(1, self._queued // self._batch_rows), BACKLOG_FACTOR)
            limit_rows, limit_bytes = self._batch_rows * factor, self._batch_bytes * factor
            batch = Batch([[] for _ in TABLES])
            if self._queued <= limit_rows and self._queued_bytes <= limit_bytes:
                self._take_all(batch)
                return batch
            rows = size = 0
            for priority in (0, 1):
                for queues, taken in zip(self._queues, batch.rows, strict=True):
                    queue = queues[priority]
                    while queue and rows < limit_rows and size < limit_bytes:
                        row = queue.popleft()
                        taken.append(row)
                        rows += 1
                        size += len(row)
            self._move_to_flight(rows, size)
            return batch

    def settle(self, batch: Batch, reason: LossReason | None = None) -> None:
        """Count a batch as written, or with a reason as dropped."""
        rows = batch.size
        size = sum(len(row) for rows_of_table in batch.rows for row in rows_of_table)
        with self._lock:
            self._in_flight -= rows
            self._in_flight_bytes -= size
            self._rows_left += rows
            self._bytes_left += size
            if reason is None:
                self._written += rows
            else:
                self._count_dropped(reason, rows)

    def drop_queued(self, reason: LossReason) -> int:
        """Give up everything that is queued; return how many rows that were."""
        with self._lock:
            rows = self._queued
            for queues in self._queues:
                for queue in queues:
                    queue.clear()
            self._rows_left += self._queued
            self._bytes_left += self._queued_bytes
            self._queued = self._queued_bytes = 0
            self._count_dropped(reason, rows)
            return rows

    def seconds_until_due(self) -> float | None:
        """How long the next batch may still wait; 0 when it is full or old, None when empty."""
        with self._lock:
            if not self._queued:
                return None
            if self._queued >= self._batch_rows or self._queued_bytes >= self._batch_bytes:
                return 0.0
            return max(0.0, self._oldest_at + self._settings.batch_age_s - time.monotonic())

    def snapshot(self) -> Stats:
        """Read all counters at one instant."""
        with self._lock:
            return Stats(
                submitted=self._submitted,
                written=self._written,
                queued=self._queued,
                in_flight=self._in_flight,
                dropped_by_reason=dict(self._dropped),
                queued_bytes=self._queued_bytes + self._in_flight_bytes,
            )

    def _make_room(self, row: bytes, *, low_priority: bool) -> list[bytes]:
        """Evict the oldest unimportant rows for an important one, else refuse the row."""
        size = len(row)
        lost: list[bytes] = []
        if not low_priority and self._settings.on_overflow == "drop_low_priority":
            lost = self._evict(size)
        if self._rows_left <= 0 or self._bytes_left < size:
            lost.append(row)
        self._count_dropped(LossReason.OVERFLOW, len(lost))
        return lost

    def _evict(self, size: int) -> list[bytes]:
        """Take out as many unimportant rows as make room; none, if all of them would not."""
        rows_left, bytes_left = self._rows_left, self._bytes_left
        counts = []
        for _, low in self._queues:
            count = 0
            for victim in low:
                if rows_left > 0 and bytes_left >= size:
                    break
                count += 1
                rows_left += 1
                bytes_left += len(victim)
            counts.append(count)
        if bytes_left < size:
            return []
        lost = [
            low.popleft()
            for (_, low), count in zip(self._queues, counts, strict=True)
            for _ in range(count)
        ]
        self._queued -= rows_left - self._rows_left
        self._queued_bytes -= bytes_left - self._bytes_left
        self._rows_left, self._bytes_left = rows_left, bytes_left
        return lost

    def _take_all(self, batch: Batch) -> None:
        for queues, taken in zip(self._queues, batch.rows, strict=True):
            for queue in queues:
                taken.extend(queue)
                queue.clear()
        self._move_to_flight(self._queued, self._queued_bytes)

    def _move_to_flight(self, rows: int, size: int) -> None:
        self._queued -= rows
        self._queued_bytes -= size
        self._in_flight += rows
        self._in_flight_bytes += size
        # What stays is younger than what went: its clock starts now.
        self._oldest_at = time.monotonic()

    def _count_dropped(self, reason: LossReason, rows: int) -> None:
        if rows:
            self._dropped[reason] = self._dropped.get(reason, 0) + rows
