"""The fields of a tuple that may hold anything → texts that a terminal can bear.

Decodes as far as that goes. Bytes that are no UTF-8 and characters that do not print, such as
escapes and what turns the direction of writing, are written out as in a Python literal.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from auditlog.schema import SqlType
from auditlog.sink.encoding.storable import PG_EPOCH_US
from auditlog.sink.encoding.tuples import fields
from auditlog.tables import TABLES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGERS = frozenset({"smallint", "integer", "bigint"})
_SURROGATES = 0xDC00


def legible_fields(
    table_name: str, columns: Sequence[str], row: bytes
) -> list[tuple[str, str | None]]:
    """Return the columns' names with their values, None for NULL.

    Bytes that are no tuple of these columns are one field without a name.
    """
    try:
        values = dict(zip(columns, fields(row), strict=True))
    except (struct.error, ValueError):
        return [("", legible(row))]
    types = {
        column.name: column.type
        for table in TABLES
        if table.name == table_name
        for column in table.columns
    }
    return [
        (name, None if value is None else _decoded(types.get(name, "bytea"), value))
        for name, value in values.items()
    ]


def legible(data: bytes) -> str:
    """Return bytes as a text without anything that does not print."""
    return "".join(map(_printable, data.decode(errors="surrogateescape")))


def _printable(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    # What `surrogateescape` makes of a byte that is no UTF-8.
    if code >> 8 == _SURROGATES >> 8:
        return f"\\x{code - _SURROGATES:02x}"
    return character.encode("unicode_escape").decode()


def _decoded(kind: SqlType, value: bytes) -> str:
    if kind in _INTEGERS:
        return str(int.from_bytes(value, "big", signed=True))
    if kind == "timestamptz":
        return _instant(value)
    if kind == "boolean":
        return "true" if any(value) else "false"
    if kind == "jsonb":
        return legible(value.removeprefix(b"\x01"))
    return legible(value)


def _instant(value: bytes) -> str:
    unix_us = int.from_bytes(value, "big", signed=True) + PG_EPOCH_US
    try:
        return (_EPOCH + timedelta(microseconds=unix_us)).isoformat()
    except OverflowError:  # PostgreSQL knows years that Python does not
        return f"{unix_us} microseconds after 1970"
