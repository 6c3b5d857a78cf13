"""Reads binary COPY tuples back, as PostgreSQL would, and checks their form on the way."""

import struct
from typing import Any

import orjson

from auditlog.records import Record
from auditlog.settings import Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.tables import TABLES, Table

PG_EPOCH_US = 946_684_800_000_000
INTEGERS = {"smallint": ">h", "integer": ">i", "bigint": ">q"}


def decode(table: Table, row: bytes) -> dict[str, Any]:
    """The values by column: instants in microseconds of the Unix epoch, jsonb parsed."""
    (count,) = struct.unpack_from(">h", row)
    assert count == len(table.columns)
    values: dict[str, Any] = {}
    position = 2
    for column in table.columns:
        (length,) = struct.unpack_from(">i", row, position)
        position += 4
        if length < 0:
            assert length == -1
            assert column.nullable, column.name
            values[column.name] = None
            continue
        data = row[position : position + length]
        assert len(data) == length
        position += length
        values[column.name] = _value(column.type, data)
    assert position == len(row)
    return values


def encoded(record: Record, settings: Settings | None = None) -> dict[str, Any]:
    """What a record becomes, by column."""
    table, row = Encoder(settings or Settings()).encode(record)
    return decode(TABLES[table], row)


def repaired(values: dict[str, Any]) -> list[str]:
    """The names that the row says were changed."""
    metadata = values["metadata"]
    return list(metadata.get("audit.repaired", [])) if isinstance(metadata, dict) else []


def _value(kind: str, data: bytes) -> Any:
    if kind == "text":
        text = data.decode()
        assert "\0" not in text
        return text
    if kind == "timestamptz":
        return struct.unpack(">q", data)[0] + PG_EPOCH_US
    if kind == "boolean":
        assert data in (b"\0", b"\1")
        return data == b"\1"
    if kind == "jsonb":
        assert data[:1] == b"\1"
        return orjson.loads(data[1:])
    return struct.unpack(INTEGERS[kind], data)[0]
