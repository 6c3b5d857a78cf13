"""The bytes of a segment → its frames, and the damage between them.

Reads a file in pieces, whatever its size; a frame is held in memory only when its head has
verified and its length is one that the spool writes. Behind a damage the next frame is searched
for, so that no damage costs more than the records it lies in.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from auditlog.sink.spool.layout import (
    FRAME_BYTES,
    FRAME_HEAD_BYTES,
    FRAME_MAGIC,
    MAX_TUPLE_BYTES,
    unpack_frame,
)

PIECE_BYTES = 256 * 1024


class Frame(NamedTuple):
    """A record that verified."""

    number: int
    table: int
    row: bytes
    end: int
    """Offset behind it."""


class Damage(NamedTuple):
    """Bytes that are no frame."""

    start: int
    end: int
    next_number: int | None
    """The number behind the record that they were, where its head can still be read."""
    vague: bool
    """May more records lie in it than its number tells?"""
    torn: bool
    """Is it the beginning of a frame, cut by the end of the file?"""


def as_damage(frame: Frame) -> Damage:
    """Return the same bytes as damage: they verify, and are no tuple of their segment's tables."""
    start = frame.end - len(frame.row) - FRAME_BYTES
    return Damage(start, frame.end, frame.number + 1, vague=False, torn=False)


def scan(descriptor: int, start: int, end: int, seed: int) -> Iterator[Frame | Damage]:
    """Yield what stands between two offsets, in order and without a hole.

    Raises:
        OSError: the file cannot be read.
    """
    piece, base, position = b"", start, start
    while position < end:
        at = position - base
        if at + FRAME_BYTES > len(piece):
            piece, base, at = _read(descriptor, position, PIECE_BYTES, end), position, 0
        head = _head(piece, at, seed)
        if head is not None:
            table, length, number, head_sum, row_sum = head
            stop = at + FRAME_BYTES + length
            if stop > len(piece):
                size = max(PIECE_BYTES, FRAME_BYTES + length)
                piece, base, at = _read(descriptor, position, size, end), position, 0
                stop = FRAME_BYTES + length
            row = piece[at + FRAME_BYTES : stop]
            if len(row) == length and crc32(row, head_sum) == row_sum:
                position = base + stop
                yield Frame(number, table, row, position)
                continue
        found = _search(descriptor, position + 1, end, seed)
        damage_end = end if found is None else found
        size = damage_end - position
        yield Damage(
            position,
            damage_end,
            None if head is None else head[2] + 1,
            head is None or size > FRAME_BYTES + head[1],
            found is None and _is_torn(piece[at : at + FRAME_BYTES], head, size),
        )
        position = damage_end


def _read(descriptor: int, position: int, size: int, end: int) -> bytes:
    return os.pread(descriptor, min(size, end - position), position)


def _head(piece: bytes, at: int, seed: int) -> tuple[int, int, int, int, int] | None:
    """Return table, length, number and both sums of a head that verifies."""
    if at + FRAME_BYTES > len(piece):
        return None
    magic, table, _, length, number, head_sum, row_sum = unpack_frame(piece, at)
    if (
        magic != FRAME_MAGIC
        or length > MAX_TUPLE_BYTES
        or crc32(piece[at : at + FRAME_HEAD_BYTES], seed) != head_sum
    ):
        return None
    return table, length, number, head_sum, row_sum


def _search(descriptor: int, start: int, end: int, seed: int) -> int | None:
    """Return the offset of the next head that verifies."""
    while start + FRAME_BYTES <= end:
        piece = _read(descriptor, start, PIECE_BYTES, end)
        at = piece.find(FRAME_MAGIC)
        while 0 <= at <= len(piece) - FRAME_BYTES:
            if _head(piece, at, seed) is not None:
                return start + at
            at = piece.find(FRAME_MAGIC, at + 1)
        if len(piece) < FRAME_BYTES:
            break
        # A head may begin in this piece and end in the next.
        start += len(piece) - FRAME_BYTES + 1
    return None


def _is_torn(beginning: bytes, head: tuple[int, int, int, int, int] | None, rest: int) -> bool:
    if head is not None:
        return rest < FRAME_BYTES + head[1]
    return rest < FRAME_BYTES and FRAME_MAGIC.startswith(beginning[: len(FRAME_MAGIC)])
