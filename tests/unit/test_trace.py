"""Which trace and request ids are believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.trace import correlation, parse_traceparent, request_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


@pytest.mark.parametrize(
    "value",
    [
        PARENT,
        f"00-{TRACE}-{SPAN}-ff".encode(),
        f"01-{TRACE}-{SPAN}-01".encode(),
        f"cc-{TRACE}-{SPAN}-01-what-ever\n\xff".encode("latin-1"),
        f"fe-{TRACE}-{SPAN}-01-".encode(),
    ],
)
def test_valid_traceparent(value: bytes) -> None:
    """Of later versions the first fields are read."""
    assert parse_traceparent(value) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        PARENT[:-1],
        PARENT + b"0",
        PARENT + b"-",
        PARENT + b"-01",
        PARENT + b"\n",
        b" " + PARENT,
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"0g-{TRACE}-{SPAN}-01".encode(),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE}-{SPAN}-0x".encode(),
        f"00-{TRACE}-{SPAN}".encode(),
        f"01-{TRACE}-{SPAN}-01.what".encode(),
        f"00_{TRACE}_{SPAN}_01".encode(),
        f"00-{TRACE[:-1]}-{SPAN}0-01".encode(),
        PARENT.replace(b"4", b"\xb2"),
    ],
)
def test_invalid_traceparent(value: bytes) -> None:
    """Strictly as the specification has it."""
    assert parse_traceparent(value) is None


@pytest.mark.parametrize("value", [b"a", b"x" * 128, b"6f1f2c5e-7a2b/4a6e=:+", b"~!"])
def test_valid_request_id(value: bytes) -> None:
    """Short and printable."""
    assert request_id(value) == value.decode()


@pytest.mark.parametrize(
    "value",
    [None, b"", b"x" * 129, b"a b", b"a\nb", b"a\0", b"\xff", b'"a"', b"it's", b"\x7f", b"\t"],
)
def test_invalid_request_id(value: bytes | None) -> None:
    """What could break a log line, a header or a shell is no id."""
    assert request_id(value) is None


def test_correlation_finds_all_ids_in_one_pass() -> None:
    """Among other headers, in any order."""
    headers = [(b"host", b"h"), (b"x-request-id", b"r1"), (b"traceparent", PARENT)]
    assert correlation(headers) == (TRACE, SPAN, "r1")
    assert correlation(iter(headers[:2])) == (None, None, "r1")
    assert correlation(headers[2:]) == (TRACE, SPAN, None)
    assert correlation(headers[:1]) == correlation([]) == (None, None, None)


def test_header_that_comes_twice_counts_as_absent() -> None:
    """Nobody can say which of the two is right."""
    twice = [(b"traceparent", PARENT), (b"traceparent", PARENT), (b"x-request-id", b"r")]
    assert correlation(twice) == (None, None, "r")
    assert correlation([(b"x-request-id", b"a"), (b"x-request-id", b"b")]) == (None, None, None)
    assert correlation([(b"traceparent", b""), (b"traceparent", PARENT)]) == (None, None, None)


names = st.sampled_from([b"traceparent", b"x-request-id"]) | st.binary(max_size=12)


@given(st.lists(st.tuples(names, st.binary(max_size=60))))
def test_correlation_survives_all_bytes(headers: list[tuple[bytes, bytes]]) -> None:
    """Never an error, and nothing unprintable."""
    for value in correlation(headers):
        assert value is None or (value.isascii() and value.isprintable())
