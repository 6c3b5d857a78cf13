"""The rows of one lane, read from its segments in order, handed out, and acknowledged.

Rows are taken in stretches. Stretches may be settled in parts and in any order; what is written
down as acknowledged moves over those at the front only, so that after a crash everything behind
it is read again, and nothing before it. One thread at a time.
"""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from auditlog.reporting import Reporter, describe
from auditlog.sink.spool.frames import Damage, Frame, as_damage, scan
from auditlog.sink.spool.layout import NewerError, UnreadableError
from auditlog.sink.spool.losses import Continuity, Losses
from auditlog.sink.spool.segment import Segment
from auditlog.sink.spool.taken import Lost, Piece, Stretch, Taken
from auditlog.tables import TABLES


class Live(Protocol):
    """The end of a lane that this process appends to."""

    def state(self) -> tuple[Segment | None, int, int]:
        """Return the last segment, its length, and the number of the record to come."""

    def give_up_segment(self) -> None:
        """Append no more to that segment."""


class Backlog:
    """What is left in a lane."""

    def __init__(
        self,
        lane: str,
        segments: Iterable[Segment],
        losses: Losses,
        reporter: Reporter,
        *,
        live: Live | None = None,
    ) -> None:
        """Make the backlog of a lane; nothing is opened yet.

        Args:
            lane: Its name.
            segments: In order.
            losses: Takes what is damaged.
            reporter: For what is left where it is.
            live: Of the lane that this process appends to; None: nobody does.
        """
        self._lane = lane
        self._losses = losses
        self._reporter = reporter
        self._live = live
        self.ahead: deque[Segment] = deque(segments)
        """To be read; the first may be in part."""
        self._behind: deque[Segment] = deque()
        self._offset = 0
        self._continuity = Continuity(lane, losses.add, own=live is not None)
        self._outstanding: deque[Stretch] = deque()
        self._again: deque[Stretch] = deque()
        self.freed = 0
        """Bytes of files that are gone from the lane."""
        self.read_bytes = 0
        """Bytes that were read, headers included."""
        self.left = 0
        """Segments that stay where they are."""
        # What follows is looked at from other threads.
        self.undecided = (0, 0)
        """Rows, and bytes, that were read and are not settled."""
        self.to_repeat = (0, 0)
        """Rows, and bytes, that were put back."""
        self.repeats_since: float | None = None
        """When the oldest row came that was put back."""

    @property
    def next_number(self) -> int:
        """The number of the next record to be read."""
        return self._continuity.position

    @property
    def is_finished(self) -> bool:
        """Whether everything is read and settled."""
        return not (self.ahead or self._outstanding)

    @property
    def is_exhausted(self) -> bool:
        """Whether there is nothing to take."""
        return not (self.ahead or self._again)

    @property
    def is_idle(self) -> bool:
        """Whether everything that was read is settled."""
        return not self._outstanding

    def take(self, max_rows: int, max_bytes: int, since: float) -> Taken | None:
        """Read on, until a bound is reached; what was put back comes first, as it was.

        Raises:
            OSError: the lane cannot be read; it is tried again from the same place.
        """
        while self._again:
            taken = self._repeat(self._again[0])
            self._again.popleft()
            self._count()
            if taken.size:
                return taken
        stretch = Stretch(since)
        rows: list[list[bytes]] = [[] for _ in TABLES]
        try:
            self._read(stretch, rows, max_rows, max_bytes)
        except OSError:
            if not stretch.rows:
                raise
        stretch.next_number = self.next_number
        if stretch.pieces:
            self._outstanding.append(stretch)
            self._acknowledge()
        self.sweep()
        self._count()
        return self._taken(stretch, rows) if stretch.rows else None

    def settle(self, stretch: Stretch, rows: int) -> None:
        """Count rows of a stretch as decided, unless it was put back."""
        if stretch.valid:
            stretch.settled = min(stretch.rows, stretch.settled + rows)
            self._acknowledge()
            self._count()

    def put_back(self) -> None:
        """Hand out again what was handed out and not settled whole."""
        for index, stretch in enumerate(self._outstanding):
            if not stretch.is_done:
                stretch.valid = False
                self._outstanding[index] = stretch.again()
        self._again = deque(stretch for stretch in self._outstanding if not stretch.is_done)
        self._count()

    def sweep(self) -> None:
        """Remove the segments that were read to their end, when nothing of them is outstanding."""
        while self.ahead and self.ahead[0].end is not None and self._offset:
            if self._offset < self.ahead[0].end:
                break
            self._pass(self.ahead[0])
        if not self._outstanding:
            while self._behind:
                self._remove(self._behind.popleft())

    def close(self) -> None:
        """Close every file."""
        for segment in (*self._behind, *self.ahead):
            segment.close()

    def _count(self) -> None:
        rows = sum(stretch.rows - stretch.settled for stretch in self._outstanding)
        self.undecided = rows, sum(stretch.size for stretch in self._outstanding)
        again = self._again
        self.to_repeat = (
            sum(stretch.rows for stretch in again),
            sum(stretch.size for stretch in again),
        )
        self.repeats_since = again[0].since if again else None

    def _read(
        self, stretch: Stretch, rows: list[list[bytes]], max_rows: int, max_bytes: int
    ) -> None:
        size = 0
        while stretch.rows < max_rows and size < max_bytes:
            segment = self._opened()
            if segment is None:
                return
            start = self._offset
            end = self._end_of(segment)
            try:
                for item in scan(segment.descriptor, start, end, segment.header.seed):
                    row = segment.row(item) if isinstance(item, Frame) else None
                    if isinstance(item, Damage):
                        self._damaged(segment, item)
                    elif row is None:
                        self._damaged(segment, as_damage(item))
                    else:
                        self._continuity.record(item.number, *row)
                        rows[row[0]].append(row[1])
                        stretch.rows += 1
                        size += len(row[1])
                    self._offset = item.end
                    if stretch.rows >= max_rows or size >= max_bytes:
                        break
            finally:
                if self._offset > start:
                    stretch.pieces.append(Piece(segment, start, self._offset))
                    self.read_bytes += self._offset - start
            if not self._went_on(segment, end):
                return

    def _opened(self) -> Segment | None:
        """Return the segment that is to be read on, opened; None when there is nothing more."""
        while self.ahead:
            segment = self.ahead[0]
            if segment.descriptor >= 0:
                return segment
            try:
                segment.open()
                self._offset, number = segment.acknowledged()
            except FileNotFoundError:
                if self._live is not None and segment.end is None:
                    # Or else records would go on being appended to what nobody can open.
                    self._live.give_up_segment()
                self.ahead.popleft()
            except UnreadableError:
                self._move_away(segment)
            except NewerError as error:
                self._leave(segment, error)
            else:
                self._continuity.segment(segment.header.first_number, number)
                self.read_bytes += self._offset
                return segment
        upcoming = None if self._live is None else self._live.state()[2]
        if self.ahead:
            # A segment was begun after the look at them, and before the look at the number.
            return self._opened()
        self._continuity.finish(upcoming)
        return None

    def _end_of(self, segment: Segment) -> int:
        if segment.end is None and self._live is not None:
            live, end, _ = self._live.state()
            if live is segment:
                return end
        # Between the two looks at it, it was closed.
        return segment.end or 0

    def _went_on(self, segment: Segment, end: int) -> bool:
        """Pass a segment that is read to its end; False when there is no more in the lane."""
        if self._offset < end:
            return True
        if segment.end is None:
            return self._live is not None and self._went_on_live(segment, end, *self._live.state())
        # It may have grown since the look at its end, before it was closed.
        if self._offset >= segment.end:
            self._pass(segment)
        return True

    def _went_on_live(
        self, segment: Segment, end: int, live: Segment | None, live_end: int, number: int
    ) -> bool:
        if live is segment and live_end == end:
            self._continuity.finish(number)
            return False
        return True

    def _pass(self, segment: Segment) -> None:
        self.ahead.popleft()
        self._behind.append(segment)
        segment.close()
        self._offset = 0
        if segment.next_number is not None:
            self._continuity.reached(segment.next_number)

    def _damaged(self, segment: Segment, damage: Damage) -> None:
        is_last = len(self.ahead) == 1 and self._live is None
        if damage.torn and is_last and segment.next_number is None:
            # Its owner died in mid-write, and has not told anybody that the record was kept.
            return
        self._losses.keep(self._lane, segment, damage)
        self._continuity.damage(damage)

    def _move_away(self, segment: Segment) -> None:
        had_frames = segment.size() > 0
        try:
            self.freed += self._losses.move(self._lane, segment)
        except OSError as error:
            self._leave(segment, error)
            return
        if had_frames:
            self._continuity.unreadable(segment.number)
        self.ahead.popleft()

    def _leave(self, segment: Segment, error: Exception) -> None:
        """Go on without a segment."""
        self.left += 1
        self.ahead.popleft()
        self._continuity.unknown()
        if isinstance(error, NewerError):
            message = (
                f"{segment.path} was written by a newer version ({error}) and stays where it is:"
                " install that version, or run its `auditlog spool ship`"
            )
            self._reporter.report("auditlog.spool_newer", message)
        else:
            message = f"{segment.path} is damaged and cannot be moved: {describe(error)}"
            self._reporter.report("auditlog.spool_failed", message)

    def _repeat(self, stretch: Stretch) -> Taken:
        rows: list[list[bytes]] = [[] for _ in TABLES]
        count = 0
        for piece in stretch.pieces:
            try:
                piece.segment.open()
            except (FileNotFoundError, UnreadableError, NewerError):
                continue  # it could be read before, and has changed since: its rows are missed
            seed = piece.segment.header.seed
            for item in scan(piece.segment.descriptor, piece.start, piece.end, seed):
                row = piece.segment.row(item) if isinstance(item, Frame) else None
                if row is not None:
                    rows[row[0]].append(row[1])
                    count += 1
        if count < stretch.rows:
            self._losses.add(
                Lost(stretch.rows - count, None, None, self._lane, self._live is not None)
            )
            stretch.rows = count
            self._acknowledge()
        return self._taken(stretch, rows)

    def _taken(self, stretch: Stretch, rows: list[list[bytes]]) -> Taken:
        return Taken(rows, self._lane, self._live is not None, stretch.rows, stretch)

    def _acknowledge(self) -> None:
        """Write down how far everything is settled, and remove what lies before."""
        last = None
        while self._outstanding and self._outstanding[0].is_done:
            last = self._outstanding.popleft()
        if last is None:
            return
        segment, _, offset = last.pieces[-1]
        while self._behind and self._behind[0].number < segment.number:
            self._remove(self._behind.popleft())
        if segment.end == offset and self._behind and self._behind[0] is segment:
            self._remove(self._behind.popleft())
        else:
            self._write_down(segment, offset, last.next_number)
        self.sweep()

    def _write_down(self, segment: Segment, offset: int, number: int) -> None:
        try:
            segment.open()
            segment.acknowledge(offset, number)
        except (OSError, UnreadableError, NewerError) as error:
            # After a crash these rows are read again, and found to be stored.
            message = f"{segment.path} cannot be acknowledged: {describe(error)}"
            self._reporter.report("auditlog.spool_failed", message)

    def _remove(self, segment: Segment) -> None:
        try:
            self.freed += segment.remove()
        except OSError as error:
            self.left += 1
            message = f"{segment.path} is settled and cannot be deleted: {describe(error)}"
            self._reporter.report("auditlog.spool_failed", message)
