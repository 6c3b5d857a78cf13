"""The careful half: any record becomes a tuple of bounded size that names what was changed."""

import datetime as dt
import os
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from auditlog.records import ExecutionLogRecord, LogRecord, QuotaLogRecord
from auditlog.settings import MIN_ROW_BYTES
from auditlog.sink.encoding.careful import careful_tuple
from auditlog.tables import EXECUTION_LOGS, LOGS, QUOTA_LOGS, Table
from tuples import decode, encoded, repaired

KINDS: tuple[tuple[Table, type[Any]], ...] = (
    (LOGS, LogRecord),
    (EXECUTION_LOGS, ExecutionLogRecord),
    (QUOTA_LOGS, QuotaLogRecord),
)


def careful(record: Any, table: Table, max_bytes: int = 65_536) -> dict[str, Any]:
    """What the careful half makes of a record, by column."""
    row = careful_tuple(record, table, instance_id="default", max_bytes=max_bytes)
    assert len(row) <= max_bytes
    return decode(table, row)


@st.composite
def records(draw: st.DrawFn) -> tuple[Table, Any]:
    """A record of any table with anything in any field."""
    table, kind = draw(st.sampled_from(KINDS))
    return table, kind(**{name: draw(hostile.anything) for name in table.column_names})


@given(records(), st.sampled_from((MIN_ROW_BYTES, 65_536)))
def test_every_record_becomes_a_tuple(pair: tuple[Table, Any], max_bytes: int) -> None:
    """Whatever is in a record, the tuple has the table's form and the row's limit."""
    table, record = pair
    careful(record, table, max_bytes)


@pytest.mark.parametrize(("table", "kind"), KINDS, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("number", range(len(hostile.OBJECTS)))
def test_every_hostile_object_in_every_field(table: Table, kind: type[Any], number: int) -> None:
    """Each of them, in all fields at once, passes within the smallest row there is."""
    value = hostile.OBJECTS[number]
    careful(kind(**dict.fromkeys(table.column_names, value)), table, MIN_ROW_BYTES)


@pytest.mark.parametrize(("table", "kind"), KINDS, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("text", ["x", "\0", "\x01", "€", "\ud800", "😀", '"', "\\"])
@pytest.mark.parametrize("max_bytes", [MIN_ROW_BYTES, 65_536, 1_048_576])
def test_no_oversize_passes_the_limit_of_a_row(
    table: Table, kind: type[Any], text: str, max_bytes: int
) -> None:
    """Every field at once far too long, of characters that JSON writes in up to six bytes."""
    long = text * 200_000
    values: dict[str, Any] = dict.fromkeys(table.column_names, long)
    if "metadata" in values:
        values["metadata"] = {f"{text * 70}{n}": long for n in range(40)}
    if "request_headers" in values:
        values["request_headers"] = {f"{text * 70}{n}": [long] for n in range(40)}
    careful(kind(**values), table, max_bytes)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("protocol", 7, 0),
        ("protocol", None, 0),
        ("log_level", 0, 1),
        ("log_level", "warn", 1),
        ("response_status", 2**40, 2**31 - 1),
        ("response_status", "ok", None),
        ("response_time_ms", -1, 0),
        ("response_time_ms", 2**31, 2**31 - 1),
        ("event_sequence", 2**63, 2**63 - 1),
        ("event_sequence", object(), None),
        ("request_method", "M" * 200, "M" * 64),
        ("request_url", "/\0", "/\ufffd"),
        ("user_id", "u" * 300, "u" * 255),
        ("request_headers", {"a": "\0"}, {"a": "\ufffd"}),
        ("aggregate_type", ["order"], '["order"]'),
    ],
)
def test_repair_is_named(column: str, value: Any, expected: Any) -> None:
    """What cannot be stored is replaced, and the row says in which column."""
    values = encoded(LogRecord(**{column: value}))
    assert values[column] == expected
    assert repaired(values) == [column]


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("user_id", 42, "42"),
        ("user_id", uuid.UUID(int=7), str(uuid.UUID(int=7))),
        ("request_method", b"GET", "GET"),
        ("response_status", 200.0, 200),
        ("log_id", uuid.UUID(int=7), str(uuid.UUID(int=7))),
        ("request_headers", {"a": ("b",)}, {"a": ["b"]}),
        ("log_date", dt.datetime(1970, 1, 1, 0, 0, 1), 1_000_000),  # noqa: DTZ001  # naive means UTC
    ],
)
def test_another_form_of_the_same_is_no_repair(column: str, value: Any, expected: Any) -> None:
    """A number as an identifier and the like lose nothing, so nothing is marked."""
    values = encoded(LogRecord(**{column: value}))
    assert values[column] == expected
    assert repaired(values) == []


def test_missing_identity_and_clocks_are_filled_in() -> None:
    """None and the empty text are no identity; nothing about it is a repair."""
    values = careful(LogRecord(instance_id="", log_id=""), LOGS)
    assert values["instance_id"] == "default"
    assert uuid.UUID(values["log_id"]).version == 7
    assert values["log_date"] == values["occurrence_date"]
    assert values["metadata"] is None


@pytest.mark.parametrize("log_id", ["\0", "x" * 300, object(), ["a"], "\ud800"])
def test_identity_that_cannot_be_kept_becomes_a_new_one(log_id: Any) -> None:
    """What is left of two of them could be the same, and the second row would be refused."""
    first, second = (careful(LogRecord(log_id=log_id), LOGS) for _ in range(2))
    assert first["log_id"] != second["log_id"]
    assert uuid.UUID(first["log_id"]).version == 7
    assert repaired(first) == ["log_id"]


def test_required_text_that_is_missing_is_empty_and_named() -> None:
    """A line without its execution is still a line."""
    values = careful(ExecutionLogRecord(None, "target", None), EXECUTION_LOGS)  # type: ignore[arg-type]
    assert (values["execution_id"], values["message"]) == ("", "")
    assert repaired(values) == ["execution_id", "message"]


def test_only_true_allows() -> None:
    """A decision that is no truth value was not one to allow."""
    record = QuotaLogRecord("q", 1, 2, 3, "org", "yes", threshold_exceeded=None)  # type: ignore[arg-type]
    values = careful(record, QUOTA_LOGS)
    assert (values["allowed"], values["threshold_exceeded"]) == (False, False)


def test_names_of_many_repairs_are_counted() -> None:
    """The mark names the columns first, then keys of the metadata, and says how many more."""
    values = encoded(LogRecord(message="\0", metadata={f"k{n}": "\0" for n in range(50)}))
    names = repaired(values)
    assert names[:3] == ["message", "metadata.k0", "metadata.k1"]
    assert names[-1] == f"and {51 - (len(names) - 1)} more"


def test_mark_of_long_names_stays_within_the_row() -> None:
    """Every other field as long as it may be, and names of which JSON writes each letter in six."""
    texts = {
        "request_url": "u" * (MIN_ROW_BYTES // 8),
        "message": "m" * (MIN_ROW_BYTES // 8),
        "request_method": "M" * 64,
    }
    identifiers = dict.fromkeys(
        ("user_id", "resource_owner", "aggregate_type", "aggregate_id", "event_type"),
        "i" * (MIN_ROW_BYTES // 64),
    )
    metadata: dict[str, Any] = {"fill": "x" * (MIN_ROW_BYTES * 3 // 8 - 20)}
    metadata |= {"\x01" * 100 + str(number): object() for number in range(40)}
    headers = {"fill": ["x" * (MIN_ROW_BYTES // 8 - 20)]}
    record = LogRecord(**texts, **identifiers, metadata=metadata, request_headers=headers)
    names = repaired(careful(record, LOGS, MIN_ROW_BYTES))
    assert names
    assert names[-1].startswith("and ")


def test_metadata_that_is_no_object_keeps_its_place_beside_the_mark() -> None:
    """A list cannot hold the mark, so it goes under a name."""
    assert encoded(LogRecord(metadata=[1, 2], message="\0"))["metadata"] == {  # type: ignore[arg-type]
        "value": [1, 2],
        "audit.repaired": ["message"],
    }


def test_own_mark_of_the_application_does_not_hide_ours() -> None:
    """Of two keys of the same name, jsonb keeps the last."""
    values = encoded(LogRecord(metadata={"audit.repaired": "nothing", "a": "\0"}))
    assert repaired(values) == ["metadata.a"]


def test_deleted_field_counts_as_none() -> None:
    """A record that somebody took apart is stored as far as it goes."""
    record = LogRecord(message="x", user_id="u")
    del record.message
    values = encoded(record)
    assert (values["message"], values["user_id"]) == (None, "u")


def test_subclass_of_a_record_is_one() -> None:
    """An application may add fields for itself."""

    class Record(LogRecord):
        pass

    assert encoded(Record(user_id="u"))["user_id"] == "u"


def test_incompressible_identifiers_stay_within_their_columns() -> None:
    """An index row has four of them at most, and must stay under 2704 bytes."""
    texts = {
        column.name: os.urandom(400).hex() for column in LOGS.columns if column.max_bytes == 255
    }
    values = encoded(LogRecord(**texts))
    del texts["log_id"]
    assert {name: len(values[name]) for name in texts} == dict.fromkeys(texts, 255)
