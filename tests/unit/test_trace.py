"""Which trace and request ids are believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.trace import correlation, parse_traceparent, raw_correlation

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "value",
    [
        PARENT,
        f"00-{TRACE}-{SPAN}-ff",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-ever\n\xff",
        f"fe-{TRACE}-{SPAN}-01-",
    ],
)
def test_valid_traceparent(value: str) -> None:
    """Of later versions the first fields are read."""
    assert parse_traceparent(value) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-",
        PARENT + "-01",
        PARENT + "\n",
        " " + PARENT,
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"0g-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}",
        f"01-{TRACE}-{SPAN}-01.what",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE[:-1]}-{SPAN}0-01",
        PARENT.replace("4", "\xb2"),
    ],
)
def test_invalid_traceparent(value: str) -> None:
    """Strictly as the specification has it."""
    assert parse_traceparent(value) is None


@pytest.mark.parametrize("value", ["a", "x" * 128, "6f1f2c5e-7a2b/4a6e=:+", "~!"])
def test_valid_request_id(value: str) -> None:
    """Short and printable."""
    assert correlation({"x-request-id": [value]}) == (None, None, value)


@pytest.mark.parametrize(
    "value", ["", "x" * 129, "a b", "a\nb", "a\n", "a\0", "\xff", '"a"', "it's", "\x7f", "\t"]
)
def test_invalid_request_id(value: str) -> None:
    """What could break a log line, a header or a shell is no id."""
    assert correlation({"x-request-id": [value]}) == (None, None, None)


def test_all_ids_are_found_among_other_headers() -> None:
    """By kept headers as well as by raw ones, in any order."""
    raw = [(b"host", b"h"), (b"x-request-id", b"r1"), (b"traceparent", PARENT.encode())]
    kept = {"host": ["h"], "x-request-id": ["r1"], "traceparent": [PARENT]}
    assert raw_correlation(raw) == correlation(kept) == (TRACE, SPAN, "r1")
    assert raw_correlation(iter(raw[:2])) == (None, None, "r1")
    assert raw_correlation(raw[2:]) == (TRACE, SPAN, None)
    assert raw_correlation([]) == correlation({}) == (None, None, None)


def test_header_that_comes_twice_counts_as_absent() -> None:
    """Nobody can say which of the two is right."""
    parent = (b"traceparent", PARENT.encode())
    assert raw_correlation([parent, parent, (b"x-request-id", b"r")]) == (None, None, "r")
    assert raw_correlation([(b"traceparent", b""), parent]) == (None, None, None)
    twice = {"x-request-id": ["a", "b"], "traceparent": [PARENT]}
    assert correlation(twice) == (TRACE, SPAN, None)


names = st.sampled_from([b"traceparent", b"x-request-id"]) | st.binary(max_size=12)


@given(st.lists(st.tuples(names, st.binary(max_size=60))))
def test_correlation_survives_all_bytes(headers: list[tuple[bytes, bytes]]) -> None:
    """Never an error, and nothing unprintable."""
    for value in raw_correlation(headers):
        assert value is None or (value.isascii() and value.isprintable())
