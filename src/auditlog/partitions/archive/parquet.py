"""PostgreSQL's binary COPY ↔ Parquet, in batches. The only module that needs pyarrow.

Every value comes back as it was. Types that Parquet has are Parquet's, so that its readers can
query the file where it lies: text, numbers, booleans, instants in UTC. jsonb is its text, whose
numbers have every digit. Instants that Parquet has none for, the infinities and the last years of
PostgreSQL's calendar, are null in their column and stand in the column `BEYOND`. Other types are
the bytes that PostgreSQL sends.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812  # a class, whatever its name
from typing import IO, Any, TypeAlias, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from auditlog.errors import PartitionError
from auditlog.partitions.archive.binary import HEADER, TRAILER, rows_of, tuple_of
from auditlog.partitions.archive.fingerprints import StoredColumn
from auditlog.partitions.archive.raw import Passed, Sink

BEYOND = "beyond_parquet"
"""JSON: column → its value in microseconds since 2000, the smallest and largest for infinities."""
BATCH_ROWS = 16_384
BATCH_BYTES = 16 * 1024 * 1024
"""Whichever comes first is a row group; with it memory peaks at 260 MB, whatever the number of
rows, and at 180 MB with a quarter of it (2026-11-28)."""

Field: TypeAlias = bytes | None
_INSTANT = "timestamp with time zone"
_SINCE_2000_US = 946_684_800_000_000
_INT64 = range(-(2**63), 2**63)
_INFINITIES = (_INT64[0], _INT64[-1])
_JSONB_VERSION = b"\x01"
_STRUCTS = {
    "bigint": Struct(">q"),
    "integer": Struct(">i"),
    "smallint": Struct(">h"),
    _INSTANT: Struct(">q"),
}
_TYPES: dict[str, pa.DataType] = {
    "text": pa.string(),
    "jsonb": pa.string(),
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "smallint": pa.int16(),
    "boolean": pa.bool_(),
    _INSTANT: pa.timestamp("us", "UTC"),
}
_NOTES = {
    _INSTANT: f"null where {BEYOND} has the value",
    "jsonb": "the text of PostgreSQL",
}


def write(
    columns: Sequence[StoredColumn],
    raw: Iterable[bytes],
    out: Sink,
    on_rows: Callable[[int], None],
) -> int:
    """Write raw bytes as Parquet; return how many rows they are."""
    schema, done = _schema(columns), 0
    with pq.ParquetWriter(pa.PythonFile(out, mode="w"), schema, compression="zstd") as writer:
        for rows in _batches(rows_of(raw, len(columns))):
            writer.write_batch(_packed(columns, schema, rows))
            done += len(rows)
            on_rows(done)
    return done


def read(columns: Sequence[StoredColumn], file: IO[bytes], passed: Passed) -> Iterator[bytes]:
    """Read Parquet and hand on the raw bytes.

    Raises:
        PartitionError: `write` did not write that.
    """
    yield HEADER
    for batch in _read_batches(file, _schema(columns)):
        yield _tuples(columns, batch)
        passed.rows += batch.num_rows
    yield TRAILER


def _tuples(columns: Sequence[StoredColumn], batch: Any) -> bytes:
    try:
        return b"".join(map(tuple_of, zip(*_unpacked(columns, batch), strict=True)))
    except (AttributeError, TypeError, ValueError, StructError) as error:
        raise PartitionError(f"the Parquet file has odd values ({type(error).__name__})") from error


def _read_batches(file: IO[bytes], schema: pa.Schema) -> Iterator[Any]:
    try:
        with pq.ParquetFile(pa.PythonFile(file, mode="r")) as parquet:
            if not parquet.schema_arrow.equals(schema):
                raise PartitionError("the Parquet file has other columns than the manifest")
            yield from parquet.iter_batches(batch_size=BATCH_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise PartitionError(f"the Parquet file is damaged ({type(error).__name__})") from error


def _schema(columns: Sequence[StoredColumn]) -> pa.Schema:
    fields = [
        pa.field(column.name, _TYPES.get(column.type, pa.binary()), metadata=_metadata(column))
        for column in columns
    ]
    return pa.schema([*fields, pa.field(BEYOND, pa.string())])


def _metadata(column: StoredColumn) -> dict[str, str]:
    default = "" if column.type in _TYPES else "the bytes that PostgreSQL sends"
    note = _NOTES.get(column.type, default)
    return {"postgresql.type": column.type} | ({"note": note} if note else {})


def _batches(rows: Iterator[list[Field]]) -> Iterator[list[list[Field]]]:
    waiting: list[list[Field]] = []
    size = 0
    for row in rows:
        waiting.append(row)
        size += sum(map(len, filter(None, row)))
        if len(waiting) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def _packed(columns: Sequence[StoredColumn], schema: pa.Schema, rows: list[list[Field]]) -> Any:
    """Return a batch of Arrow's."""
    beyond: dict[int, dict[str, int]] = {}
    arrays = []
    for index, (column, values) in enumerate(zip(columns, zip(*rows, strict=True), strict=True)):
        plain = _decoded(column, values, beyond)
        arrays.append(pa.array(plain, type=schema.field(index).type))
    notes = [orjson.dumps(beyond[row]) if row in beyond else None for row in range(len(rows))]
    arrays.append(pa.array(notes, type=pa.string()))
    return pa.record_batch(arrays, schema=schema)


def _decoded(
    column: StoredColumn, values: Sequence[Field], beyond: dict[int, dict[str, int]]
) -> Sequence[Any]:
    if column.type == "jsonb":
        return [_json_text(value) for value in values]
    if column.type == "boolean":
        return [None if value is None else value == b"\x01" for value in values]
    if column.type not in _STRUCTS:
        return values
    unpack = _STRUCTS[column.type].unpack
    numbers = [None if value is None else unpack(value)[0] for value in values]
    return _instants(column.name, numbers, beyond) if column.type == _INSTANT else numbers


def _json_text(value: Field) -> Field:
    if value is not None and not value.startswith(_JSONB_VERSION):
        raise PartitionError("the server sends jsonb in a version that is not known here")
    return value and value[1:]


def _instants(
    name: str, since_2000: list[int | None], beyond: dict[int, dict[str, int]]
) -> list[int | None]:
    instants: list[int | None] = []
    for row, value in enumerate(since_2000):
        is_beyond = value is not None and (
            value in _INFINITIES or value + _SINCE_2000_US not in _INT64
        )
        if is_beyond:
            beyond.setdefault(row, {})[name] = cast("int", value)
        instants.append(None if value is None or is_beyond else value + _SINCE_2000_US)
    return instants


def _unpacked(columns: Sequence[StoredColumn], batch: Any) -> Iterator[list[Field]]:
    """Hand on the fields of each column, as PostgreSQL sent them."""
    notes = batch.column(len(columns)).to_pylist()
    beyond = {row: orjson.loads(note) for row, note in enumerate(notes) if note}
    for index, column in enumerate(columns):
        yield _encoded(column, batch.column(index), beyond)


def _encoded(column: StoredColumn, array: Any, beyond: dict[int, dict[str, int]]) -> list[Field]:
    if column.type == "boolean":
        return [None if v is None else bytes((v,)) for v in array.to_pylist()]
    if column.type not in _STRUCTS:
        prefix = _JSONB_VERSION if column.type == "jsonb" else b""
        return [None if v is None else prefix + v for v in array.cast(pa.binary()).to_pylist()]
    pack = _STRUCTS[column.type].pack
    if column.type != _INSTANT:
        return [None if v is None else pack(v) for v in array.to_pylist()]
    instants = array.cast(pa.int64()).to_pylist()
    fields = [None if v is None else pack(v - _SINCE_2000_US) for v in instants]
    for row, values in beyond.items():
        if column.name in values:
            fields[row] = pack(values[column.name])
    return fields
