"""`storable_*` take any value and give what PostgreSQL stores, and say whether that is a change."""

import datetime as dt
import decimal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hostile
from auditlog.sink.encoding.storable import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_TIMESTAMP_US,
    MIN_TIMESTAMP_US,
    PG_EPOCH_US,
    storable_integer,
    storable_json,
    storable_text,
    storable_timestamp,
)

INT64 = (-(2**63), 2**63 - 1)
# The bounds of timestamptz in the server's own count: MIN_TIMESTAMP and END_TIMESTAMP.
PG_FIRST, PG_END = -211_813_488_000_000_000, 9_223_371_331_200_000_000


@given(hostile.anything, st.integers(0, 300))
def test_text_is_clean_and_short_enough(value: Any, limit: int) -> None:
    """Whatever the value, the text is UTF-8 without NUL, within the limit."""
    data, _ = storable_text(value, limit)
    assert len(data) <= limit
    assert "\0" not in data.decode()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=99))
def test_ordinary_text_is_kept(text: str) -> None:
    """Text that PostgreSQL takes is neither changed nor marked."""
    assert storable_text(text, 400) == (text.encode(), False)


@pytest.mark.parametrize(
    ("value", "text", "changed"),
    [
        ("a\0b", "a\ufffdb", True),
        ("\ud800", "\ufffd", True),
        ("\ud83d\ude00", "\U0001f600", True),
        ("\ufeffx", "\ufeffx", False),
        ("\\u0000", "\\u0000", False),
        (b"GET", "GET", False),
        (b"\xff\xfe", "base64://4=", True),
        (42, "42", False),
        (1.5, "1.5", False),
        (float("nan"), "nan", True),
        (True, "true", False),
        (decimal.Decimal("1.10"), "1.10", False),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001", False),
        (dt.date(2026, 1, 2), "2026-01-02", False),
        (hostile.Colour.RED, "red", False),
        (hostile.Text("mine"), "mine", False),
        (["a", 1], '["a",1]', True),
        (object(), "<builtins.object>", True),
        (hostile.EverythingRaises(), "<hostile.EverythingRaises>", True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_of(value: Any, text: str, *, changed: bool) -> None:
    """Scalars have one obvious text; what has none is a stand-in, and marked."""
    assert storable_text(value, 255) == (text.encode(), changed)


@pytest.mark.parametrize("limit", range(7))
def test_text_is_cut_between_characters(limit: int) -> None:
    """A cut through a character takes the whole character away."""
    data, changed = storable_text("aé€😀", limit)
    assert changed
    assert "aé€😀".startswith(data.decode())
    assert limit - len(data) < 4


@given(hostile.anything)
def test_instant_is_within_what_timestamptz_holds(value: Any) -> None:
    """Whatever the value, PostgreSQL takes the instant, and it is not one of the infinities."""
    number, _ = storable_timestamp(value)
    assert PG_FIRST <= number < PG_END


@given(st.datetimes(timezones=st.timezones() | st.none()))
@example(dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=23, minutes=59))))
@example(dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=23, minutes=59))))
def test_every_datetime_is_kept_to_the_microsecond(moment: dt.datetime) -> None:
    """A naive datetime means UTC, an aware one its own zone."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    number, changed = storable_timestamp(moment)
    since = aware - dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    assert (number, changed) == (since // dt.timedelta(microseconds=1), False)


def test_timestamp_bounds_are_those_of_the_server() -> None:
    """The first and the last instant pass, one microsecond more is clamped and marked."""
    assert storable_timestamp(MIN_TIMESTAMP_US) == (PG_FIRST, False)
    assert storable_timestamp(MIN_TIMESTAMP_US - 1) == (PG_FIRST, True)
    assert storable_timestamp(MAX_TIMESTAMP_US) == (PG_END - 1, False)
    assert storable_timestamp(MAX_TIMESTAMP_US + 1) == (PG_END - 1, True)


@pytest.mark.parametrize("value", ["yesterday", None, float("nan"), object(), dt.date(1, 1, 1)])
def test_what_is_no_instant_becomes_now(value: Any) -> None:
    """A row with a date of 1970 would be in the wrong partition, and never be looked at."""
    before = time.time_ns() // 1000
    number, changed = storable_timestamp(value)
    assert before <= number + PG_EPOCH_US <= time.time_ns() // 1000
    assert changed


@given(hostile.anything)
def test_integer_is_within_its_bounds(value: Any) -> None:
    """Whatever the value, the integer fits, and None only stands for what is no number."""
    number, changed = storable_integer(value, -5, 5)
    if number is None:
        assert changed
    else:
        assert type(number) is int
        assert -5 <= number <= 5
        assert changed == (number != value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (200, (200, False)),
        (200.0, (200, False)),
        (200.9, (200, True)),
        (True, (1, False)),
        (hostile.Number(7), (7, False)),
        (decimal.Decimal(7), (7, False)),
        (float("inf"), (2**63 - 1, True)),
        (-(10**5000), (-(2**63), True)),
        (float("nan"), (None, True)),
        (decimal.Decimal("sNaN"), (None, True)),
        ("200", (None, True)),
        (None, (None, True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_integer_of(value: Any, expected: tuple[int | None, bool]) -> None:
    """What equals an integer is one; what is out of bounds is clamped; the rest is none."""
    assert storable_integer(value, *INT64) == expected


@given(hostile.anything, st.integers(16, 2000))
def test_json_is_what_jsonb_takes(value: Any, limit: int) -> None:
    """Whatever the value, the JSON parses, fits, and has no NUL, surrogate or endless number."""
    data, _ = storable_json(value, limit)
    assert len(data) <= limit
    orjson.loads(data)
    assert b"\\u0000" not in data.replace(b"\\\\", b"")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text('abc\\"é', max_size=4), children)
    ),
    max_leaves=30,
)


@given(_JSON)
def test_ordinary_json_is_kept(value: Any) -> None:
    """What JSON can say is neither changed nor marked."""
    assert storable_json(value, 100_000) == (orjson.dumps(value), [])


def test_generator_is_not_consumed() -> None:
    """It belongs to the application, which may want its items."""

    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)

    generator = numbers()
    data, changed = storable_json({"generator": generator}, 1000)
    assert (orjson.loads(data), changed) == ({"generator": "<builtins.generator>"}, ["generator"])
    assert list(generator) == [1, 2, 3]


@pytest.mark.parametrize("mapping", [False, True])
def test_depth_is_bounded(mapping: bool) -> None:
    """A hundred thousand levels end at `MAX_DEPTH`, and the key is named."""
    value = hostile.nested(100_000, mapping=mapping)
    data, changed = storable_json({"deep": value}, 10_000)
    dismantle(value)
    assert changed == ["deep"]
    assert MAX_DEPTH <= data.count(b"{" if mapping else b"[") <= MAX_DEPTH + 2


@pytest.mark.parametrize("value", [hostile.circular_list(), hostile.circular_dict()])
def test_circle_ends(value: Any) -> None:
    """What contains itself is written down to `MAX_DEPTH`."""
    _, changed = storable_json({"circle": value}, 10_000)
    assert changed == ["circle"]


@pytest.mark.parametrize("value", [hostile.EndlessSequence(), hostile.EndlessMapping()])
def test_endless_structure_ends(value: Any) -> None:
    """Iteration stops after `MAX_NODES`, also when it would go on for ever."""
    _, changed = storable_json({"endless": value}, 100_000)
    assert changed == ["endless"]
    _, changed = storable_json(hostile.EndlessMapping(), 100_000)
    assert changed


def test_nodes_are_bounded_over_all_entries() -> None:
    """Many small structures are as much work as a big one."""
    data, changed = storable_json({str(n): [1] * 100 for n in range(100)}, 10**6)
    assert orjson.loads(data)["0"] == [1] * 100
    assert len(changed) > 40
    assert data.count(b"1,") < MAX_NODES


def test_mapping_that_cannot_be_read_is_marked_as_a_whole() -> None:
    """Nothing is known of its entries, but that some are missing."""
    assert storable_json(hostile.RaisingMapping(), 100) == (b"{}", ["*"])
    assert storable_json(hostile.NoPairs(), 100) == (b"{}", ["*"])


def test_keys_that_become_the_same_are_marked() -> None:
    """JSON has one entry where the mapping had two: the last one stays, and is named."""
    data, changed = storable_json({1: "a", "1": "b", None: 3}, 100)
    assert (orjson.loads(data), changed) == ({"1": "b", "null": 3}, ["1"])


def test_oversize_object_keeps_its_entries_in_order_while_they_fit() -> None:
    """The long text is cut to leave room, what follows and fits is kept, what does not is null."""
    data, changed = storable_json({"a": 1, "long": "x" * 10_000, "b": 2, "list": [1] * 900}, 1000)
    entries = orjson.loads(data)
    assert entries["a"] == 1
    assert set(entries["long"]) == {"x"}
    assert 450 < len(entries["long"]) < 500
    assert entries["b"] == 2
    assert entries["list"] is None
    assert changed == ["long", "list"]


def test_first_text_of_an_oversize_list_is_kept() -> None:
    """A header is a list with one text: its beginning tells more than a null."""
    data, changed = storable_json({"user-agent": ["x" * 10_000], "accept": ["*/*"]}, 1000)
    entries = orjson.loads(data)
    assert 450 < len(entries["user-agent"][0]) < 500
    assert entries["accept"] == ["*/*"]
    assert changed == ["user-agent"]


@given(st.text(max_size=500), st.integers(20, 300))
def test_cut_text_fills_a_fair_part_of_its_room(text: str, limit: int) -> None:
    """JSON may write a character in six bytes; the cut does not assume that it does."""
    data, _ = storable_json({"k": text}, limit)
    kept = orjson.loads(data)["k"]
    assert len(data) <= limit
    whole = len(orjson.dumps({"k": storable_text(text, 10_000)[0].decode()}))
    if whole > limit:
        assert len(orjson.dumps(kept)) >= limit // 12 - 8


def test_huge_text_costs_no_more_than_its_room() -> None:
    """Ten megabytes under a thousand keys are not encoded a thousand times."""
    huge = "€" * 10_000_000
    started = time.process_time()
    data, changed = storable_json({str(n): huge for n in range(1000)}, 24_000)
    assert time.process_time() - started < 2
    assert len(data) <= 24_000
    assert len(changed) == 1000


def dismantle(value: Any) -> None:
    """Take a deep structure apart from the outside: freeing it at once overflows the C stack."""
    while isinstance(value, list | dict):
        container = value
        value = container["a"] if isinstance(container, dict) else container[0]
        container.clear()
