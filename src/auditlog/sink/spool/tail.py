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
import sys
import threading
import time
from contextlib import suppress
from zlib import crc32

from auditlog.reporting import Reporter, describe
from auditlog.sink.spool.backlog import Backlog
from auditlog.sink.spool.lane import Lane
from auditlog.sink.spool.layout import (
    BLOCK,
    CLOSED_AT,
    FRAME_BYTES,
    FRAME_MAGIC,
    MAX_TUPLE_BYTES,
    Header,
    pack_closed,
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
        self.syncer = Syncer(self._collect, self.give_up_segment, delay_s or 0.0, reporter)
        self.failing = ""
        self.lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        """Begin anew, without a lane."""
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
        self._header_bytes = 2 * BLOCK
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
            if number == self.read_number:
                self.oldest_at = time.monotonic()
            seed = self._seed
            head = pack_frame_head(FRAME_MAGIC, table, low_priority is True, length, number)
            head_sum = crc32(head, seed)
            frame = head + pack_frame_sums(head_sum, crc32(row, head_sum)) + row
            if number != self.number or seed != self._seed:
                return self.append(table, row, low_priority, on_durable)
            # From the comparison to the write there is no other call.
            self.number = number + 1
            offset = self.written - self._base
            self.written += size
            try:
                done = _pwrite(self._descriptor, frame, offset)
                if done != size:
                    _write_rest(self._descriptor, frame, offset, done)
            except OSError as error:
                if self._take_back(number, size, error):
                    return self.append(table, row, low_priority, on_durable)
                return False
            if self._syncs:
                if on_durable is not None:
                    self._on_durable.append(on_durable)
                    # The thread that was woken for another may be frozen.
                    must_sync = sys.is_finalizing()
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

    def give_up_segment(self) -> None:
        """Append no more to the last segment; the next record begins another."""
        with self.lock:
            end, number = self.written - self._base, self.number
            ended = self._segment, self._descriptor, end, number, self._seed
            self._segment, self._descriptor, self._easy = None, -1, 0
            self._end_segment(*ended)

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
                self.give_up_segment()

    def sync(self) -> None:
        """Make everything durable, in this thread."""
        with self.lock:
            self._is_dirty = self._is_dirty or self._descriptor >= 0
        self.syncer.run()

    def close(self) -> None:
        """Let go of the lane, and remove it when all of it is settled."""
        if self._syncs:
            self.syncer.run()
        with self.lock:
            self.give_up_segment()
            lane, backlog = self.lane, self.backlog
            is_settled = backlog is not None and self.number == backlog.next_number
            # What came since: whoever waits for it is to be told as well.
            rest = self._collect()
            self._reset()
        if rest is not None:
            self.syncer.do(rest)
        if lane is None or backlog is None:
            return
        if is_settled and backlog.is_idle:
            backlog.sweep()
        backlog.close()
        if not (backlog.is_finished and lane.remove()):
            lane.release()

    def forget(self) -> None:
        """Close everything in a forked child, whose locks may be held for ever."""
        for descriptor in (*self._unsynced, self._descriptor):
            _close(descriptor)
        if self.backlog is not None:
            self.backlog.close()
        if self.lane is not None:
            self.lane.abandon()
        self.lock = threading.RLock()
        self._reset()
        self.syncer.forget()

    def _make_room(self, size: int, low_priority: bool) -> bool:
        """Find out why a record cannot simply be written, and do something about it."""
        if time.monotonic() < self._retry_at:
            return False
        if size > MAX_TUPLE_BYTES:
            self._reporter.report("auditlog.spool_failed", f"a row of {size} bytes is too long")
            return False
        try:
            if self.lane is None:
                self._open_lane()
            if self._is_over_cap(size, low_priority):
                return self._refuse(
                    "auditlog.spool_full",
                    f"the spool holds all that it may, {self._max_bytes} bytes:"
                    " see why rows do not get to PostgreSQL, or allow more",
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
        backlog = Backlog(lane.name, (), self._losses, self._reporter, live=self)
        if self.lane is not None:
            lane.remove()
            return
        self.lane, self.backlog = lane, backlog
        if self._syncs:
            self._new_folders.append(self._directory)

    def _open_segment(self) -> None:
        lane, backlog, old, first = self.lane, self.backlog, self._segment, self.number
        if lane is None or backlog is None:
            return
        place, seed = self._next_segment, int.from_bytes(os.urandom(4), "big")
        segment = Segment(segment_path(lane.path, place))
        head = pack_header(Header(lane.name, place, self._writer, first, seed))
        size = len(head)
        try:
            descriptor = _create(segment.path, head)
        except FileNotFoundError:
            # Somebody has removed the folder; what was in it is found missing, and counted.
            lane.restore()
            descriptor = _create(segment.path, head)
        except FileExistsError:
            # Whoever has put it there, if not a signal handler that is about to be done.
            self._next_segment = max(self._next_segment, place + 1)
            if self._segment is old:
                self._open_segment()
            return
        if self.number != first or self._segment is not old or self.lane is not lane:
            # A signal handler was faster.
            _close(descriptor)
            os.unlink(segment.path)
            return
        # No call until it is in place.
        ended = old, self._descriptor, self.written - self._base, first, self._seed
        self._segment, self._descriptor, self._seed = segment, descriptor, seed
        self._base = self.written
        self.written += size
        self._header_bytes, self._next_segment = size, place + 1
        backlog.ahead.append(segment)
        self._end_segment(*ended)
        if self._syncs:
            self._new_folders.append(lane.path)

    def _end_segment(
        self, segment: Segment | None, descriptor: int, end: int, next_number: int, seed: int
    ) -> None:
        if segment is None:
            return
        segment.next_number, segment.end = next_number, end
        with suppress(OSError):
            # So that whoever finds it shortened knows by how many.
            _pwrite(descriptor, pack_closed(next_number, seed), CLOSED_AT)
        if self._is_dirty:
            self._unsynced.append(descriptor)
        else:
            _close(descriptor)

    def _take_back(self, number: int, size: int, error: OSError) -> bool:
        """Undo what the kernel has not taken whole; True when it is worth another attempt."""
        # Else a signal handler has appended behind it, and the hole is found and counted.
        if self.number == number + 1:
            self.number = number
            self.written -= size
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.written - self._base)
        was_used = self.written - self._base > self._header_bytes
        if error.errno not in _FULL:
            # A limit of the file's size, or its part of the disk: another may do.
            self.give_up_segment()
        if error.errno == errno.EFBIG and was_used:
            return True
        return self._fail(error)

    def _fail(self, error: OSError) -> bool:
        reason = "auditlog.spool_full" if error.errno in _FULL else "auditlog.spool_failed"
        self._retry_at = time.monotonic() + RETRY_S
        return self._refuse(
            reason,
            f"{self._directory} cannot be written, {describe(error)}: {error.strerror}; see that"
            " it is a folder of this user's with free space",
        )

    def _refuse(self, reason: str, message: str) -> bool:
        self._easy = 0
        self.failing = message
        self._reporter.report(reason, message)
        return False

    def _collect(self) -> Work | None:
        """Hand over what the next fdatasync is to cover."""
        with self.lock:
            if not (self._is_dirty or self._unsynced or self._new_folders):
                return None
            work = Work(self._unsynced, self._new_folders, self._on_durable)
            self._unsynced, self._new_folders, self._on_durable = [], [], []
            self._is_dirty = False
            if self._descriptor >= 0:
                try:
                    # Its own: this one may be closed, and its number given to another file.
                    work.descriptors.append(os.dup(self._descriptor))
                except OSError as error:
                    work.error = error
            return work


def _create(path: str, head: bytes) -> int:
    """Make a file with something in it, or none at all."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        _write_rest(descriptor, head, 0, 0)
    except BaseException:
        _close(descriptor)
        with suppress(OSError):
            os.unlink(path)
        raise
    return descriptor


def _write_rest(descriptor: int, data: bytes, offset: int, done: int) -> None:
    # The kernel tells why it takes no more only when it takes nothing.
    while done < len(data):
        done += _pwrite(descriptor, data[done:], offset + done)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        with suppress(OSError):
            os.close(descriptor)
