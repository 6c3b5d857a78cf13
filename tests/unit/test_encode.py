"""`Encoder`: the quick half and the careful half give the same tuple, and none ever raises."""

import datetime as dt
import enum
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPMethod, HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from auditlog.records import ExecutionLogRecord, LogLevel, LogRecord, Protocol, QuotaLogRecord
from auditlog.settings import Settings
from auditlog.sink.encoding import encode
from auditlog.sink.encoding.careful import careful_tuple
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.encoding.storable import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, PG_EPOCH_US
from auditlog.tables import LOGS, TABLES
from naming import without_address
from tuples import decode, encoded, repaired

SETTINGS = Settings()

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
_INSTANTS = st.integers(MIN_TIMESTAMP_US, MAX_TIMESTAMP_US)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT
    | st.datetimes()
    | st.dates()
    | st.uuids()
    | st.sampled_from([HTTPStatus.OK, HTTPMethod.GET, LogLevel.WARN]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.tuples(children)
        | st.dictionaries(_TEXT, children, max_size=3)
    ),
    max_leaves=10,
)
ordinary = st.builds(
    LogRecord,
    occurrence_date=_INSTANTS,
    protocol=st.sampled_from([0, 1, 2, 3, Protocol.GRPC]),
    request_url=st.none() | _TEXT,
    request_method=st.none() | _TEXT.filter(lambda text: len(text.encode()) <= 64),
    request_headers=st.none() | st.dictionaries(_TEXT, st.lists(_TEXT, max_size=3), max_size=4),
    response_status=st.none() | st.integers(0, 599) | st.sampled_from([HTTPStatus.NOT_FOUND]),
    response_time_ms=st.none() | st.integers(0, 2**31 - 1),
    user_id=st.none() | _TEXT,
    resource_owner=st.none() | _TEXT,
    aggregate_type=st.none() | _TEXT,
    aggregate_id=st.none() | _TEXT,
    event_type=st.none() | _TEXT,
    event_sequence=st.none() | st.integers(-(2**63), 2**63 - 1),
    log_level=st.sampled_from([1, 2, 3, 4, LogLevel.DEBUG]),
    message=st.none() | _TEXT,
    metadata=st.none() | st.dictionaries(_TEXT, _JSON, max_size=4),
    instance_id=st.none() | _TEXT,
    log_id=st.uuids().map(str),
    log_date=_INSTANTS,
)


def carefully(record: LogRecord) -> dict[str, Any]:
    row = careful_tuple(
        record, LOGS, instance_id=SETTINGS.instance_id, max_bytes=SETTINGS.max_row_bytes
    )
    return decode(LOGS, row)


@given(ordinary)
def test_both_halves_store_the_same(record: LogRecord) -> None:
    """What the quick half takes, the careful half would have stored alike."""
    values = encoded(record)
    assert values == carefully(record)
    assert repaired(values) == []


def test_quick_half_takes_the_usual_request() -> None:
    """A careful half that did all the work would be correct, and four times as slow."""
    record = LogRecord(
        occurrence_date=1_767_323_045_000_006,
        protocol=Protocol.HTTP,
        request_url="/orders/42?page=é",
        request_method="GET",
        request_headers={"host": ["example.com"], "accept": ["*/*", "text/html"]},
        response_status=HTTPStatus.OK,
        response_time_ms=2_000,
        user_id="user",
        aggregate_type="order",
        aggregate_id="42",
        event_sequence=7,
        log_level=LogLevel.WARN,
        metadata={
            "http.route": "/orders/{id}",
            "n": [1, 2.5, None],
            "when": dt.datetime.now(dt.UTC),
        },
        instance_id="tenant",
    )
    Encoder(SETTINGS)._quick(record)


@given(st.dictionaries(st.sampled_from(LOGS.column_names), hostile.anything, max_size=6))
def test_both_halves_agree_on_what_the_quick_half_takes(values: dict[str, Any]) -> None:
    """The quick half may refuse anything; what it takes has to be storable and unchanged."""
    fixed = {"log_id": str(uuid.UUID(int=1)), "log_date": 1, "occurrence_date": 1}
    record = LogRecord(**(fixed | values))
    try:
        row = Encoder(SETTINGS)._quick(record)
    except Exception:  # noqa: BLE001  # whatever it was: `encode` hands it to the careful half
        return
    quick, careful = decode(LOGS, row), carefully(record)
    for column in LOGS.columns:
        if column.name not in {"log_id", "log_date", "occurrence_date", "request_headers"}:
            assert quick[column.name] == careful[column.name]


@pytest.mark.parametrize(
    "changes",
    [
        {"log_date": 2**63 - 1 + PG_EPOCH_US},
        {"log_date": -(2**62)},
        {"occurrence_date": MAX_TIMESTAMP_US + 1},
        {"occurrence_date": MIN_TIMESTAMP_US - 1},
        {"response_status": 600},
        {"response_status": -1},
        {"response_time_ms": -1},
        {"response_time_ms": 2**31},
        {"protocol": 4},
        {"log_level": 0},
        {"request_method": "M" * 65},
        {"request_url": "/" * 8193},
        {"message": "\0"},
        {"message": "\ud800"},
        {"user_id": "u" * 256},
        {"instance_id": "i" * 256},
        {"event_sequence": 2**63},
        {"metadata": {"a": float("nan")}},
        {"metadata": {"a": [{"b": (float("inf"), None)}]}},
        {"metadata": {"a": "\0"}},
        {"metadata": {"\0": "a"}},
        {"metadata": {"a": object()}},
        {"log_id": "short"},
        {"log_id": "é" * 36},
        {"log_id": "\0" * 36},
        {"log_id": uuid.UUID(int=1)},
    ],
    ids=without_address,
)
def test_quick_half_leaves_surprises_to_the_careful_half(changes: dict[str, Any]) -> None:
    """PostgreSQL would refuse the row, or the row would not say what was changed."""
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError, encode.struct.error)):
        Encoder(SETTINGS)._quick(LogRecord(**changes))
    encoded(LogRecord(**changes))


def test_quick_half_does_not_ask_a_string_for_its_bytes() -> None:
    """A subclass may answer anything, so its own methods are not called."""
    text = hostile.Text("mine")
    assert encoded(LogRecord(user_id=text, instance_id=text, message=text))["user_id"] == "mine"


def test_null_in_metadata_is_not_mistaken_for_nan() -> None:
    """JSON has null for both; only one of them is a repair."""

    @dataclass
    class Point:
        x: float | None

    values = encoded(LogRecord(metadata={"a": None, "b": [None], "c": Point(None)}))
    assert values["metadata"] == {"a": None, "b": [None], "c": {"x": None}}
    assert repaired(encoded(LogRecord(metadata={"c": Point(float("nan"))}))) == ["metadata.c"]


def test_row_over_the_limit_is_cut() -> None:
    """Each column is within its own bound, all together are not."""
    settings = Settings(max_row_bytes=16_384)
    record = LogRecord(request_url="/" * 8192, message="m" * 8192)
    table, row = Encoder(settings).encode(record)
    assert len(row) <= 16_384
    assert repaired(decode(TABLES[table], row)) == ["request_url", "message"]


@pytest.mark.parametrize(
    ("record", "table"),
    [
        (LogRecord(), "logs"),
        (ExecutionLogRecord("e", "t", "m"), "execution_logs"),
        (QuotaLogRecord("q", 1, 2, 3, "o", allowed=True), "quota_logs"),
    ],
)
def test_record_goes_to_its_table(record: Any, table: str) -> None:
    """The number beside the tuple is the table's place in `TABLES`."""
    number, row = Encoder(SETTINGS).encode(record)
    assert TABLES[number].name == table
    decode(TABLES[number], row)


@pytest.mark.parametrize("thing", [None, {}, "record", object(), LogRecord])
def test_no_record_is_a_mistake_of_the_caller(thing: Any) -> None:
    """The error says what would have been one."""
    with pytest.raises(TypeError, match="LogRecord, ExecutionLogRecord, QuotaLogRecord, not"):
        Encoder(SETTINGS).encode(thing)


def test_identity_and_clocks_are_fixed_at_encoding() -> None:
    """A repetition ships the same bytes, so the primary key recognises it."""
    before = time.time_ns() // 1000
    first, second = encoded(LogRecord()), encoded(LogRecord())
    after = time.time_ns() // 1000
    assert uuid.UUID(first["log_id"]).version == 7
    assert first["log_id"] < second["log_id"]
    assert before <= first["log_date"] == first["occurrence_date"] <= after


def test_defaults_are_those_of_the_records() -> None:
    """An empty record is a row of the default tenant with nothing in it."""
    values = encoded(LogRecord(), Settings(instance_id="tenant"))
    filled = {name for name, value in values.items() if value is not None}
    assert filled == {
        "instance_id",
        "log_id",
        "log_date",
        "occurrence_date",
        "protocol",
        "log_level",
    }
    assert (values["instance_id"], values["protocol"], values["log_level"]) == ("tenant", 0, 1)


def test_changing_a_record_afterwards_changes_nothing() -> None:
    """The bytes were made at once, from the mappings too."""
    record = LogRecord(user_id="before", metadata={"a": 1})
    _, row = Encoder(SETTINGS).encode(record)
    record.user_id = "after"
    assert isinstance(record.metadata, dict)
    record.metadata["a"] = 2
    values = decode(LOGS, row)
    assert (values["user_id"], values["metadata"]) == ("before", {"a": 1})


def test_tenants_beyond_the_cache_are_encoded_alike() -> None:
    """Memory does not grow with the number of tenants."""
    encoder = Encoder(SETTINGS)
    for number in range(encode.MAX_CACHED_TENANTS + 50):
        tenant = f"tenant-{number}"
        _, row = encoder.encode(LogRecord(instance_id=tenant))
        assert decode(LOGS, row)["instance_id"] == tenant
    assert len(encoder._heads) == encode.MAX_CACHED_TENANTS


def test_threads_share_an_encoder() -> None:
    """Every thread gets the tuple of its own record."""
    encoder = Encoder(SETTINGS)

    def tenants(worker: int) -> bool:
        names = [f"{worker}-{number % 700}" for number in range(1000)]
        rows = [encoder.encode(LogRecord(instance_id=name))[1] for name in names]
        return [decode(LOGS, row)["instance_id"] for row in rows] == names

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(tenants, range(4)))


def test_bounds_of_the_quick_half_are_those_of_the_table() -> None:
    """Its constants repeat what `tables.py` says; this is what keeps them equal."""
    limits = {column.name: column.max_bytes for column in LOGS.columns if column.max_bytes}
    wide = {"request_url": encode._LONG_TEXT, "message": encode._LONG_TEXT}
    expected = dict.fromkeys(limits, encode._SHORT_TEXT) | wide
    assert limits == expected | {"request_method": encode._METHOD_TEXT}


def test_time_of_day_with_a_zone_and_enum_of_enum() -> None:
    """Two forms that orjson refuses and that still have one obvious text."""

    class Outer(enum.Enum):
        INNER = hostile.Colour.RED

    noon = dt.time(12, tzinfo=dt.UTC)
    values = encoded(LogRecord(metadata={"t": noon, "e": Outer.INNER}))
    assert values["metadata"] == {"t": "12:00:00+00:00", "e": "red"}
