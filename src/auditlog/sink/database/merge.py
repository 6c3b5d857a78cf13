"""Tuples of which some are stored already → one INSERT that adds the others.

The fields of a COPY tuple have the form of the elements of a binary array, so columns are glued
together and nothing is decoded: the bytes that COPY refuses are refused here too. No temporary
table, which would take the right to make one, and leave 50 dead rows in the catalogs each time; it
would be quicker by a third where all rows are new, but those are copied and not merged.

Formats: https://www.postgresql.org/docs/current/sql-copy.html, and `array_send` of the server.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper
from psycopg.pq import Format

from auditlog.sink.encoding.tuples import fields
from auditlog.tables import TABLES, Table

# https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat
_ELEMENT_OIDS = {
    "boolean": 16,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "text": 25,
    "timestamptz": 1184,
    "jsonb": 3802,
}
_NULL = b"\xff\xff\xff\xff"
_pack_length = struct.Struct(">i").pack
_pack_head = struct.Struct(">iiIii").pack


@dataclass(frozen=True, slots=True)
class Array:
    """A parameter in binary form, whose type the statement names."""

    data: bytes


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> bytes:
        return obj.data


def accept_arrays(context: AdaptContext) -> None:
    """Make a connection or a cursor take `Array` as a parameter."""
    context.adapters.register_dumper(Array, _ArrayDumper)


def columns_of(table: int, rows: Sequence[bytes]) -> list[Array]:
    """Turn tuples into their columns: the parameters of `MERGE` and `DIFFERING`.

    Raises:
        ValueError: one of them has another number of fields.
    """
    columns = zip(*(tuple(fields(row)) for row in rows), strict=True)
    described = TABLES[table].columns
    return [
        array_of(column.type, values) for column, values in zip(described, columns, strict=True)
    ]


def array_of(element_type: str, values: Sequence[bytes | None]) -> Array:
    """Put values together as an array of a type that a column of ours has."""
    head = _pack_head(1, 1, _ELEMENT_OIDS[element_type], len(values), 1)
    return Array(
        head
        + b"".join(_NULL if value is None else _pack_length(len(value)) + value for value in values)
    )


def _unnested(table: Table) -> str:
    return f"unnest({', '.join(f'%b::{column.type}[]' for column in table.columns)})"


def _merge(table: Table) -> str:
    names = ", ".join(table.column_names)
    # No conflict target: naming its columns would take the right to SELECT.
    return (
        f"INSERT INTO {table.qualified_name} ({names})"  # noqa: S608  # our own constants
        f" SELECT * FROM {_unnested(table)} ON CONFLICT DO NOTHING"
    )


def _differing(table: Table) -> str:
    names = ", ".join(table.column_names)
    key = " AND ".join(f"stored.{name} = sent.{name}" for name in table.primary_key)
    others = [name for name in table.column_names if name not in table.primary_key]
    same = " AND ".join(f"stored.{name} IS NOT DISTINCT FROM sent.{name}" for name in others)
    # Not a join: that could be a hash of the whole table, where a look at its key for each row is
    # enough. An aggregate, as each partition may have a row with that key.
    return (
        f"SELECT number::integer - 1 FROM {_unnested(table)}"  # noqa: S608  # our own constants
        f" WITH ORDINALITY AS sent ({names}, number) WHERE NOT coalesce((SELECT bool_or({same})"
        f" FROM {table.qualified_name} AS stored WHERE {key}), false) ORDER BY 1 LIMIT 1"
    )


MERGE: tuple[LiteralString, ...] = tuple(map(_merge, TABLES))
"""By table: adds the tuples whose identity is not there, and counts them."""
DIFFERING: tuple[LiteralString, ...] = tuple(map(_differing, TABLES))
"""By table: the number of the first tuple that is not there as it is, from 0."""
MAY_READ: LiteralString = "SELECT has_table_privilege(%s, 'SELECT')"
