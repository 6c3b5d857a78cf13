"""A look at a spool from outside: what waits in it, what is damaged, and its rows as COPY files.

Reads only. No lock is held, so that it works beside living writers; what they settle meanwhile
may be in the answer or not.
"""

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from auditlog.sink.spool.frames import Damage, as_damage, scan
from auditlog.sink.spool.lane import is_alive, lane_names
from auditlog.sink.spool.layout import NewerError, UnreadableError
from auditlog.sink.spool.losses import DAMAGED, Continuity, known_date
from auditlog.sink.spool.segment import Segment, segments_of
from auditlog.sink.spool.taken import Lost
from auditlog.tables import TABLES, Table

TORN = "torn tail"
DAMAGE = "damaged"
UNREADABLE = "unreadable header"
NEWER = "newer version"
LOST = "records lost"

# The head and the end of a binary COPY file.
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)


class Row(NamedTuple):
    """A record that waits."""

    table: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a spool that is not as it should be."""

    kind: str
    file: str
    """The segment, or the lane's folder."""
    offset: int | None = None
    end: int | None = None
    lost: int = 0
    """Records that cannot be read by it; counted per lane, under `LOST`."""
    exact: bool = True
    """False: at least so many."""
    detail: str = ""

    @property
    def is_damage(self) -> bool:
        """Whether anything is amiss; a writer that was killed leaves a torn tail, which is not."""
        return self.kind != TORN


@dataclass(frozen=True, slots=True)
class LaneReport:
    """One lane, as it was when it was looked at."""

    lane: str
    is_alive: bool
    """Does its writer live?"""
    writer: str | None
    """`host:pid`; None: no segment tells."""
    segments: int
    rows: int
    """That are not acknowledged."""
    size: int
    """Bytes of its segments."""
    oldest_us: int | None
    """The first `log_date` among them, in microseconds since 1970."""
    newest_us: int | None
    damaged: int
    """Damaged places among them."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Every frame of a spool, read."""

    records: int
    """Whole ones, acknowledged or not."""
    findings: list[Finding]
    set_aside: list[str]
    """Files with damaged bytes that were met, and counted, before."""

    @property
    def is_well(self) -> bool:
        """Whether there is no damage."""
        return not any(finding.is_damage for finding in self.findings)


def survey(directory: str) -> list[LaneReport]:
    """Report on every lane of a spool, oldest first; reads what is not acknowledged.

    Raises:
        OSError: the spool, or something in it, cannot be read.
    """
    return [_report(os.path.join(directory, name)) for name in lane_names(directory)]


def verify(directory: str) -> Verification:
    """Read every frame of a spool.

    Raises:
        OSError: the spool, or something in it, cannot be read.
    """
    records = 0
    findings: list[Finding] = []
    for name in lane_names(directory):
        walk = _Walk(os.path.join(directory, name), findings.append, everything=True)
        for _ in walk.rows():
            records += 1
    return Verification(records, findings, set_aside(directory))


def set_aside(directory: str) -> list[str]:
    """Return the files with damaged bytes that a spool has kept.

    Raises:
        OSError: their folder cannot be read.
    """
    try:
        names = os.listdir(os.path.join(directory, DAMAGED))
    except FileNotFoundError:
        return []
    return [os.path.join(directory, DAMAGED, name) for name in sorted(names)]


def all_segments(directory: str) -> list[Segment]:
    """Return the segments of every lane of a spool, oldest lane first.

    Raises:
        OSError: the spool cannot be read.
    """
    lanes = [os.path.join(directory, name) for name in lane_names(directory)]
    return [segment for lane in lanes for segment in _segments(lane)]


def export(
    segments: Iterable[Segment],
    table: Table,
    out: BinaryIO,
    *,
    everything: bool = False,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> int:
    """Write the rows of one table as a binary COPY file, with the columns of this version.

    Args:
        segments: In the order in which they are written.
        table: One of `TABLES`.
        out: Where to.
        everything: Also what is acknowledged, so stored.
        on_finding: Told of what cannot be exported.

    Returns:
        How many rows.

    Raises:
        OSError: a segment cannot be read, or `out` not written.
    """
    wanted, count = TABLES.index(table), 0
    out.write(_SIGNATURE)
    for segment in segments:
        with closing(segment):
            for row in _rows(segment, on_finding, everything=everything):
                if row.table == wanted:
                    out.write(row.data)
                    count += 1
    out.write(_TRAILER)
    return count


def copy_command(table: Table, file: str) -> str:
    r"""Return the line for psql that loads an exported file: it is one, as `\copy` demands."""
    columns = ", ".join(table.column_names)
    quoted = file.replace("'", "''")
    return rf"\copy {table.qualified_name} ({columns}) from '{quoted}' (format binary)"


class _Walk:
    """One way through a lane."""

    def __init__(
        self, lane: str, on_finding: Callable[[Finding], None], *, everything: bool
    ) -> None:
        self._lane = lane
        self._on_finding = on_finding
        self._everything = everything
        self._continuity = Continuity(os.path.basename(lane), self._lose, own=False)
        self.is_alive = is_alive(lane)
        self.segments = _segments(lane)
        self.writer: str | None = None

    def rows(self) -> Iterator[Row]:
        for segment in self.segments:
            with closing(segment):
                yield from self._rows(segment)
        self._continuity.finish(None)

    def _rows(self, segment: Segment) -> Iterator[Row]:
        try:
            hindrance = _open(segment)
        except FileNotFoundError:
            # Settled since the folder was read.
            self._continuity.unknown()
            return
        if hindrance is not None:
            self._skip(segment, hindrance)
            return
        self.writer = segment.header.writer
        acknowledged, number = segment.acknowledged()
        self._continuity.segment(segment.header.first_number, number)
        start = segment.header.frames_at if self._everything else acknowledged
        for item in scan(segment.descriptor, start, segment.end or 0, segment.header.seed):
            is_counted = item.end > acknowledged
            if isinstance(item, Damage):
                self._meet(segment, item, is_counted=is_counted)
                continue
            row = segment.row(item)
            if row is None:
                self._meet(segment, as_damage(item), is_counted=is_counted)
                continue
            if is_counted:
                self._continuity.record(item.number, *row)
            yield Row(*row)
        if segment.next_number is not None:
            self._continuity.reached(segment.next_number)

    def _meet(self, segment: Segment, damage: Damage, *, is_counted: bool) -> None:
        is_last = segment is self.segments[-1] and segment.next_number is None
        if is_last and self.is_alive and damage.end == segment.end:
            return  # it is being written
        is_torn = is_last and damage.torn
        kind = TORN if is_torn else DAMAGE
        self._on_finding(Finding(kind, segment.path, damage.start, damage.end))
        if is_counted and not is_torn:
            self._continuity.damage(damage)

    def _skip(self, segment: Segment, finding: Finding) -> None:
        if self.is_alive and segment is self.segments[-1] and finding.kind != NEWER:
            return  # it is being made
        self._on_finding(finding)
        if finding.kind == NEWER:
            self._continuity.unknown()
        elif finding.kind == UNREADABLE:
            self._continuity.unreadable(segment.number)

    def _lose(self, lost: Lost) -> None:
        self._on_finding(Finding(LOST, self._lane, lost=lost.count, exact=lost.exact))


def _segments(lane: str) -> list[Segment]:
    """Return a lane's segments; none when it was emptied, and removed, since the spool was read."""
    try:
        return segments_of(lane)
    except FileNotFoundError:
        return []


def _report(lane: str) -> LaneReport:
    findings: list[Finding] = []
    walk = _Walk(lane, findings.append, everything=False)
    rows = 0
    oldest: int | None = None
    newest: int | None = None
    for row in walk.rows():
        rows += 1
        date = known_date(row)
        if date is not None:
            oldest = date if oldest is None else min(oldest, date)
            newest = date if newest is None else max(newest, date)
    return LaneReport(
        lane=os.path.basename(lane),
        is_alive=walk.is_alive,
        writer=walk.writer,
        segments=len(walk.segments),
        rows=rows,
        size=sum(segment.end or 0 for segment in walk.segments),
        oldest_us=oldest,
        newest_us=newest,
        damaged=sum(finding.is_damage and finding.kind != LOST for finding in findings),
    )


def _rows(
    segment: Segment, on_finding: Callable[[Finding], None], *, everything: bool
) -> Iterator[Row]:
    """Yield the rows of one segment by itself."""
    try:
        hindrance = _open(segment)
    except FileNotFoundError:
        return  # settled, so stored, since the folder was read
    if hindrance is not None:
        on_finding(hindrance)
        return
    start = segment.header.frames_at if everything else segment.acknowledged()[0]
    for item in scan(segment.descriptor, start, segment.end or 0, segment.header.seed):
        row = None if isinstance(item, Damage) else segment.row(item)
        if row is not None:
            yield Row(*row)
        else:
            damage = item if isinstance(item, Damage) else as_damage(item)
            kind = TORN if damage.torn and segment.next_number is None else DAMAGE
            on_finding(Finding(kind, segment.path, damage.start, damage.end))


def _open(segment: Segment) -> Finding | None:
    """Open a segment, or say why that is not possible."""
    try:
        segment.open(writable=False)
    except NewerError as error:
        return Finding(NEWER, segment.path, detail=str(error))
    except UnreadableError:
        size = segment.size()
        # A writer that is killed between making a file and writing to it leaves an empty one.
        return Finding(UNREADABLE if size else TORN, segment.path, 0, size)
    return None
