"""Any record of any table → a binary COPY tuple, column by column, whatever is in it.

The slow twin of the quick path in `encode.py`: it decides by the column's type in `tables.py`,
replaces what PostgreSQL cannot store, cuts what is too long, and names each changed field under
`audit.repaired` in the row's metadata. It never raises on a value.

The budgets below add up to less than a row's limit: 9/64 for identifiers, 1/8 each for url,
message and headers, 3/8 for metadata, 1/4 for a stack trace (which has no url beside it).
"""

import struct
import time
from collections.abc import Callable
from typing import Any

import orjson
import uuid_utils

from auditlog.records import Record
from auditlog.sink.storable import (
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
# What an impossible enumeration value becomes: unknown, info.
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
        fields["metadata"] = _metadata(values["metadata"], max_bytes * 3 // 8, repaired)
    head = struct.pack(">h", len(table.columns))
    return head + b"".join(fields[name] for name in table.column_names)


def _complete(record: Record, table: Table, instance_id: str) -> dict[str, Any]:
    """The columns' values with identity and both clocks filled in."""
    values = {name: getattr(record, name) for name in table.column_names}
    values["instance_id"] = values["instance_id"] or instance_id
    values["log_id"] = values["log_id"] or str(uuid_utils.uuid7())
    if values["log_date"] is None:
        values["log_date"] = time.time_ns() // 1000
    if "occurrence_date" in values and values["occurrence_date"] is None:
        values["occurrence_date"] = values["log_date"]
    return values


def _field(column: Column, value: Any, max_bytes: int, repaired: list[str]) -> bytes:
    if value is None:
        if column.nullable:
            return _NULL
        value = _DEFAULTS.get(column.name)
    data, changed = _ENCODERS[column.type](column, value, max_bytes)
    if changed:
        repaired.append(column.name)
    return struct.pack(">i", len(data)) + data


def _metadata(value: Any, max_bytes: int, repaired: list[str]) -> bytes:
    if value is None and not repaired:
        return _NULL
    data, changed = storable_json({} if value is None else value, max_bytes)
    names = repaired + [f"metadata.{name}" for name in changed]
    if names:
        data = _with_mark(data, names)
    return struct.pack(">i", len(data) + 1) + _JSONB_VERSION + data


def _with_mark(data: bytes, names: list[str]) -> bytes:
    # Names only, cut and counted: the mark must not become the next oversize.
    mark = orjson.dumps({REPAIRED: [name[:_MAX_NAME_CHARS] for name in names[:_MAX_NAMES]]})
    if not data.startswith(b"{") or data == b"{}":
        return mark
    return data[:-1] + b"," + mark[1:]


def _text_field(column: Column, value: Any, max_bytes: int) -> tuple[bytes, bool]:
    limit = column.max_bytes or max_bytes
    if limit <= _IDENTIFIER_BYTES:
        return storable_text(value, min(limit, max_bytes // 64))
    share = 4 if column.name == "stack_trace" else 8
    return storable_text(value, min(limit, max_bytes // share))


def _timestamp_field(_column: Column, value: Any, _max_bytes: int) -> tuple[bytes, bool]:
    number, changed = storable_timestamp(value)
    return struct.pack(">q", number), changed


def _integer_field(column: Column, value: Any, _max_bytes: int) -> tuple[bytes, bool]:
    layout, low, high = _INTEGERS[column.type]
    low, high = _BOUNDS.get(column.name, (low, high))
    number, changed = storable_integer(value, low, high)
    if changed:
        number = _DEFAULTS.get(column.name, number)
    return struct.pack(layout, number), changed


def _boolean_field(_column: Column, value: Any, _max_bytes: int) -> tuple[bytes, bool]:
    return (b"\x01" if value is True else b"\x00"), not isinstance(value, bool)


def _json_field(_column: Column, value: Any, max_bytes: int) -> tuple[bytes, bool]:
    data, changed = storable_json(value, max_bytes // 8)
    return _JSONB_VERSION + data, bool(changed)


_ENCODERS: dict[str, Callable[[Column, Any, int], tuple[bytes, bool]]] = {
    "text": _text_field,
    "timestamptz": _timestamp_field,
    "smallint": _integer_field,
    "integer": _integer_field,
    "bigint": _integer_field,
    "boolean": _boolean_field,
    "jsonb": _json_field,
}
