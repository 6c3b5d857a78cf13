"""Tuples that PostgreSQL refuses, each for another reason, and the batches that hold them."""

import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from auditlog import ExecutionLogRecord, LogRecord, QuotaLogRecord, Settings
from auditlog.sink.database.copy import CopyTarget
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.encoding.tuples import fields
from auditlog.sink.queue.batch import Batch
from auditlog.tables import TABLES

_ENCODER = Encoder(Settings())
RECORDS: tuple[Any, ...] = (
    lambda number: LogRecord(user_id=f"{number:06}", request_url="/", metadata={"a": number}),
    lambda number: ExecutionLogRecord(execution_id="e", target_id="t", message=f"{number:06}"),
    lambda number: QuotaLogRecord(
        quota_id="q",
        previous_usage=0,
        current_usage=number,
        quota_limit=9,
        resource_owner="o",
        user_id=f"{number:06}",
        allowed=True,
    ),
)


def good(table: int, count: int) -> list[bytes]:
    """Tuples of a table that nobody refuses, each with an identity of its own."""
    return [_ENCODER.encode(RECORDS[table](number))[1] for number in range(count)]


def changed(table: int, row: bytes, **values: bytes | None) -> bytes:
    """A tuple with other bytes in some columns."""
    names = TABLES[table].column_names
    merged = dict(zip(names, fields(row), strict=True)) | values
    parts = (
        b"\xff\xff\xff\xff" if value is None else struct.pack(">i", len(value)) + value
        for value in merged.values()
    )
    return row[:2] + b"".join(parts)


def batch_of(*tables: Sequence[bytes], replay: bool = False) -> Batch:
    """A batch; what is left out at the end is empty."""
    rows = [list(tables[index]) if index < len(tables) else [] for index in range(len(TABLES))]
    return Batch(rows, None, replay=replay)  # type: ignore[arg-type]  # a target asks no source


@asynccontextmanager
async def target_of(dsn: str, **changes: Any) -> AsyncIterator[CopyTarget]:
    """A target for the length of the context."""

    async def resolve() -> str:
        return dsn

    target = CopyTarget(Settings(**changes), resolve)
    try:
        yield target
    finally:
        await target.close()


async def refusal(target: CopyTarget, batch: Batch) -> psycopg.Error:
    """The error that a batch meets; it has to meet one."""
    try:
        await target.write(batch)
    except psycopg.Error as error:
        return error
    raise AssertionError("the batch was written")


DEEP = b"\x01" + b"[" * 20_000 + b"]" * 20_000
"""Deeper than max_stack_depth = 100kB lets the parser go."""
INCOMPRESSIBLE = bytes(33 + 89 * n * n * n % 9_973 % 94 for n in range(3_000))
"""ASCII that pglz does not make small enough for a B-tree."""

POISON: dict[str, tuple[str, dict[str, bytes | None]]] = {
    "bad UTF-8": ("22021", {"message": b"a\xffb"}),
    "a surrogate": ("22021", {"message": b"\xed\xa0\x80"}),
    "an overlong form": ("22021", {"message": b"\xc0\x80"}),
    "NUL in a text": ("22021", {"message": b"a\0b"}),
    "NUL in jsonb": ("22P05", {"metadata": b'\x01{"a": "\\u0000"}'}),
    "half a surrogate in jsonb": ("22P02", {"metadata": b'\x01{"a": "\\ud800"}'}),
    "NaN in jsonb": ("22P02", {"metadata": b'\x01{"a": NaN}'}),
    "no JSON": ("22P02", {"metadata": b"\x01{"}),
    "bad UTF-8 in jsonb": ("22021", {"metadata": b'\x01"\xff"'}),
    "a number without end": ("22003", {"metadata": b"\x011e200000"}),
    "too deep": ("54001", {"metadata": DEEP}),
    "an enumeration's unknown value": ("23514", {"log_level": struct.pack(">h", 9)}),
    "a time that is none": ("22008", {"log_date": struct.pack(">q", -(2**62))}),
    "a tenant too long for an index": ("54000", {"instance_id": INCOMPRESSIBLE}),
    "a null that may not be": ("23502", {"log_date": None}),
    "a number of another size": ("22P04", {"log_level": b"\0\0\0\1"}),
    "half a number": ("22P04", {"log_level": b"\0"}),
    "another version of jsonb": ("22P04", {"metadata": b"\x02{}"}),
}
"""By name: the code, and the columns that are changed for it."""
