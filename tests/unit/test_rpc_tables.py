"""What becomes of codes, peers, metadata and names."""

import _thread
import base64
from collections.abc import Iterable
from queue import Queue
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.rpc.identity import principal_of
from auditlog.capture.rpc.metadata import is_legal, raw_pairs
from auditlog.capture.rpc.names import Names, names_of
from auditlog.capture.rpc.peer import address_of
from auditlog.capture.rpc.status import UNKNOWN, number_of, outcome_of
from auditlog.capture.rpc.unwrapped import is_called_by_server
from auditlog.records import RequestOutcome

OUTCOMES = {
    "ok": ("OK",),
    "cancelled": ("CANCELLED",),
    "deadline": ("DEADLINE_EXCEEDED",),
    "denied": ("PERMISSION_DENIED", "UNAUTHENTICATED"),
    "client_error": (
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
    ),
    "server_error": ("UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
}


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_code_has_its_outcome(code: grpc.StatusCode) -> None:
    """The table of docs/record.md, code by code."""
    number = number_of(code, largest_int=None)
    assert number == code.value[0]
    assert code.name in OUTCOMES[outcome_of(number)]


def test_no_other_number_has_an_outcome() -> None:
    """Not those beside the table, and not the absence of one."""
    assert {outcome_of(status) for status in (None, -1, 17, 200)} == {RequestOutcome.UNKNOWN}


class Odd:
    @property
    def value(self) -> Any:
        raise RuntimeError("not today")


@pytest.mark.parametrize("code", ["NOT_FOUND", (5, "not found"), None, object(), Odd(), 99, -1, 16])
def test_what_is_no_code_is_sent_as_unknown(code: Any) -> None:
    """As the servers do."""
    assert number_of(code, largest_int=15) == UNKNOWN


def test_numbers_count_where_the_server_takes_them() -> None:
    """The asynchronous one does, up to DATA_LOSS."""
    assert [number_of(code, largest_int=15) for code in (0, 5, 15, True)] == [0, 5, 15, 1]
    assert number_of(5, largest_int=None) == UNKNOWN


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:57624", "127.0.0.1"),
        ("ipv4:127.0.0.1", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50051", "::1"),
        ("ipv6:[2001:db8::1]:50051", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50051", "fe80::1%eth0"),
        ("ipv6:::1", "::1"),
        ("unix:", None),
        ("unix:/run/server.sock", None),
        ("unix-abstract:name", None),
        ("vsock:3:1024", None),
        ("", None),
        ("ipv4:", None),
        ("ipv6:%5B", None),
        ("ipv4:server.example:443", None),
        ("127.0.0.1:5000", None),
    ],
)
def test_address_of_a_peer(peer: str, address: str | None) -> None:
    """Only where there is one, without port and brackets."""
    assert address_of(peer) == address


@given(st.text(max_size=60))
def test_any_peer_is_survived(rest: str) -> None:
    """Whatever stands behind the scheme."""
    for scheme in ("ipv4:", "ipv6:", ""):
        address_of(scheme + rest)


def test_metadata_keeps_order_and_duplicates() -> None:
    """Binary values are base64, as on the wire."""
    pairs = raw_pairs((("a", "1"), ("b-bin", b"\x00\xff"), ("a", "2"), ("c", "é")))
    assert pairs == [
        (b"a", b"1"),
        (b"b-bin", base64.b64encode(b"\x00\xff")),
        (b"a", b"2"),
        (b"c", b"\xe9"),
    ]


@pytest.mark.parametrize("metadata", [None, (), [], [("a",)], [None], [("a", 1)], [(1, "a")]])
def test_what_is_no_metadata_is_left_out(metadata: Any) -> None:
    """It may be an application's own."""
    assert raw_pairs(metadata) == []


def test_text_beyond_latin_is_kept() -> None:
    """As UTF-8; a lone surrogate is replaced."""
    assert raw_pairs([("a", "日"), ("b", "\ud800"), ("c", "x")]) == [
        (b"a", "日".encode()),
        (b"b", b"?"),
        (b"c", b"x"),
    ]


@pytest.mark.parametrize(
    ("metadata", "legal"),
    [
        ((), True),
        ((("a", "1"), ("b-bin", b"\x00")), True),
        ((("A", "1"),), False),
        ((("a", "\n"),), False),
        ((("a", "é"),), False),
        ((("", "1"),), False),
        ((("a b", "1"),), False),
        (5, False),
    ],
)
def test_metadata_that_no_server_can_send(metadata: Any, legal: bool) -> None:
    """It would break the status that it goes with."""
    assert is_legal(metadata) is legal


@pytest.mark.parametrize(
    ("full_method", "names"),
    [
        ("/shop.v1.Orders/Get", Names("shop.v1.Orders", "Get", True)),
        ("/Orders/Get", Names("Orders", "Get", True)),
        ("/", Names("", "", False)),
        ("/noslash", Names("", "noslash", False)),
        ("noslash", Names("", "noslash", False)),
        ("/a/b/c", Names("a/b", "c", False)),
        ("/a/b?token=c", Names("a", "b?token=c", False)),
        ("/a/b\n", Names("a", "b\n", False)),
        ("", Names("", "", False)),
    ],
)
def test_names_of_a_method(full_method: str, names: Names) -> None:
    """Malformed ones too, for clients send them."""
    assert names_of(full_method) == names


@pytest.mark.parametrize(
    ("identities", "principal"),
    [
        (None, None),
        ((), None),
        ([b""], None),
        ([b"", b"alice.example"], "alice.example"),
        ([b"spiffe://shop/alice", b"alice.example"], "spiffe://shop/alice"),
        ([b"\xff"], "\ufffd"),
        (["text"], "text"),
        ([b"x" * 1000], "x" * 512),
    ],
)
def test_principal_of_a_certificate(
    identities: Iterable[bytes] | None, principal: str | None
) -> None:
    """The first identity that says something."""
    assert principal_of(identities) == principal


def test_kind_of_a_local_connection_is_nobody() -> None:
    """With local credentials, it is the identity of every client."""
    assert principal_of([b"local"], "transport_security_type") is None
    assert principal_of([b"local"], "x509_common_name") == "local"


def test_without_a_caller_it_is_not_the_server_who_calls() -> None:
    """As where a thread begins, or a greenlet."""
    answers: Queue[bool] = Queue()
    _thread.start_new_thread(lambda: answers.put(is_called_by_server()), ())
    assert answers.get(timeout=10) is False
