"""Where records are appended: the last segment of this process's own lane.

`append` is on the way of every request, so that it does one thing: put a frame together and hand
it to the kernel in one call. Everything that is seldom needed is behind one comparison.

Any thread may append, and so may a signal handler, in the middle of an append of its own thread;
the lock lets it in. Signals arrive at calls only. Number and place of a record are therefore
reserved together, with no call between, and a frame whose number was given away while it was put
together is put together again. Whatever is made by several calls, a lane or a segment, is made
aside, and thrown away if another is there by then.
"""

import errno
import os
import threading
import time
from contextlib import suppress
from zlib import crc32

from auditlog.reporting import Reporter, describe
from auditlog.sink.spool.backlog import Backlog
from auditlog.sink.spool.lane import Lane
from auditlog.sink.spool.layout import (
    FRAME_BYTES,
    FRAME_MAGIC,
    MAX_TUPLE_BYTES,
    Header,
    pack_frame_head,
    pack_frame_sums,
    pack_header,
)
from auditlog.sink.spool.losses import Losses
from auditlog.sink.spool.segment import Segment, segment_path
from auditlog.sink.spool.syncing import OnDurable, Syncer, Work

SEGMENT_BYTES = 8 * 1024 * 1024
"""Where a segment ends and the next begins: what is settled is freed by whole segments."""
RETRY_S = 0.1
"""So long nothing is tried after a failure: a full disk must not cost a system call a request."""
SEGMENTS_OF_CAP = 8
"""A small cap has smaller segments, so that freeing one makes room that counts."""
MIN_SEGMENT_BYTES = 64 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)
_pwrite = os.pwrite


class Tail:
    """The writing end of a spool."""

    def __init__(
        self,
        directory: str,
        *,
        max_bytes: int,
        delay_s: float | None,
        writer: str,
        losses: Losses,
        reporter: Reporter,
    ) -> None:
        """Make a tail; nothing is opened yet.

        Args:
            directory: The spool's.
            max_bytes: What the files may take.
            delay_s: How long records are gathered for an fdatasync; None: there is none.
            writer: Names this process in the headers.
            losses: For the lane's backlog.
            reporter: Told of failures.
        """
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = min(
            SEGMENT_BYTES, max(MIN_SEGMENT_BYTES, max_bytes // SEGMENTS_OF_CAP)
        )
        self._writer = writer
        self._losses = losses
        self._reporter = reporter
        self._syncs = delay_s is not None
        self.syncer = Syncer(self._collect, self._give_up_segment, delay_s or 0.0, reporter)
        self.failing = ""
        self._reset()

    def _reset(self) -> None:
        """Begin anew, without a lane."""
        self.lock = threading.RLock()
        self.lane: Lane | None = None
        self.backlog: Backlog | None = None
        self.credit = 0
        """Bytes that may be written beyond the cap, as others were freed; less what was adopted."""
        self.read_number = 0
        """The number of the first record that was not taken yet."""
        self.oldest_at = 0.0
        """`time.monotonic` when that record came."""
        self.number = 0
        """Of the record to come."""
        self.written = 0
        """Bytes of all segments of this lane, from the first on."""
        self._segment: Segment | None = None
        self._descriptor = -1
        self._seed = 0
        # What `written` was where the segment begins.
        self._base = 0
        # Up to which `written` may grow without a look at anything else.
        self._easy = 0
        self._next_segment = 1
        self._retry_at = 0.0
        self._is_dirty = False
        self._on_durable: list[OnDurable] = []
        self._unsynced: list[int] = []
        self._new_folders: list[str] = []

    def append(
        self, table: int, row: bytes, low_priority: bool, on_durable: OnDurable | None = None
    ) -> bool:
        """Hand a tuple to the kernel; see `Spool.append`."""
        length = len(row)
        size = length + FRAME_BYTES
        must_sync = False
        with self.lock:
            if self.written + size > self._easy and not self._make_room(size, low_priority):
                return False
            number = self.number
            seed = self._seed
            head = pack_frame_head(FRAME_MAGIC, table, low_priority is True, length, number)
            head_sum = crc32(head, seed)
            frame = head + pack_frame_sums(head_sum, crc32(row, head_sum)) + row
            if number != self.number or seed != self._seed:
                return self.append(table, row, low_priority, on_durable)
            if number == self.read_number:
                self.oldest_at = time.monotonic()
            # From here to the write there is no other call.
            self.number = number + 1
            offset = self.written - self._base
            self.written += size
            try:
                if _pwrite(self._descriptor, frame, offset) != size:
                    return self._take_back(number, size, OSError(errno.ENOSPC, "disk full"))
            except OSError as error:
                return self._take_back(number, size, error)
            if self._syncs:
                if on_durable is not None:
                    self._on_durable.append(on_durable)
                if not self._is_dirty:
                    must_sync = not self.syncer.wake()
                    self._is_dirty = True
        if must_sync:
            self.syncer.run()
        elif not self._syncs and on_durable is not None:
            on_durable(True)
        return True

    def state(self) -> tuple[Segment | None, int, int]:
        """Return the last segment, its length, and the number of the record to come."""
        with self.lock:
            return self._segment, self.written - self._base, self.number

    def set_credit(self, credit: int) -> None:
        """Say how much more, or less, may be written than the cap."""
        with self.lock:
            if credit < self.credit:
                self._easy = 0
            self.credit = credit

    def retire(self, number: int) -> None:
        """End the last segment, if it is of some size and nothing came since a number."""
        with self.lock:
            enough = self.written - self._base > self._segment_bytes // 2
            if enough and self.number == number:
                self._give_up_segment()

    def close(self) -> Lane | None:
        """Let go of the lane, and return it; the next append makes another."""
        with self.lock:
            self._give_up_segment()
            lane, unsynced = self.lane, self._unsynced
            self._reset_lane()
        for descriptor in unsynced:
            _close(descriptor)
        return lane

    def forget(self) -> None:
        """Close everything in a forked child, whose locks may be held for ever."""
        for descriptor in (*self._unsynced, self._descriptor):
            _close(descriptor)
        if self.backlog is not None:
            self.backlog.close()
        if self.lane is not None:
            self.lane.abandon()
        self._reset()
        self.syncer.forget()

    def _reset_lane(self) -> None:
        lock = self.lock
        self._reset()
        self.lock = lock

    def _make_room(self, size: int, low_priority: bool) -> bool:
        """Find out why a record cannot simply be written, and do something about it."""
        if time.monotonic() < self._retry_at:
            return False
        if size > MAX_TUPLE_BYTES:
            return self._refuse("auditlog.spool_failed", f"a row of {size} bytes is too long")
        try:
            if self.lane is None:
                self._open_lane()
            if self._is_over_cap(size, low_priority):
                return self._refuse(
                    "auditlog.spool_full",
                    f"the spool has reached spool_max_bytes ({self._max_bytes}):"
                    " see why rows are not written to PostgreSQL, or allow more",
                )
            if not self._fits(size):
                self._open_segment()
        except OSError as error:
            return self._fail(error)
        self.failing = ""
        self._easy = min(self._base + self._segment_bytes, self._cap(low_priority=True))
        return True

    def _cap(self, *, low_priority: bool) -> int:
        """Up to which `written` may grow; the last tenth is for what is important."""
        return self._max_bytes + self.credit - (self._max_bytes // 10 if low_priority else 0)

    def _is_over_cap(self, size: int, low_priority: bool) -> bool:
        header = 0 if self._fits(size) else self._header_bytes
        return self.written + size + header > self._cap(low_priority=low_priority is True)

    def _fits(self, size: int) -> bool:
        if self._segment is None:
            return False
        used = self.written - self._base
        return used + size <= self._segment_bytes or used == self._header_bytes

    def _open_lane(self) -> None:
        lane = Lane.create(self._directory)
        backlog = Backlog(lane.name, (), self._losses, self._reporter, live=self.state)
        if self.lane is not None:
            lane.remove()
            return
        self.lane, self.backlog = lane, backlog
        self._new_folders.append(self._directory)
