"""What a quota counts of a request, how much, when, and what is given back."""

from typing import Any

import pytest
from quota_requests import Desk

from auditlog.quota.counting.counted import MAX_TABLES, Counting, Countings
from auditlog.quota.model import Quota

DESK = Desk()
GRPC = 2


def counting(**fields: Any) -> Counting:
    """A quota, ready."""
    return Counting(Quota("q", 10, **fields))


@pytest.mark.parametrize(
    ("fields", "covered"),
    [
        ({}, True),
        ({"methods": "POST"}, True),
        ({"methods": ("GET", "PUT")}, False),
        ({"routes": "/exports/*"}, True),
        ({"routes": ("/static/**", "/exports/**")}, True),
        ({"routes": "/exports"}, False),
        ({"routes": "/exports/*", "methods": "GET"}, False),
        ({"counts": "writes"}, True),
    ],
)
def test_only_what_a_quota_names_is_counted(fields: dict[str, Any], covered: bool) -> None:
    """By method and by the globs of paths."""
    assert counting(**fields).covers("POST", "/exports/7", True) is covered


def test_reading_is_no_write() -> None:
    """Everything else is a request."""
    assert not counting(counts="writes").covers("GET", "/", False)
    assert counting().covers("GET", "/", False)


def test_method_of_an_rpc_is_compared_as_quotas_spell_them() -> None:
    """In capitals."""
    assert counting(methods="PlaceOrder").covers("PlaceOrder", "/shop.Orders/PlaceOrder", True)


@pytest.mark.parametrize(
    ("counts", "user_id", "before"),
    [
        ("requests", None, True),
        ("writes", None, True),
        ("authenticated", "7", True),
        ("authenticated", None, False),
        ("authenticated", "", False),
        ("bytes", "7", False),
        ("execution_ms", "7", False),
    ],
)
def test_what_is_known_before_is_paid_before(
    counts: Any, user_id: str | None, before: bool
) -> None:
    """The rest is charged afterwards."""
    assert counting(counts=counts).is_paid_before(user_id) is before


def test_route_is_the_first_glob_that_matches() -> None:
    """Of gRPC, the method: there is no other path."""
    routed = counting(per="route", routes=("/a/*", "/a/**"))

    assert routed.route("/a/7", 1) == "/a/*"
    assert routed.route("/a/7/8", 1) == "/a/**"
    assert routed.route("/b", 1) is None
    assert routed.route("/shop.Orders/Place", GRPC) == "/shop.Orders/Place"


@pytest.mark.parametrize(
    ("counts", "method", "units"),
    [
        ("bytes", "POST", 5),
        ("bytes", "HEAD", 2),
        ("execution_ms", "GET", 3),
        ("requests", "GET", 1),
        ("authenticated", "GET", 0),
    ],
)
def test_units_of_a_request_that_is_over(counts: Any, method: str, units: int) -> None:
    """What began is charged as a whole millisecond; no body follows the head of a HEAD's."""
    request = DESK.request(method=method)
    request.bytes_in, request.bytes_out = 2, 3
    request.started_ns, request.ended_ns = 1_000_000, 3_000_001

    assert counting(counts=counts).units(request) == units


def test_user_that_a_handler_names_is_counted() -> None:
    """At the end."""
    request = DESK.request()
    request.user_id = "7"

    assert counting(counts="authenticated").units(request) == 1


@pytest.mark.parametrize(
    ("status", "outcome", "refunds", "refunded"),
    [
        (200, "ok", None, False),
        (404, "client_error", None, False),
        (401, "denied", None, True),
        (403, "denied", None, False),
        (429, "client_error", None, True),
        (500, "server_error", None, True),
        (None, "cancelled", None, True),
        (200, "client_disconnect", None, False),
        (404, "client_error", ("404",), True),
        (500, "server_error", ("404",), False),
        (500, "server_error", (), False),
        (200, "client_disconnect", ("client_disconnect",), True),
    ],
)
def test_what_is_given_back(status: int | None, outcome: str, refunds: Any, refunded: bool) -> None:
    """By outcome or by status; by default what was the server's fault, or was refused."""
    request = DESK.request()
    request.status, request.outcome = status, outcome
    fields = {} if refunds is None else {"refunds": refunds}

    assert counting(**fields).is_refunded(request) is refunded


@pytest.mark.parametrize(
    ("status", "refunds", "refunded"),
    [
        (16, ("401",), True),
        (8, ("429",), True),
        (5, ("404",), True),
        (7, ("401",), False),
        (16, ("16",), True),
        (99, ("401",), False),
    ],
)
def test_status_of_http_stands_for_that_of_grpc(status: int, refunds: Any, refunded: bool) -> None:
    """One quota may count both."""
    rpc = DESK.rpc()
    rpc.status, rpc.outcome = status, "denied"

    assert counting(refunds=refunds).is_refunded(rpc) is refunded


def test_client_without_an_answer_is_not_charged() -> None:
    """What is withheld for want of an audit row is refused by the server, whatever was done."""
    request = DESK.request()
    request.status, request.outcome, request.refused = 200, "ok", True

    assert counting().is_refunded(request)


def test_quotas_are_made_ready_once() -> None:
    """As long as it is the same set of them; the table does not grow without end."""
    countings, quotas = Countings(), (Quota("a", 1), Quota("b", 1))

    first = countings.of(quotas)
    assert [each.quota for each in first] == list(quotas)
    assert countings.of(quotas) is first
    for limit in range(MAX_TABLES):
        (ready,) = countings.of((Quota("a", limit),))
        assert ready.quota.limit == limit
    assert len(countings._made) <= MAX_TABLES
    assert [each.quota for each in countings.of(quotas)] == list(quotas)
