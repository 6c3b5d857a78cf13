"""Raw bytes, as COPY sends them ↔ the data file of an archive, in each of its formats."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO

from auditlog.errors import PartitionError
from auditlog.partitions.archive.gzipped import compress, decompress
from auditlog.partitions.archive.manifest import DATA_FILES, Content, Manifest
from auditlog.partitions.archive.raw import (
    CHUNK_BYTES,
    CsvRows,
    Format,
    Passed,
    Sink,
    TextRows,
    watched,
)
from auditlog.partitions.archive.store import Store


def stop_without(fmt: Format) -> None:
    """Stop before anything was done if what the format needs is not installed."""
    if fmt == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise PartitionError("Parquet needs pyarrow: pip install 'auditlog-postgres[parquet]'")


def pack(content: Content, raw: Iterable[bytes], out: Sink, on_rows: Callable[[int], None]) -> int:
    """Write raw bytes as the data file; return how many rows they are."""
    if content.format == "parquet":
        # An extra, and slow to import.
        from auditlog.partitions.archive import parquet  # noqa: PLC0415

        return parquet.write(content.columns, raw, out, on_rows)
    counter = _counter(content.format)

    def count(chunk: bytes) -> None:
        counter.update(chunk)
        on_rows(counter.rows)

    compress(watched(raw, count), out)
    return counter.rows


def unpack(store: Store, manifest: Manifest, passed: Passed) -> Iterator[bytes]:
    """Read the data file and hand on the raw bytes; all of it is counted in `passed`.

    Raises:
        PartitionError: it cannot be what was packed.
    """
    content = manifest.content
    with store.reading(DATA_FILES[content.format]) as file:
        stored = watched(iter(partial(file.read, CHUNK_BYTES), b""), passed.stored.update)
        if content.format == "parquet":
            for _ in stored:
                pass
            # A file that is damaged is not given to a library in C++.
            agree("SHA-256 of what is stored", manifest.sizes.stored_sha256, passed.stored.sha256)
            chunks = _rows_of_parquet(content, file, passed)
        else:
            chunks = _counted(decompress(stored), _counter(content.format), passed)
        yield from watched(chunks, passed.raw.update)


def agree(what: str, expected: object, found: object) -> None:
    """Stop if the data is not what the manifest says.

    Raises:
        PartitionError: it is not.
    """
    if expected != found:
        raise PartitionError(
            f"the data is not what the manifest says: {what} {found} instead of {expected};"
            " take another copy of the archive"
        )


def _rows_of_parquet(content: Content, file: IO[bytes], passed: Passed) -> Iterator[bytes]:
    from auditlog.partitions.archive import parquet  # noqa: PLC0415  # an extra

    file.seek(0)
    return parquet.read(content.columns, file, passed)


def _counted(
    chunks: Iterable[bytes], counter: TextRows | CsvRows, passed: Passed
) -> Iterator[bytes]:
    for chunk in chunks:
        counter.update(chunk)
        passed.rows = counter.rows
        yield chunk


def _counter(fmt: Format) -> TextRows | CsvRows:
    return CsvRows() if fmt == "csv" else TextRows()
