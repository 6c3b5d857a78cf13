"""RPCs within a quota and beyond it: what is run, what the client is told, what the row says."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.rpc.error_details_pb2 import QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from rpc_client import Client
from rpc_handlers import SHAPES, handler
from rpc_quota_scene import (
    DETAILS,
    NOT_THERE,
    OK,
    PUSHBACK,
    UNAVAILABLE,
    UNKNOWN,
    USED_UP,
    detail,
    limited,
)
from rpc_quota_steps import Spend
from rpc_scene import METHOD, echo, every_shape
from rpc_steps import drain, fail, send
from rpc_trail import metadata

from auditlog.quota.admitting.gate import is_write
from auditlog.quota.model import Quota
from auditlog.records import QuotaLogRecord

MOST, CALLS, AT_ONCE = 30, 80, 8
SHAPE_NAMES = [
    (server, kind, shape)
    for server, kinds in SHAPES.items()
    for kind, shapes in kinds.items()
    for shape in shapes
]
in_every_shape = pytest.mark.parametrize(("server_name", "kind", "shape"), SHAPE_NAMES)


def per_method(limit: int, **more: Any) -> Quota:
    return Quota("calls", limit, "day", per="route", routes="**", **more)


def counting(ran: list[str]) -> Callable[[Any], None]:
    return lambda _: ran.append("ran")


def test_rpc_beyond_the_limit_is_refused_and_does_not_run(rpc_server: str) -> None:
    """In every kind and shape; the one that reaches the limit is allowed."""
    ran: list[str] = []
    methods = every_shape(rpc_server, counting(ran), drain, send("a"))
    handlers = {method: each for method, (_, each) in methods.items()}
    with limited(rpc_server, handlers, per_method(2)) as ours:
        for method, (kind, _) in methods.items():
            assert ours.codes(2, method, kind) == [OK, OK], method
            seen, row = ours.seen_and_row(method, kind)

            assert (seen.code, seen.messages) == (USED_UP, ()), method
            assert row.response_status == USED_UP, method
            said = metadata(row)
            assert said["audit.outcome"] == "client_error", method
            assert said["audit.status_source"] == "wire", method
            assert said["audit.quota_refused"] == "calls", method
            assert "error.type" not in said, method
    assert len(ran) == 2 * len(methods)


def test_client_is_told_which_quota_and_when_to_come_again(rpc_server: str) -> None:
    with limited(rpc_server, echo(rpc_server), Quota("calls", 1, "day")) as ours:
        allowed = ours.call()
        seen = ours.call()

    assert allowed.trailing == ()
    assert seen.details == "The quota 'calls' is used up."
    assert 0 < detail(seen, RetryInfo).retry_delay.seconds <= 86_400
    (violation,) = detail(seen, QuotaFailure).violations
    assert (violation.quota_id, violation.quota_value) == ("calls", 1)
    assert violation.subject == ""
    # A day is more than a client may wait in its call.
    assert dict(seen.trailing)[PUSHBACK] == "-1"


def test_refusal_without_the_database_is_no_fault_of_the_clients(rpc_server: str) -> None:
    """It may come again soon, and is not told that anything is used up."""
    quota = Quota("calls", 9, "month", on_unavailable="closed")
    with limited(rpc_server, echo(rpc_server), quota) as ours:
        ours.quotas.counter.away = True
        seen, row = ours.seen_and_row()

    assert seen.code == row.response_status == UNAVAILABLE
    status = Status.FromString(dict(seen.trailing)[DETAILS])
    assert [each.type_url.rpartition(".")[2] for each in status.details] == ["RetryInfo"]
    assert detail(seen, RetryInfo).retry_delay.ToMilliseconds() == 1000
    assert dict(seen.trailing)[PUSHBACK] == "1000"
    assert metadata(row)["audit.quota_refused"] == "calls"
    assert metadata(row)["audit.quota_unavailable"] == "closed"


def test_quota_that_is_open_without_the_database_lets_pass(rpc_server: str) -> None:
    with limited(rpc_server, echo(rpc_server), Quota("calls", 0, "day")) as ours:
        ours.quotas.counter.away = True
        seen, row = ours.seen_and_row()

    assert seen.code == OK
    assert metadata(row)["audit.quota_unavailable"] == "open"
    assert "audit.quota_refused" not in metadata(row)


def test_refusal_is_a_row_of_the_quota_too(rpc_server: str) -> None:
    with limited(rpc_server, echo(rpc_server), Quota("calls", 1, "day")) as ours:
        ours.codes(2)
        (refusal,) = [each for each in ours.trail.records if isinstance(each, QuotaLogRecord)]

    assert not refusal.allowed
    assert refusal.quota_limit == 1


def test_unknown_method_is_counted_and_refused_like_any_other(rpc_server: str) -> None:
    """Its row has no kind, as it has none without quotas."""
    with limited(rpc_server, {}, Quota("calls", 1, "day")) as ours:
        not_there, first = ours.seen_and_row("/rpc.Scene/Unknown")
        refused, second = ours.seen_and_row("/rpc.Scene/Unknown")

    assert (not_there.code, not_there.details) == (NOT_THERE, "Method not found!")
    assert refused.code == USED_UP
    for row in (first, second):
        assert "audit.rpc_kind" not in metadata(row)
        assert "audit.bytes_in" not in metadata(row)


def test_names_that_clients_invent_have_one_counter(rpc_server: str) -> None:
    """Else whoever makes up names would make counters."""
    with limited(rpc_server, {}, per_method(2)) as ours:
        codes = [ours.call(f"/rpc.Scene/Made-up-{number}").code for number in range(3)]
        assert codes == [NOT_THERE, NOT_THERE, USED_UP]


def test_health_checks_are_not_counted(rpc_server: str) -> None:
    """Or whoever looks after the service would restart it, for a quota that is used up."""
    (check,) = echo(rpc_server).values()
    methods = {"/grpc.health.v1.Health/Check": check, METHOD: check}
    with limited(rpc_server, methods, Quota("calls", 1, "day")) as ours:
        assert ours.codes(3, "/grpc.health.v1.Health/Check") == [OK] * 3
        assert ours.codes(2) == [OK, USED_UP]


@in_every_shape
def test_quota_exceeded_in_a_handler_is_a_refusal(server_name: str, kind: str, shape: str) -> None:
    """Whether the handler has sent something before or not."""
    quota = Quota("exports", 0, "day", counts="reported")
    for before in ((), (send("a"), send("b"))):
        spend = Spend("exports")
        methods = {METHOD: handler(kind, shape, (*before, spend))}
        with limited(server_name, methods, quota) as ours:
            spend.quotas = ours.quotas
            seen, row = ours.seen_and_row(kind=kind)

        assert seen.code == row.response_status == USED_UP
        assert len(seen.messages) == (len(before) if kind[1] == "s" else 0)
        assert detail(seen, QuotaFailure).violations[0].quota_id == "exports"
        assert metadata(row)["audit.outcome"] == "client_error"
        assert metadata(row)["audit.quota_refused"] == "exports"


@in_every_shape
def test_error_of_a_handler_is_what_it_was(server_name: str, kind: str, shape: str) -> None:
    methods = {METHOD: handler(kind, shape, (drain, fail(lambda: LookupError("nothing here"))))}
    with limited(server_name, methods, Quota("calls", 5, "day")) as ours:
        client = Client(ours.scene.channel)
        seen = client.call_until_it_ends(METHOD, kind)
        row = ours.trail.one(client.request_id)

    assert seen.code == UNKNOWN
    assert "nothing here" in str(seen.details)
    assert metadata(row)["error.type"] == "LookupError"


def test_many_clients_at_once_get_what_the_limit_allows(rpc_server: str) -> None:
    with (
        limited(rpc_server, echo(rpc_server), Quota("calls", MOST, "day")) as ours,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        codes = [*pool.map(lambda _: ours.call().code, range(CALLS))]

    assert sorted(codes) == [OK] * MOST + [USED_UP] * (CALLS - MOST)


def test_writes_are_told_by_the_name_of_the_method(rpc_server: str) -> None:
    shape = SHAPES[rpc_server]["uu"][0]
    methods = {
        f"/rpc.Scene/{name}": handler("uu", shape, (send("a"),))
        for name in ("GetNote", "CreateNote")
    }
    quota = Quota("writes", 1, "day", counts="writes")
    with limited(rpc_server, methods, quota) as ours:
        assert ours.codes(3, "/rpc.Scene/GetNote") == [OK] * 3
        assert ours.codes(2, "/rpc.Scene/CreateNote") == [OK, USED_UP]


@pytest.mark.parametrize(
    "method", ["Get", "GetNote", "BatchGetNotes", "ListNotes", "SearchNotes", "Watch"]
)
def test_method_that_fetches_is_no_write(method: str) -> None:
    assert not is_write(method)


@pytest.mark.parametrize(
    "method", ["", "Create", "Getaway", "Listen", "get", "UpdateList", "Watchdog", "BatchUpdate"]
)
def test_every_other_method_may_be_a_write(method: str) -> None:
    assert is_write(method)
