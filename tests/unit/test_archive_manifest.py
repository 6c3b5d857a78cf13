"""A manifest of whoever's making: read, or refused with a word that helps; and what it counts."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.errors import PartitionError
from auditlog.partitions.archive.binary import HEADER, TRAILER, rows_of, tuple_of
from auditlog.partitions.archive.fingerprints import Fingerprint, StoredColumn
from auditlog.partitions.archive.gzipped import compress, decompress
from auditlog.partitions.archive.manifest import Content, Manifest, Sizes, decode
from auditlog.partitions.archive.raw import CHUNK_BYTES, CsvRows, TextRows, joined

CONTENT = Content(
    table="logs",
    partition="logs_p202612",
    lower=datetime(2026, 12, 1, tzinfo=UTC),
    upper=datetime(2027, 1, 1, tzinfo=UTC),
    columns=(StoredColumn("instance_id", "text", True), StoredColumn("log_id", "text", True)),
    fingerprint=Fingerprint(2, "-47", "2026-12-01 00:00:00+00", "infinity"),
    format="copy",
)
MANIFEST = Manifest(
    CONTENT,
    Sizes(100, "a" * 64, 50, "b" * 64),
    "18.4",
    "shop",
    "1.0",
    "2027-02-01T03:00:00+00:00",
)


def changed(**changes: object) -> bytes:
    return orjson.dumps(orjson.loads(MANIFEST.encode()) | changes)


def test_manifest_reads_what_it_wrote() -> None:
    """An unbounded one and one without rows, too."""
    empty = Fingerprint(0, "0", None, None)
    for content in (CONTENT, replace(CONTENT, lower=None), replace(CONTENT, fingerprint=empty)):
        manifest = replace(MANIFEST, content=content)
        assert decode(manifest.encode()) == manifest


def test_folder_changes_with_everything_that_is_archived() -> None:
    """So two contents are never in one place."""
    others = [
        replace(CONTENT, table="quota_logs"),
        replace(CONTENT, partition="logs_p202611"),
        replace(CONTENT, lower=None),
        replace(CONTENT, upper=datetime(2027, 1, 2, tzinfo=UTC)),
        replace(CONTENT, columns=CONTENT.columns[:1]),
        replace(CONTENT, fingerprint=replace(CONTENT.fingerprint, rows=3)),
        replace(CONTENT, fingerprint=replace(CONTENT.fingerprint, checksum="47")),
        replace(CONTENT, format="csv"),
    ]
    digests = {content.digest for content in (CONTENT, *others)}
    assert len(digests) == len(others) + 1


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "..", "a/b", 'x"y', "a b", "Ä", "%2e%2e", "a\nb"]
)
def test_folder_is_one_name_whatever_the_partition_is_called(name: str) -> None:
    """PostgreSQL allows all of them."""
    folder = replace(CONTENT, partition=name).folder
    assert not set(folder) & set('/\\ \n"')
    assert folder not in {".", ".."}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"47",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        changed(format_version=2),
        changed(format_version="1"),
        changed(table="pg_authid"),
        changed(table="../logs"),
        changed(table=None),
        changed(table=["logs"]),
        changed(partition=""),
        changed(partition="x" * 64),
        changed(partition="a\0b"),
        changed(partition=47),
        changed(format="exe"),
        changed(rows=-1),
        changed(rows=True),
        changed(rows="2"),
        changed(rows=2.0),
        changed(checksum=47),
        changed(raw_bytes=None),
        changed(stored_sha256=7),
        changed(lower=None),
        changed(lower="yesterday"),
        changed(upper="infinity"),
        changed(upper="2027-01-01T00:00:00"),
        changed(columns=None),
        changed(columns="abc"),
        changed(columns=[["instance_id", "text"]]),
        changed(columns=[{"name": "a\0", "type": "text", "is_required": True}]),
        changed(columns=[{"name": "a", "type": None, "is_required": True}]),
        changed(created_at={}),
    ],
)
def test_hostile_manifest_is_refused(data: bytes) -> None:
    """With an error of ours, whatever it is."""
    with pytest.raises(PartitionError, match="manifest"):
        decode(data)


@given(
    st.dictionaries(
        st.sampled_from(sorted(orjson.loads(MANIFEST.encode()))),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
            max_leaves=5,
        ),
    )
)
def test_manifest_of_anything_is_read_or_refused(changes: dict[str, Any]) -> None:
    """There is no third."""
    try:
        manifest = decode(changed(**changes))
    except PartitionError:
        return
    assert decode(manifest.encode()) == manifest


def test_data_file_that_a_manifest_names_is_not_asked_for() -> None:
    """It follows from the format."""
    assert decode(changed(file="../../../etc/passwd")) == MANIFEST


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(
    st.lists(st.lists(st.text(alphabet='a",\n\r;é'), min_size=2, max_size=2), max_size=8),
    st.integers(1, 9),
)
def test_rows_of_csv_are_counted_across_chunks(rows: list[list[str]], size: int) -> None:
    """As the standard library reads them, wherever a chunk ends."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([["x", "y"], *rows])
    counter = CsvRows()
    for piece in pieces(out.getvalue().encode(), size):
        counter.update(piece)
    assert counter.rows == len(rows)


def test_rows_of_text_are_line_feeds() -> None:
    """COPY writes those inside of values as two letters."""
    counter = TextRows()
    for piece in (b"a\\nb\t1\nc", b"\t2\n", b""):
        counter.update(piece)
    assert counter.rows == 2


@given(
    st.lists(st.lists(st.none() | st.binary(max_size=9), min_size=3, max_size=3), max_size=6),
    st.integers(1, 40),
)
def test_binary_rows_survive_any_chunks(rows: list[list[bytes | None]], size: int) -> None:
    """Taken apart and put together again."""
    data = HEADER + b"".join(map(tuple_of, rows)) + TRAILER
    assert list(rows_of(pieces(data, size), 3)) == rows


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER[:-1],
        HEADER,
        b"x" * 40,
        HEADER + tuple_of([b"a", b"b"]) + TRAILER,
        HEADER + tuple_of([b"a"]),
        HEADER + tuple_of([b"a"])[:-1] + TRAILER,
        HEADER + TRAILER + b"more",
        HEADER + b"\x00\x01\x7f\xff\xff\xff" + TRAILER,
    ],
)
def test_binary_that_is_none_is_refused(data: bytes) -> None:
    """In one chunk, or byte by byte."""
    for size in (1, len(data) or 1):
        with pytest.raises(PartitionError, match="binary COPY"):
            list(rows_of(pieces(data, size), 1))


@given(st.binary(max_size=2000), st.integers(1, 500))
def test_gzip_survives_any_chunks(data: bytes, size: int) -> None:
    """What goes in comes out."""
    out = io.BytesIO()
    compress(pieces(data, size), out)
    assert b"".join(decompress(pieces(out.getvalue(), size))) == data


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "ends before its end"),
        (lambda _: b"", "ends before its end"),
        (lambda data: data + b"x", "something follows"),
        (lambda data: b"x" + data[1:], "is damaged"),
    ],
)
def test_gzip_that_is_not_whole_is_told(damage: Callable[[bytes], bytes], words: str) -> None:
    """In one chunk, or byte by byte."""
    out = io.BytesIO()
    compress([b"some text"], out)
    data = damage(out.getvalue())
    for size in (1, len(data) or 1):
        with pytest.raises(PartitionError, match=words):
            list(decompress(pieces(data, size)))


def test_gzip_that_swells_comes_in_bounded_chunks() -> None:
    """However few bytes it was."""
    out = io.BytesIO()
    size = 3 * CHUNK_BYTES + 1
    compress([bytes(size)], out)
    chunks = list(decompress([out.getvalue()]))
    assert sum(map(len, chunks)) == size
    assert max(map(len, chunks)) <= CHUNK_BYTES


def test_chunks_are_joined_up_to_a_size() -> None:
    """And nothing is left behind."""
    chunks = list(joined([b"x" * 100] * (CHUNK_BYTES // 100 + 2)))
    assert len(chunks) == 2
    assert sum(map(len, chunks)) == (CHUNK_BYTES // 100 + 2) * 100
