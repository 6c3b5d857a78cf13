"""What is written into `logstore.batches` for a batch: who, how much, from when to when, its hash.

Pure: the statement and its parameters, for whoever holds a connection.
"""

import hashlib
import os
import socket
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from auditlog.sink.encoding.storable import PG_EPOCH_US
from auditlog.sink.encoding.tuples import raw_log_date
from auditlog.tables import BATCHES

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_SIGN_BIT = 0x80
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COLUMNS = (
    "batch_id, writer, logs, execution_logs, quota_logs, bytes, first_log_date, last_log_date,"
    " sha256"
)
LEDGER: LiteralString = f"""
    INSERT INTO {BATCHES.qualified_name} ({_COLUMNS})
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (batch_id) DO NOTHING
"""  # noqa: S608  # our own constants
LOCK_LEDGER: LiteralString = f"""
    INSERT INTO {BATCHES.qualified_name} ({_COLUMNS})
    SELECT NULL::uuid, '', 0, 0, 0, 0, NULL, NULL, ''::bytea WHERE false
"""
"""Adds nothing, and takes the lock that adding takes: LOCK TABLE would need more rights.

For whoever writes the rows before the ledger: migrations lock the ledger first, and in another
order the two would wait for each other.
"""


def ledger_row(
    batch_id: UUID,
    writer: str,
    rows: Sequence[list[bytes]],
    streams: Sequence[bytes],
    added: Sequence[int],
) -> tuple[Any, ...]:
    """Return the parameters of `LEDGER`.

    Args:
        batch_id: The identity of the batch.
        writer: The process that writes it.
        rows: What was sent, by table.
        streams: The same as COPY streams; the hash is of these.
        added: How many rows of each table are new.
    """
    digest = hashlib.sha256()
    for stream in streams:
        digest.update(stream)
    size = sum(map(len, streams))
    return (batch_id, writer, *added, size, *_date_range(rows), digest.digest())


def copy_stream(rows: list[bytes]) -> bytes:
    """Return the COPY stream of some tuples: what the ledger measures and hashes."""
    return b"".join((_SIGNATURE, *rows, _TRAILER))


def writer_name() -> str:
    """Return this process's name in the ledger."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _date_range(rows: Sequence[list[bytes]]) -> tuple[datetime | None, datetime | None]:
    dates = [raw_log_date(table, row) for table, of_table in enumerate(rows) for row in of_table]
    if not dates:
        return None, None
    # As big-endian bytes dates are in order, unless one is negative, before 2000; so none has to be
    # unpacked.
    first, last = min(dates), max(dates)
    if last[0] & _SIGN_BIT:
        dates.sort(key=lambda date: int.from_bytes(date, "big", signed=True))
        first, last = dates[0], dates[-1]
    return _instant(first), _instant(last)


def _instant(date: bytes) -> datetime | None:
    pg_us = int.from_bytes(date, "big", signed=True)
    try:
        return _EPOCH + timedelta(microseconds=pg_us + PG_EPOCH_US)
    except OverflowError:  # PostgreSQL knows years that Python does not
        return None
