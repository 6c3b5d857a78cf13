r"""A segment file, byte by byte: what is packed here is all that the spool ever writes.

A segment is a header, twice, and behind it frames, one for each record. All numbers are
big-endian, as in the tuples.

Header block, padded with zeros to a multiple of 4096 bytes. The second copy follows the first, so
that one bad sector costs no record; frames begin behind the second.

| offset | bytes | what |
|---|---|---|
| 0 | 8 | magic, `\x89AUDSPL\n` |
| 8 | 2 | version of this format; magic and version keep their places in every later one |
| 10 | 2 | which copy: 0 or 1 |
| 12 | 4 | length of the JSON |
| 16 | 4 | CRC32 of bytes 0 to 15 and of the JSON |
| 20 | 8 | acknowledged: offset in this file behind the last record that is settled |
| 28 | 8 | acknowledged: number of the record that comes there |
| 36 | 4 | CRC32 of the two, begun with the seed; anything else here: nothing is acknowledged |
| 40 | 8 | closed: number of the record behind the last one of the segment |
| 48 | 4 | CRC32 of it, begun with the seed; anything else here: its writer did not get to it |
| 52 | n | JSON: format, lane, segment, writer, created_at, first_number, seed, tables |

Only the first copy's slots are ever written; they lie within one sector. `tables` is a list of
`[qualified name, [[column, type], ...]]`, and a frame's table is an index into it.

Frame:

| offset | bytes | what |
|---|---|---|
| 0 | 2 | magic, `\xf5\x9a` |
| 2 | 1 | table |
| 3 | 1 | flags; bit 0: low priority |
| 4 | 4 | length of the tuple, at most 16 MiB |
| 8 | 8 | number of the record, running through all segments of a lane |
| 16 | 4 | CRC32 of bytes 0 to 15, begun with the seed of the segment |
| 20 | 4 | CRC32 of the tuple, begun with the one before |
| 24 | n | the tuple |

The seed is drawn at random for each segment, so that nobody can put a frame into a record's text
which would be taken for one where the search behind a damage meets it. The frame's head has a
sum of its own: where only the tuple is damaged its number is known, and a record that was cut in
mid-write is told from one that was changed.
"""

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from zlib import crc32

import orjson

from auditlog.tables import TABLES

MAGIC = b"\x89AUDSPL\n"
VERSION = 1
FORMAT = "auditlog-spool"
BLOCK = 4096
MAX_BLOCKS = 16
"""Where a second copy is looked for when the first does not say: a header of up to 64 KiB."""
ACKNOWLEDGED_AT = 20
CLOSED_AT = 40

FRAME_MAGIC = b"\xf5\x9a"
FRAME_BYTES = 24
FRAME_HEAD_BYTES = 16
MAX_TUPLE_BYTES = 16 * 1024 * 1024
"""A frame that claims more is damage: whoever reads it must not be made to allocate it."""
LOW_PRIORITY = 1

_START = struct.Struct(">8sHHI")
_SUM = struct.Struct(">I")
_POSITION = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")
_JSON_AT = CLOSED_AT + _NUMBER.size + _SUM.size

_SLOTS = bytes(_JSON_AT - ACKNOWLEDGED_AT)

pack_frame_head = struct.Struct(">2sBBIQ").pack
pack_frame_sums = struct.Struct(">II").pack
unpack_frame = struct.Struct(">2sBBIQII").unpack_from

TableColumns: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""A table's qualified name, and its columns with their types in COPY order."""

CURRENT_TABLES: tuple[TableColumns, ...] = tuple(
    (table.qualified_name, tuple((column.name, column.type) for column in table.columns))
    for table in TABLES
)


class UnreadableError(Exception):
    """No copy of a segment's header can be read."""


class NewerError(Exception):
    """A segment that a newer version of this package wrote; says what it is that is not known."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself."""

    lane: str
    segment: int
    writer: str
    first_number: int
    seed: int
    tables: tuple[TableColumns, ...] = CURRENT_TABLES
    created_at: float = 0.0
    """Seconds since 1970."""
    frames_at: int = 0
    """Offset of the first frame; known when the header was packed or read."""


def pack_header(header: Header) -> bytes:
    """Return both copies, padded: what stands before the first frame."""
    document = orjson.dumps(
        {
            "format": FORMAT,
            "lane": header.lane,
            "segment": header.segment,
            "writer": header.writer,
            "created_at": time.time(),
            "first_number": header.first_number,
            "seed": header.seed,
            "tables": header.tables,
        }
    )
    size = -(-(_JSON_AT + len(document)) // BLOCK) * BLOCK
    return b"".join(_copy(number, document).ljust(size, b"\0") for number in (0, 1))


def read_header(data: bytes) -> Header:
    """Read a header from the first `2 * MAX_BLOCKS * BLOCK` bytes of a file.

    Raises:
        UnreadableError: it is no segment, or both copies are damaged.
        NewerError: of a later version of the format.
    """
    for number, at in ((0, 0), *((1, block * BLOCK) for block in range(1, MAX_BLOCKS + 1))):
        document = _document(data, at, number)
        if document is not None:
            size = -(-(_JSON_AT + len(document)) // BLOCK) * BLOCK
            return _header(document, 2 * size)
    if data.startswith(MAGIC) and len(data) >= _START.size:
        _refuse_newer(_START.unpack_from(data)[1])
    raise UnreadableError


def pack_acknowledged(offset: int, number: int, seed: int) -> bytes:
    """Return what stands at `ACKNOWLEDGED_AT`."""
    position = _POSITION.pack(offset, number)
    return position + _SUM.pack(crc32(position, seed))


def read_acknowledged(data: bytes, header: Header) -> tuple[int, int]:
    """Return the offset and the record number from which on nothing is acknowledged."""
    offset, number = _POSITION.unpack_from(data, ACKNOWLEDGED_AT)
    slot = pack_acknowledged(offset, number, header.seed)
    is_known = data.startswith(slot, ACKNOWLEDGED_AT)
    if is_known and offset >= header.frames_at and number >= header.first_number:
        return offset, number
    return header.frames_at, header.first_number


def pack_closed(next_number: int, seed: int) -> bytes:
    """Return what stands at `CLOSED_AT`."""
    number = _NUMBER.pack(next_number)
    return number + _SUM.pack(crc32(number, seed))


def read_closed(data: bytes, header: Header) -> int | None:
    """Return the number of the record behind the last one; None: nobody has closed it."""
    (number,) = _NUMBER.unpack_from(data, CLOSED_AT)
    return int(number) if data.startswith(pack_closed(number, header.seed), CLOSED_AT) else None


def _copy(number: int, document: bytes) -> bytes:
    start = _START.pack(MAGIC, VERSION, number, len(document))
    return start + _SUM.pack(crc32(document, crc32(start))) + _SLOTS + document


def _document(data: bytes, at: int, number: int) -> bytes | None:
    """Return the JSON of a copy that verifies."""
    if len(data) < at + _JSON_AT or not data.startswith(MAGIC, at):
        return None
    start = data[at : at + _START.size]
    _, version, copy, length = _START.unpack(start)
    (expected,) = _SUM.unpack_from(data, at + _START.size)
    document = data[at + _JSON_AT : at + _JSON_AT + length]
    if copy != number or len(document) != length:
        return None
    if crc32(document, crc32(start)) != expected:
        return None
    _refuse_newer(version)
    return document


def _refuse_newer(version: int) -> None:
    if version > VERSION:
        raise NewerError(f"format {version}")


def _header(document: bytes, frames_at: int) -> Header:
    """Read what has verified; it may still have been written by anybody."""
    try:
        values = orjson.loads(document)
        if values["format"] != FORMAT:
            raise UnreadableError
        return Header(
            lane=_checked(values["lane"], str),
            segment=_checked(values["segment"], int),
            writer=_checked(values["writer"], str),
            first_number=_natural(values["first_number"]),
            seed=_natural(values["seed"]),
            tables=_tables(values["tables"]),
            created_at=_checked(values["created_at"], float),
            frames_at=frames_at,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError from error


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def _tables(value: Sequence[Any]) -> tuple[TableColumns, ...]:
    return tuple(
        (
            _checked(name, str),
            tuple((_checked(column, str), _checked(kind, str)) for column, kind in columns),
        )
        for name, columns in value
    )
