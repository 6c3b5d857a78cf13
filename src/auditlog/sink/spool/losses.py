"""Damage: the bytes are kept aside, and the records that were in them are counted.

Records are numbered through a lane, so that a hole is measured by the number of the next record
that can be read. Only behind the last one nothing tells; then the count is the least it can be.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from auditlog.reporting import Reporter, describe
from auditlog.sink.encoding.tuples import log_date_of
from auditlog.sink.spool.frames import Damage
from auditlog.sink.spool.segment import Segment
from auditlog.sink.spool.taken import Lost

DAMAGED = "damaged"
"""The folder, inside the spool's."""
_PIECE_BYTES = 64 * 1024


class Losses:
    """What one spool has lost, until somebody is told; and where the bytes are."""

    def __init__(self, directory: str, reporter: Reporter) -> None:
        self._directory = os.path.join(directory, DAMAGED)
        self._reporter = reporter
        self._lost: list[Lost] = []

    def add(self, lost: Lost) -> None:
        """Count records that cannot be read."""
        self._lost.append(lost)
        at_least = "" if lost.exact else "at least "
        self._report(f"{at_least}{lost.count} records of lane {lost.lane} cannot be read")

    def hand_out(self) -> list[Lost]:
        """Return what was lost since the last call."""
        lost, self._lost = self._lost, []
        return lost

    def keep(self, lane: str, segment: Segment, damage: Damage) -> None:
        """Copy damaged bytes aside."""
        self._report(f"bytes {damage.start} to {damage.end} of {segment.path} are damaged")
        try:
            target = self._target(lane, segment, damage.start)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return  # kept before, by a process that did not get to settle what is around it
        except OSError as error:
            self._report(f"damaged bytes of {segment.path} cannot be copied: {describe(error)}")
            return
        with suppress(OSError), open(descriptor, "wb") as copy:
            for start in range(damage.start, damage.end, _PIECE_BYTES):
                size = min(_PIECE_BYTES, damage.end - start)
                copy.write(os.pread(segment.descriptor, size, start))

    def move(self, lane: str, segment: Segment) -> int:
        """Move a file whose header cannot be read; return the bytes that its lane is rid of.

        Raises:
            OSError: it cannot be moved.
        """
        size = segment.size()
        if size:
            self._report(f"{segment.path} has no readable header")
            os.rename(segment.path, self._target(lane, segment, 0))
        else:
            segment.remove()
        return size

    def _target(self, lane: str, segment: Segment, offset: int) -> str:
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        return os.path.join(self._directory, f"{lane}.{segment.number:010}.{offset}")

    def _report(self, what: str) -> None:
        self._reporter.report(
            "auditlog.spool_damaged",
            f"{what}; the bytes are kept in {self._directory}: check the disk",
        )


class Continuity:
    """Follows the numbers of a lane's records, and reports every hole once."""

    def __init__(self, lane: str, add: Callable[[Lost], None], *, own: bool) -> None:
        self._lane = lane
        self._own = own
        self._add = add
        self.expected: int | None = 0 if own else None
        """The number of the next record; None: nothing is known of what came before."""
        self.position = 0
        """The same, or where it was known last."""
        self._at_least = 0
        self._vague = False
        self._last: tuple[int, bytes] | None = None

    def damage(self, damage: Damage) -> None:
        """Go over bytes that are no frame."""
        self._vague = damage.vague
        if damage.next_number is not None:
            self._at_least = max(self._at_least, damage.next_number)

    def unreadable(self, segment: int) -> None:
        """Go over a segment of which only its number is known."""
        if segment == 1 and self.expected is None:
            self.expected = 0
        self._vague = True

    def unknown(self) -> None:
        """Go over a segment that stays where it is."""
        self._conclude(self._at_least, None, vague=self._vague)
        self.expected = None

    def segment(self, first_number: int, next_number: int) -> None:
        """Begin a segment.

        Args:
            first_number: Of the segment.
            next_number: Of the first record in it that is not acknowledged.
        """
        self._at_least = max(self._at_least, first_number)
        if self.expected is None or next_number > first_number:
            self._conclude(first_number, None, vague=self._vague and self.expected is None)
            self._move_to(next_number)
        else:
            # The next record's number says it all.
            self._vague = False

    def record(self, number: int, table: int, row: bytes) -> None:
        """Go over a record that can be read."""
        if number != self.expected or self._vague:
            self._conclude(number, (table, row), vague=False)
        self._last = (table, row)
        self._move_to(number + 1)

    def reached(self, number: int) -> None:
        """Learn the number of the next record, read or not."""
        self._at_least = max(self._at_least, number)
        self._vague = False

    def finish(self, next_number: int | None) -> None:
        """Say that nothing follows, or which number would be the next."""
        if next_number is None:
            self._conclude(self._at_least, None, vague=self._vague)
        else:
            self._conclude(next_number, None, vague=False)
            self._move_to(next_number)

    def _conclude(self, number: int, behind: tuple[int, bytes] | None, *, vague: bool) -> None:
        count = 0 if self.expected is None else max(0, number - self.expected)
        if count or vague:
            exact = not vague
            first_us, last_us = known_date(self._last), known_date(behind)
            self._add(Lost(count + vague, first_us, last_us, self._lane, self._own, exact))
        self._vague = False
        if self.expected is not None:
            self._move_to(number)

    def _move_to(self, number: int) -> None:
        self.position = self.expected = max(number, self.expected or 0)


def known_date(record: tuple[int, bytes] | None) -> int | None:
    """Return a row's `log_date` in microseconds since 1970, where it can be read.

    Args:
        record: Index into `TABLES`, and the tuple.
    """
    with suppress(Exception):
        # Whatever an older version or another hand has put there.
        return None if record is None else log_date_of(*record)
    return None
