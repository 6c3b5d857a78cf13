"""The smallest safe form: total over all bytes, still a tuple, and honest about what is missing."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog import ExecutionLogRecord, LogRecord, QuotaLogRecord, Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.encoding.reduced import is_tuple, reduced, tuple_of
from auditlog.sink.encoding.tuples import fields
from auditlog.tables import LOGS, TABLES
from poison import POISON, changed, good
from tuples import decode

TABLE_NUMBERS = range(len(TABLES))
FULL = LogRecord(
    user_id="ada",
    aggregate_type="order",
    aggregate_id="Bücher",
    event_sequence=7,
    event_type="order.cancelled",
    resource_owner="org-1",
    protocol=1,
    request_url="/ä?a=1",
    request_method="GET",
    request_headers={"accept": ["*/*"]},
    response_status=500,
    response_time_ms=12,
    log_level=3,
    message="it broke",
    metadata={"audit.outcome": "server_error"},
)


def test_numbers_clocks_and_words_are_kept() -> None:
    """Texts, JSON and identifiers beyond ASCII are not, and are named."""
    table, row = Encoder(Settings()).encode(FULL)
    before, after = decode(LOGS, row), decode(LOGS, reduced(table, row, "22021"))
    dropped = ["aggregate_id", "request_url", "request_headers", "message", "metadata"]
    assert after.pop("metadata") == {
        "audit.outcome": "server_error",
        "audit.reduced": "22021",
        "audit.repaired": dropped,
    }
    assert after == {
        name: None if name in dropped else value
        for name, value in before.items()
        if name != "metadata"
    }


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (b'{"audit.stage": "complete", "audit.exchange_id": "01a2", "x": "\\u0000"}', True),
        (b'{"audit.stage": "complete", "audit.exchange_id": "01a2", "audit.rule": "x"}', True),
        (b'{"audit.stage": "complete", "audit.exchange_id": "01a2", "x": NaN}', False),
        (b'{"audit.stage": "\xc3\xa4", "audit.exchange_id": "\\u0000"}', False),
        (b'{"audit.stage": ["complete"], "audit.outcome": null}', False),
        (b'["audit.stage"]', False),
        (b"[" * 50_000, False),
        (b"", False),
    ],
)
def test_what_ties_a_row_to_others_is_kept(metadata: bytes, kept: bool) -> None:
    """So that a request that was refused is not taken for the evidence of a crash."""
    row = changed(0, good(0, 1)[0], metadata=b"\x01" + metadata)
    said = decode(LOGS, reduced(0, row, "22021"))["metadata"]
    ties = {"audit.stage": "complete", "audit.exchange_id": "01a2"} if kept else {}
    assert said == ties | {"audit.reduced": "22021", "audit.repaired": ["request_url", "metadata"]}


def test_text_that_may_not_be_null_is_empty() -> None:
    record = ExecutionLogRecord(execution_id="e", target_id="ä", message="x")
    table, row = Encoder(Settings()).encode(record)
    after = decode(TABLES[table], reduced(table, row, "54000"))
    assert (after["message"], after["target_id"]) == ("", "")
    assert after["metadata"] == {
        "audit.reduced": "54000",
        "audit.repaired": ["target_id", "message"],
    }


def test_table_without_metadata_loses_what_is_unsafe_all_the_same() -> None:
    record = QuotaLogRecord(
        quota_id="q",
        previous_usage=1,
        current_usage=2,
        quota_limit=3,
        resource_owner="ö",
        user_id="ü",
        action="a",
        allowed=True,
    )
    table, row = Encoder(Settings()).encode(record)
    before, after = decode(TABLES[table], row), decode(TABLES[table], reduced(table, row, "22021"))
    assert after == before | {"resource_owner": "", "user_id": None}


@pytest.mark.parametrize("table", TABLE_NUMBERS)
def test_what_has_nothing_to_leave_out_stays_as_it_is(table: int) -> None:
    """So that nobody sends the same bytes twice."""
    bare = changed(table, good(table, 1)[0], **_without_texts(table))
    assert reduced(table, bare, "22021") == bare


@pytest.mark.parametrize("kind", POISON)
def test_poison_leaves_a_tuple_that_has_its_identity(kind: str) -> None:
    row = changed(0, good(0, 1)[0], **POISON[kind][1])
    smallest = reduced(0, row, "22021")
    assert list(fields(smallest))[:2] == list(fields(row))[:2]
    assert smallest == row or is_tuple(0, smallest)


def test_form_is_judged_as_the_server_does() -> None:
    """The number of fields, their sizes, and the version of jsonb."""
    row = good(0, 1)[0]
    assert is_tuple(0, row)
    assert not is_tuple(1, row)
    assert not is_tuple(0, row[:-1])
    assert not is_tuple(0, row + b"\0")
    assert not is_tuple(0, struct.pack(">h", 18) + row[2:])
    assert not is_tuple(0, row.replace(b"\xff\xff\xff\xff", b"\xff\xff\xff\xfe", 1))


@given(st.sampled_from(TABLE_NUMBERS), st.binary(max_size=200))
def test_bytes_that_are_no_tuple_come_back(table: int, data: bytes) -> None:
    assert reduced(table, data, "22021") == data
    assert not is_tuple(table, data)


@given(st.sampled_from(TABLE_NUMBERS), st.data())
def test_any_tuple_becomes_one_that_is_ascii_but_for_its_identity(
    table: int, data: st.DataObject
) -> None:
    """Whatever is in its fields, the form is kept."""
    values = [data.draw(_field_of(column)) for column in TABLES[table].columns]
    row = tuple_of(values)
    assert is_tuple(table, row)
    smallest = reduced(table, row, "22021")
    assert is_tuple(table, smallest)
    for column, value in zip(TABLES[table].columns, fields(smallest), strict=True):
        if column.type == "text" and column.name not in TABLES[table].primary_key:
            assert value is None or (value.isascii() and b"\0" not in value)


@given(st.sampled_from(TABLE_NUMBERS), st.integers(0, 10_000), st.integers(1, 255))
def test_damaged_tuple_is_left_alone_or_made_whole(table: int, position: int, change: int) -> None:
    """One byte is another, wherever it is."""
    damaged = bytearray(good(table, 1)[0])
    damaged[position % len(damaged)] ^= change
    smallest = reduced(table, bytes(damaged), "22021")
    assert smallest == damaged or is_tuple(table, smallest)


def _without_texts(table: int) -> dict[str, bytes | None]:
    return {
        column.name: None if column.nullable else b""
        for column in TABLES[table].columns
        if column.type in ("text", "jsonb") and column.name not in ("instance_id", "log_id")
    }


def _field_of(column) -> st.SearchStrategy[bytes | None]:
    sizes = {"smallint": 2, "integer": 4, "bigint": 8, "timestamptz": 8, "boolean": 1}
    if column.type in sizes:
        values = st.binary(min_size=sizes[column.type], max_size=sizes[column.type])
    elif column.type == "jsonb":
        values = st.binary(max_size=40).map(lambda data: b"\x01" + data)
    else:
        values = st.binary(max_size=255)
    return st.none() | values if column.nullable else values
