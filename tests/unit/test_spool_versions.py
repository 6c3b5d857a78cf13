"""Segments of other versions: what can be converted is, what cannot is left where it is."""

import struct
from pathlib import Path
from zlib import crc32

import orjson
import pytest

from auditlog.sink.encoding.tuples import fields
from auditlog.sink.spool.columns import conversions
from auditlog.sink.spool.inspection import NEWER, survey, verify
from auditlog.sink.spool.layout import (
    CURRENT_TABLES,
    MAGIC,
    Header,
    NewerError,
    TableColumns,
    UnreadableError,
    pack_frame_head,
    pack_frame_sums,
    pack_header,
    read_header,
)
from auditlog.tables import LOGS, TABLES
from spool_scene import left_behind, recovered, row, segments, spool_at
from tuples import decode

LANE = "01990000-0000-7000-8000-00000000000"
LOGS_COLUMNS = CURRENT_TABLES[0][1]


def packed(values: list[bytes | None]) -> bytes:
    """A tuple of any columns."""
    parts = [struct.pack(">i", -1) if v is None else struct.pack(">i", len(v)) + v for v in values]
    return struct.pack(">h", len(values)) + b"".join(parts)


def segment_of(
    folder: Path,
    number: int,
    tables: tuple[TableColumns, ...],
    rows: list[bytes],
    *,
    first: int = 0,
) -> Path:
    """A segment as a version with these tables writes it."""
    lane = folder / f"{LANE}1"
    lane.mkdir(parents=True, exist_ok=True)
    data = pack_header(Header(lane.name, number, "old:1", first, 7, tables))
    for index, each in enumerate(rows, first):
        head = pack_frame_head(b"\xf5\x9a", 0, 0, len(each), index)
        head_sum = crc32(head, 7)
        data += head + pack_frame_sums(head_sum, crc32(each, head_sum)) + each
    path = lane / f"{number:010}.segment"
    path.write_bytes(data)
    return path


def test_older_columns_are_put_in_place(tmp_path: Path) -> None:
    """Another order, and columns that did not exist then: they become NULL."""
    old = tuple(
        column for column in reversed(LOGS_COLUMNS) if column[0] not in {"metadata", "user_id"}
    )
    whole = dict(zip(LOGS.column_names, fields(row(3, text="hello")), strict=True))
    assert whole["user_id"] is not None
    segment_of(tmp_path, 1, ((CURRENT_TABLES[0][0], old),), [packed([whole[c] for c, _ in old])])
    spool = spool_at(tmp_path)
    assert spool.adopt()
    taken = spool.take_recovered(10, 1 << 20)
    assert taken is not None
    (converted,) = taken.rows[0]
    expected = decode(LOGS, row(3, text="hello")) | {"metadata": None, "user_id": None}
    assert decode(LOGS, converted) | {"log_id": ""} == expected | {"log_id": ""}
    assert spool.lost() == []


def test_tables_are_found_by_name(tmp_path: Path) -> None:
    """Their place in the segment's own list does not matter."""
    turned = tuple(reversed(CURRENT_TABLES))
    assert [index for index, _ in conversions(turned)] == [2, 1, 0]
    assert all(convert is None for _, convert in conversions(turned))
    segment_of(tmp_path, 1, (*turned[2:], *turned[:2]), [row(1)])
    assert recovered(spool_at(tmp_path)) == [1]


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ((("logstore.others", LOGS_COLUMNS),), "table logstore.others"),
        ((("logstore.logs", (*LOGS_COLUMNS, ("colour", "text"))),), "column colour text"),
        (
            (("logstore.logs", tuple((c, "bytea") for c, _ in LOGS_COLUMNS)),),
            "column instance_id bytea",
        ),
        ((("logstore.logs", LOGS_COLUMNS[1:]),), "without its column instance_id"),
    ],
)
def test_newer_tables_are_left_untouched(
    tmp_path: Path, tables: tuple[TableColumns, ...], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a line that says what is not known, and what to do; other segments go their way."""
    segment_of(tmp_path, 1, CURRENT_TABLES, [row(0), row(1)])
    newer = segment_of(tmp_path, 2, tables, [row(2)], first=2)
    segment_of(tmp_path, 3, CURRENT_TABLES, [row(3)], first=3)
    before = newer.read_bytes()
    (finding,) = [each for each in verify(str(tmp_path)).findings if each.kind == NEWER]
    assert what in finding.detail
    spool = spool_at(tmp_path)
    assert (recovered(spool), spool.lost()) == ([0, 1, 3], [])
    assert [path.name for path in segments(tmp_path)] == [newer.name]
    assert newer.read_bytes() == before
    assert what in caplog.text
    assert "install that version" in caplog.text
    assert not spool.adopt(), "it is not looked at again by this process"
    assert not survey(str(tmp_path))[0].is_alive, "and free for whoever knows it"


def test_newer_format_is_left_untouched(tmp_path: Path) -> None:
    """Only magic and version have to be where they are."""
    lane = tmp_path / f"{LANE}2"
    lane.mkdir()
    path = lane / "0000000001.segment"
    path.write_bytes(MAGIC + struct.pack(">H", 2) + b"whatever comes")
    spool = spool_at(tmp_path)
    assert (recovered(spool), spool.lost()) == ([], [])
    assert path.read_bytes().startswith(MAGIC)


def test_tuple_that_is_none_of_its_columns_is_damage(tmp_path: Path) -> None:
    """Its sums are right, and what it holds is not."""
    old = LOGS_COLUMNS[:-1]
    whole = list(fields(row(5)))[:-1]
    rows = [packed(whole), packed(whole[:4]), packed(whole)]
    segment_of(tmp_path, 1, (("logstore.logs", old),), rows)
    spool = spool_at(tmp_path)
    assert recovered(spool) == [5, 5]
    assert [(lost.count, lost.exact) for lost in spool.lost()] == [(1, True)]
    assert len(list((tmp_path / "damaged").iterdir())) == 1


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"format": "other"},
        {"tables": [["logstore.logs"]]},
        {"tables": 5},
        {"first_number": -1},
        {"first_number": "1"},
        {"seed": None},
        {"lane": 5},
    ],
)
def test_header_that_says_nonsense_is_unreadable(document: object) -> None:
    """Though its sum is right."""
    if isinstance(document, dict) and document:
        good = {
            "format": "auditlog-spool",
            "lane": "l",
            "segment": 1,
            "writer": "w",
            "created_at": 1.5,
            "first_number": 0,
            "seed": 1,
            "tables": CURRENT_TABLES,
        }
        document = good | document
    text = orjson.dumps(document)
    start = struct.pack(">8sHHI", MAGIC, 1, 0, len(text))
    data = start + struct.pack(">I", crc32(text, crc32(start))) + bytes(32) + text
    with pytest.raises(UnreadableError):
        read_header(data.ljust(8192, b"\0"))


def test_this_version_converts_nothing(tmp_path: Path) -> None:
    """Its tuples pass as they are."""
    header = read_header(left_behind(tmp_path, [1]).read_bytes())
    assert header.tables == CURRENT_TABLES
    assert list(conversions(header.tables)) == [(index, None) for index in range(len(TABLES))]
    with pytest.raises(NewerError):
        conversions((("public.logs", LOGS_COLUMNS),))
