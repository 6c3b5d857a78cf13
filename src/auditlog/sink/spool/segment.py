"""One segment file: made, opened, acknowledged, removed. What is in it, `frames.py` reads."""

import os
import re
import stat
from contextlib import suppress

from auditlog.sink.spool.columns import Conversions, conversions
from auditlog.sink.spool.frames import Frame
from auditlog.sink.spool.layout import (
    ACKNOWLEDGED_AT,
    BLOCK,
    MAX_BLOCKS,
    Header,
    UnreadableError,
    pack_acknowledged,
    read_acknowledged,
    read_closed,
    read_header,
)

SEGMENT_NAME = re.compile(r"[0-9]{10}\.segment", re.ASCII)
_HEADER_BYTES = 2 * MAX_BLOCKS * BLOCK
# A FIFO in a segment's place must not hold anybody up.
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Segment:
    """A segment of a lane, for one reader at a time; opened when it is needed."""

    __slots__ = ("conversions", "descriptor", "end", "header", "next_number", "number", "path")

    def __init__(self, path: str, *, end: int | None = None) -> None:
        """Name a segment.

        Args:
            path: Of the file.
            end: How many bytes of it count; None while its owner appends to it.
        """
        self.path = path
        self.number = int(os.path.basename(path).partition(".")[0])
        self.end = end
        self.next_number: int | None = None
        """The number of the record behind the last one, where that is known."""
        self.descriptor = -1
        self.header: Header
        self.conversions: Conversions

    def open(self, *, writable: bool = True) -> None:
        """Open the file and read its header, unless that is done.

        Raises:
            OSError: it cannot be opened; `FileNotFoundError` when it is gone.
            UnreadableError: it is no segment, or its header is damaged.
            NewerError: a newer version wrote it.
        """
        if self.descriptor >= 0:
            return
        descriptor = os.open(self.path, (os.O_RDWR if writable else os.O_RDONLY) | _SAFELY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnreadableError
            beginning = os.pread(descriptor, _HEADER_BYTES, 0)
            self.header = read_header(beginning)
            if self.next_number is None:
                self.next_number = read_closed(beginning, self.header)
                if self.next_number is not None and self.end is not None:
                    # It may have grown, and been closed, since the folder was read.
                    self.end = os.fstat(descriptor).st_size
            self.conversions = conversions(self.header.tables)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor

    def row(self, frame: Frame) -> tuple[int, bytes] | None:
        """Return a frame's index into `TABLES` and its tuple, with the columns of this version.

        None: it is no tuple of the segment's tables.
        """
        try:
            table, convert = self.conversions[frame.table]
            return table, frame.row if convert is None else convert(frame.row)
        except Exception:  # noqa: BLE001  # whoever has written that
            return None

    def acknowledged(self) -> tuple[int, int]:
        """Return offset and record number from which on nothing is acknowledged."""
        return read_acknowledged(os.pread(self.descriptor, BLOCK, 0), self.header)

    def acknowledge(self, offset: int, number: int) -> None:
        """Write down that everything before a position is settled.

        Raises:
            OSError: that cannot be written; what is acknowledged stays as it was.
        """
        slot = pack_acknowledged(offset, number, self.header.seed)
        os.pwrite(self.descriptor, slot, ACKNOWLEDGED_AT)

    def size(self) -> int:
        """Return the bytes that the file takes; 0 when it is gone."""
        try:
            return os.lstat(self.path).st_size
        except OSError:
            return 0

    def close(self) -> None:
        """Close the file."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def remove(self) -> int:
        """Delete the file, and return how many bytes that frees.

        Raises:
            OSError: it cannot be deleted.
        """
        size = self.size()
        self.close()
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        return size


def segment_path(lane: str, number: int) -> str:
    """Return where the segment of that number of a lane is."""
    return os.path.join(lane, f"{number:010}.segment")


def segments_of(lane: str) -> list[Segment]:
    """Return a lane's segments in order; whatever else is in its folder is not looked at.

    What its owner removes meanwhile is left out.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(lane) as entries:
        found = [_found(entry) for entry in entries if SEGMENT_NAME.fullmatch(entry.name)]
    return sorted(filter(None, found), key=_path)


def _found(entry: "os.DirEntry[str]") -> Segment | None:
    try:
        if entry.is_file(follow_symlinks=False):
            return Segment(entry.path, end=entry.stat(follow_symlinks=False).st_size)
    except FileNotFoundError:
        pass
    return None


def _path(segment: Segment) -> str:
    return segment.path
