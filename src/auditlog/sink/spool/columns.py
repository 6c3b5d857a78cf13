"""Tuples of an older version → tuples of this one: columns in another order, columns that came.

What cannot be converted is not touched: a table or a column that this version does not know, or
one of another type. Segments of this very version are not converted at all.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from auditlog.sink.encoding.tuples import fields
from auditlog.sink.spool.layout import CURRENT_TABLES, NewerError, TableColumns
from auditlog.tables import TABLES, Table

Convert: TypeAlias = Callable[[bytes], bytes]
Conversions: TypeAlias = Sequence[tuple[int, Convert | None]]
"""By a segment's own table index: the index into `TABLES`, and how its tuples are converted."""

_NULL = b"\xff\xff\xff\xff"
_CURRENT: Conversions = tuple((index, None) for index in range(len(TABLES)))


def conversions(tables: Sequence[TableColumns]) -> Conversions:
    """Find how the tuples of a segment become tuples of this version.

    Raises:
        NewerError: they cannot; the message names the table or the column.
    """
    if tables == CURRENT_TABLES:
        return _CURRENT
    return tuple(_conversion(name, columns) for name, columns in tables)


def _conversion(name: str, columns: tuple[tuple[str, str], ...]) -> tuple[int, Convert | None]:
    for index, table in enumerate(TABLES):
        if table.qualified_name == name:
            if columns == CURRENT_TABLES[index][1]:
                return index, None
            return index, _converter(table, columns)
    raise NewerError(f"table {name}")


def _converter(table: Table, columns: tuple[tuple[str, str], ...]) -> Convert:
    known = dict(CURRENT_TABLES[TABLES.index(table)][1])
    for column, kind in columns:
        if known.get(column) != kind:
            raise NewerError(f"column {column} {kind} of {table.qualified_name}")
    positions = {column: position for position, (column, _) in enumerate(columns)}
    for current in table.columns:
        if current.name not in positions and not current.nullable:
            raise NewerError(f"{table.qualified_name} without its column {current.name}")
    order = [positions.get(column) for column in table.column_names]
    count = len(columns)

    def convert(row: bytes) -> bytes:
        values = list(fields(row))
        if len(values) != count:
            raise ValueError("a tuple that has not the columns of its segment")
        moved = (None if position is None else values[position] for position in order)
        return len(order).to_bytes(2, "big") + b"".join(map(_field, moved))

    return convert


def _field(value: bytes | None) -> bytes:
    return _NULL if value is None else len(value).to_bytes(4, "big") + value
