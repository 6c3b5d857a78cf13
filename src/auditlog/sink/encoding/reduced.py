"""A tuple that is refused → the least of it that is worth keeping, which says what is missing.

Pure and total: takes any bytes, decodes nothing, and never raises.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from auditlog.sink.encoding.careful import REPAIRED
from auditlog.sink.encoding.tuples import fields
from auditlog.tables import TABLES, Column, Table

REDUCED = "audit.reduced"

_NULL = b"\xff\xff\xff\xff"
_JSONB_VERSION = b"\x01"
_LENGTHS = {"smallint": 2, "integer": 4, "bigint": 8, "timestamptz": 8, "boolean": 1}
_METHOD = "request_method"
_LEADING_BYTES = 255
# Without these, a received row would have no end, and a gap no size.
_TIES = (
    "audit.exchange_id",
    "audit.gap.count",
    "audit.gap.first",
    "audit.gap.last",
    "audit.gap.reason",
    "audit.outcome",
    "audit.parent_id",
    "audit.refused",
    "audit.request_id",
    "audit.run_id",
    "audit.stage",
    "audit.status_source",
)
_MAX_TIE_CHARS = 128


def reduced(table: int, row: bytes, sqlstate: str) -> bytes:
    """Return the smallest safe form of a tuple; the same bytes if they are none, or that already.

    Its identity, its clocks, its numbers and the identifiers that are plain ASCII are kept. Other
    texts and JSON are left out, since the server's reason to refuse may be in any of them; the
    metadata names what was, and keeps what ties the row to others. The identity is not judged: a
    row under another is another row, and one whose identity is refused is for the dead letters.

    Args:
        table: Index into `TABLES`.
        row: The tuple.
        sqlstate: Why it was refused.
    """
    described = TABLES[table]
    if not is_tuple(table, row):
        return row
    dropped: list[str] = []
    kept = list(_kept(described, row, dropped))
    if not dropped:
        return row
    if described.columns[-1].name == "metadata":
        mark = {REDUCED: sqlstate, REPAIRED: dropped}
        kept[-1] = _JSONB_VERSION + orjson.dumps(_ties(list(fields(row))[-1]) | mark)
    return tuple_of(kept)


def is_tuple(table: int, row: bytes) -> bool:
    """Tell whether the bytes have the form of the table's tuples, whatever the texts in them."""
    columns = TABLES[table].columns
    try:
        values = list(fields(row))
    except struct.error:
        return False
    return (
        len(values) == len(columns) and tuple_of(values) == row and all(map(_fits, columns, values))
    )


def tuple_of(values: Sequence[bytes | None]) -> bytes:
    """Put values together, the inverse of `tuples.fields`."""
    return struct.pack(">h", len(values)) + b"".join(map(_field, values))


def _fits(column: Column, value: bytes | None) -> bool:
    if value is None:
        return column.nullable
    if column.type == "jsonb":
        return value.startswith(_JSONB_VERSION)
    # What leads a tuple has to be short: `tuples` finds the date behind it by that.
    is_long = column.collation == "C" and not column.nullable and len(value) > _LEADING_BYTES
    return not is_long and len(value) == _LENGTHS.get(column.type, len(value))


def _kept(table: Table, row: bytes, dropped: list[str]) -> Iterator[bytes | None]:
    for column, value in zip(table.columns, fields(row), strict=True):
        if value is None or column.name in table.primary_key or _is_safe(column, value):
            yield value
        else:
            dropped.append(column.name)
            yield None if column.nullable else b""


def _ties(metadata: bytes | None) -> dict[str, Any]:
    """Return what the library has put into metadata itself and is a number or a word."""
    try:
        said = orjson.loads((metadata or b"")[1:])
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(said, dict):
        return {}
    return {key: said[key] for key in _TIES if key in said and _is_plain(said[key])}


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_TIE_CHARS and value.isascii() and value.isprintable()
    return isinstance(value, int)


def _is_safe(column: Column, value: bytes) -> bool:
    if column.type in _LENGTHS or not value:
        return True
    is_word = column.collation == "C" or column.name == _METHOD
    return is_word and len(value) <= (column.max_bytes or 0) and value.isascii() and 0 not in value


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else struct.pack(">i", len(value)) + value
