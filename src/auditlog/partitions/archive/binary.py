"""PostgreSQL's binary COPY, taken apart into fields and put together again. Pure.

Its layout is in the server's documentation of COPY: a header, for each row the number of its
fields and each with its length before it, and a trailer.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

from auditlog.errors import PartitionError

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_COUNT, _LENGTH = Struct(">h"), Struct(">i")
_END = -1
_NULL = _LENGTH.pack(-1)


def rows_of(chunks: Iterable[bytes], width: int) -> Iterator[list[bytes | None]]:
    """Hand on the fields of each row; a row may lie across chunks, and be longer than they are.

    Raises:
        PartitionError: these are not the bytes of a COPY with so many columns.
    """
    rest, offset, is_ended, is_begun = b"", 0, False, False
    for chunk in chunks:
        rest, offset = rest[offset:] + chunk, 0
        if not is_begun:
            if len(rest) < len(HEADER):
                continue
            _expect(rest.startswith(HEADER))
            offset, is_begun = len(HEADER), True
        while not is_ended and (parsed := _row(rest, offset, width)):
            fields, offset = parsed
            if fields is None:
                is_ended = True
            else:
                yield fields
    _expect(is_ended and offset == len(rest))


def tuple_of(fields: Sequence[bytes | None]) -> bytes:
    """Return the bytes of one row."""
    pieces = [_COUNT.pack(len(fields))]
    for value in fields:
        if value is None:
            pieces.append(_NULL)
        else:
            pieces += (_LENGTH.pack(len(value)), value)
    return b"".join(pieces)


def _row(data: bytes, offset: int, width: int) -> tuple[list[bytes | None] | None, int] | None:
    """Return the fields of a row and where it ends; None for its trailer, and for half a row."""
    end = len(data)
    if offset + 2 > end:
        return None
    (count,) = _COUNT.unpack_from(data, offset)
    offset += 2
    if count == _END:
        return None, offset
    _expect(count == width)
    fields: list[bytes | None] = []
    for _ in range(width):
        if offset + 4 > end:
            return None
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += 4
        if length < 0:
            fields.append(None)
            continue
        if offset + length > end:
            return None
        fields.append(data[offset : offset + length])
        offset += length
    return fields, offset


def _expect(is_so: bool) -> None:
    if not is_so:
        raise PartitionError("the bytes are not those of a binary COPY of these columns")
