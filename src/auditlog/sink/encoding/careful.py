"""Any record of any table → a binary COPY tuple, column by column, whatever is in it.

The slow twin of the quick path in `encode.py`: it decides by the column's type in `tables.py`,
replaces what PostgreSQL cannot store, cuts what is too long, and names each changed field under
`audit.repaired` in the row's metadata. It never raises on a value.

The budgets below add up to less than a row's limit: 9/64 for identifiers, whose own limit is 1/64
of the smallest that a row may have; 1/8 each for url, message and headers, 3/8 for metadata, 1/16
for the mark, 1/4 for a stack trace (which has no url beside it).
"""

import struct
import time
from collections.abc import Callable
from typing import Any

import orjson
import uuid_utils

from auditlog.records import Record
from auditlog.sink.encoding.storable import (
    WHOLE,
    storable_integer,
    storable_json,
    storable_text,
    storable_timestamp,
)
from auditlog.tables import Column, Table

REPAIRED = "audit.repaired"

_NULL = b"\xff\xff\xff\xff"
_JSONB_VERSION = b"\x01"
_MAX_NAMES = 16
_MAX_NAME_CHARS = 64
_IDENTIFIER_BYTES = 255
_INTEGERS = {
    "smallint": (">h", -(2**15), 2**15 - 1),
    "integer": (">i", -(2**31), 2**31 - 1),
    "bigint": (">q", -(2**63), 2**63 - 1),
}
# Narrower than the type, as the columns' CHECK constraints are.
_BOUNDS = {"protocol": (0, 3), "log_level": (1, 4), "response_time_ms": (0, 2**31 - 1)}
# What an impossible enumeration value becomes: unknown, info. Other numbers become NULL, or 0.
_DEFAULTS = {"protocol": 0, "log_level": 1}


def careful_tuple(record: Record, table: Table, *, instance_id: str, max_bytes: int) -> bytes:
    """Encode one record for one table in at most `max_bytes`."""
    values = _complete(record, table, instance_id)
    repaired: list[str] = []
    fields: dict[str, bytes] = {}
    for column in table.columns:
        if column.name != "metadata":
            fields[column.name] = _field(column, values[column.name], max_bytes, repaired)
    if "metadata" in values:
        fields["metadata"] = _metadata(values["metadata"], max_bytes, repaired)
    head = struct.pack(">h", len(table.columns))
    return head + b"".join(fields[name] for name in table.column_names)


def _complete(record: Record, table: Table, instance_id: str) -> dict[str, Any]:
    """The columns' values with identity and both clocks filled in."""
    values = {name: getattr(record, name, None) for name in table.column_names}
    for name, replacement in (("instance_id", instance_id), ("log_id", _new_log_id())):
        # Not by truth: `__bool__` of a foreign object may raise.
        if values[name] is None or (type(values[name]) is str and not values[name]):
            values[name] = replacement
    if values["log_date"] is None:
        values["log_date"] = time.time_ns() // 1000
    if "occurrence_date" in values and values["occurrence_date"] is None:
        values["occurrence_date"] = values["log_date"]
    return values


def _field(column: Column, value: Any, max_bytes: int, repaired: list[str]) -> bytes:
    if value is None and column.nullable:
        return _NULL
    data, changed = _ENCODERS[column.type](column, value, max_bytes)
    if changed:
        repaired.append(column.name)
    return _NULL if data is None else struct.pack(">i", len(data)) + data


def _metadata(value: Any, max_bytes: int, repaired: list[str]) -> bytes:
    if value is None and not repaired:
        return _NULL
    data, changed = storable_json({} if value is None else value, max_bytes * 3 // 8)
    names = repaired + ["metadata" if name == WHOLE else f"metadata.{name}" for name in changed]
    if names:
        data = _with_mark(data, _mark(names, max_bytes // 16))
    return struct.pack(">i", len(data) + 1) + _JSONB_VERSION + data


def _mark(names: list[str], max_bytes: int) -> bytes:
    """An object with the names, cut and counted: the mark must not become the next oversize."""
    shown = [name[:_MAX_NAME_CHARS] for name in names[:_MAX_NAMES]]
    while True:
        hidden = len(names) - len(shown)
        mark = orjson.dumps({REPAIRED: [*shown, f"and {hidden} more"] if hidden else shown})
        if len(mark) <= max_bytes or not shown:
            return mark
        shown.pop()


def _with_mark(data: bytes, mark: bytes) -> bytes:
    if data == b"{}":
        return mark
    if data.startswith(b"{"):
        return data[:-1] + b"," + mark[1:]
    return b'{"value":' + data + b"," + mark[1:]


def _new_log_id() -> str:
    return str(uuid_utils.uuid7())


def _text_field(column: Column, value: Any, max_bytes: int) -> tuple[bytes, bool]:
    if value is None:
        return b"", True
    limit = column.max_bytes or max_bytes
    if limit <= _IDENTIFIER_BYTES:
        data, changed = storable_text(value, limit)
        # What is left of two identities may be the same, and the second row would be refused.
        return (
            (_new_log_id().encode(), True)
            if changed and column.name == "log_id"
            else (data, changed)
        )
    share = 4 if column.name == "stack_trace" else 8
    return storable_text(value, min(limit, max_bytes // share))


def _timestamp_field(_column: Column, value: Any, _max_bytes: int) -> tuple[bytes, bool]:
    number, changed = storable_timestamp(value)
    return struct.pack(">q", number), changed


def _integer_field(column: Column, value: Any, _max_bytes: int) -> tuple[bytes | None, bool]:
    layout, low, high = _INTEGERS[column.type]
    low, high = _BOUNDS.get(column.name, (low, high))
    number, changed = storable_integer(value, low, high)
    if changed:
        number = _DEFAULTS.get(column.name, number)
    if number is None:
        if column.nullable:
            return None, True
        number = 0
    return struct.pack(layout, number), changed


def _boolean_field(_column: Column, value: Any, _max_bytes: int) -> tuple[bytes, bool]:
    return (b"\x01" if value is True else b"\x00"), value is not True and value is not False


def _json_field(_column: Column, value: Any, max_bytes: int) -> tuple[bytes, bool]:
    data, changed = storable_json(value, max_bytes // 8)
    return _JSONB_VERSION + data, bool(changed)


_ENCODERS: dict[str, Callable[[Column, Any, int], tuple[bytes | None, bool]]] = {
    "text": _text_field,
    "timestamptz": _timestamp_field,
    "smallint": _integer_field,
    "integer": _integer_field,
    "bigint": _integer_field,
    "boolean": _boolean_field,
    "jsonb": _json_field,
}
