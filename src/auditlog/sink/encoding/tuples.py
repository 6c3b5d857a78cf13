"""What can be read out of an encoded tuple without a decoder: its tenant, its date, its fields.

A tuple is a field count, and per field a length (-1 for NULL) and that many bytes, all big-endian:
https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

import struct
from collections.abc import Iterator

from auditlog.sink.encoding.storable import PG_EPOCH_US
from auditlog.tables import LOGS, TABLES

_LOG_DATE = [table.column_names.index("log_date") for table in TABLES]
_LOGS = TABLES.index(LOGS)
_unpack_length = struct.Struct(">i").unpack_from
_unpack_date = struct.Struct(">q").unpack


def fields(row: bytes) -> Iterator[bytes | None]:
    """Yield the values of a tuple's columns; None for NULL."""
    position = 2
    while position < len(row):
        (length,) = _unpack_length(row, position)
        position += 4
        if length < 0:
            yield None
        else:
            yield row[position : position + length]
            position += length


def tenant_of(row: bytes) -> str:
    """Return the `instance_id`, which leads the tuples of all tables and has at most 255 bytes."""
    return row[6 : 6 + row[5]].decode()


def raw_log_date(table: int, row: bytes) -> bytes:
    """Cut `log_date` out of a tuple: 8 bytes, behind texts of which none has over 255.

    Args:
        table: Index into `TABLES`.
        row: The tuple.
    """
    if table == _LOGS:
        # Written out, for it is done for every row: behind two texts, each with its length.
        at = 14 + row[5] + row[9 + row[5]]
        return row[at : at + 8]
    position = 5
    for _ in range(_LOG_DATE[table]):
        position += 4 + row[position]
    return row[position + 1 : position + 9]


def log_date_of(table: int, row: bytes) -> int:
    """Return `log_date` in microseconds since 1970, UTC."""
    (pg_us,) = _unpack_date(raw_log_date(table, row))
    return int(pg_us) + PG_EPOCH_US
