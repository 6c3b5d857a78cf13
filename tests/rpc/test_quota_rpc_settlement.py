"""What an RPC has cost when it is over: given back, kept, or charged only then."""

import asyncio
import threading
from typing import Any

import pytest
from grpc import StatusCode
from rpc_client import Client
from rpc_durable_trail import STRICT, DurableTrail, settings_of
from rpc_handlers import SHAPES, handler
from rpc_quota_scene import OK, UNKNOWN, USED_UP, limited
from rpc_quota_steps import Spend
from rpc_scene import METHOD, echo, every_shape, one
from rpc_steps import ARRIVED, OVER, Step, abort, arrive, drain, fail, hang, say, send
from rpc_trail import metadata

from auditlog.quota.model import Decision, Quota

DAILY = Quota("calls", 1, "day")
CANCELLED = 1
HEALTH = "/grpc.health.v1.Health/Check"


def handlers_of(server: str, *steps: Step) -> tuple[dict[str, str], dict[str, Any]]:
    """The kinds of the methods, and the methods."""
    methods = every_shape(server, *steps)
    return (
        {method: kind for method, (kind, _) in methods.items()},
        {method: each for method, (_, each) in methods.items()},
    )


def test_error_of_a_handler_is_given_back(rpc_server: str) -> None:
    """In every kind and shape, and whatever is kept before the answer."""
    kinds, methods = handlers_of(rpc_server, drain, fail(RuntimeError))
    with limited(rpc_server, methods, DAILY) as ours:
        for method, kind in kinds.items():
            client = Client(ours.scene.channel)
            assert client.call_until_it_ends(method, kind).code == UNKNOWN, method
            assert ours.settled(), method


def test_client_that_leaves_is_charged(rpc_server: str) -> None:
    """Or an attacker would cancel in time."""
    kinds, methods = handlers_of(rpc_server, arrive, hang)
    (check,) = echo(rpc_server).values()
    limits = Quota("many", 99), Quota("time", 10**9, counts="execution_ms")
    with limited(rpc_server, {**methods, HEALTH: check}, *limits) as ours:
        for method, kind in kinds.items():
            client = Client(ours.scene.channel)
            call = client.begin(method, kind)
            assert ARRIVED[client.request_id].wait(10), method
            call.cancel()
            # When this is answered, the server knows that the client has left.
            assert ours.call(HEALTH).code == OK
            OVER[client.request_id].set()
            assert ours.settled(), method
        stats = ours.quotas.stats()
        assert (stats.given_back, stats.charged) == (0, len(kinds))


def test_client_that_leaves_while_it_is_decided_has_spent_nothing() -> None:
    """What one quota has granted is given back when another is still to answer."""
    entered = threading.Event()
    narrow = Quota("narrow", 1, "day", per="user")

    async def ask(quota: Quota, *arguments: Any) -> Decision:
        if quota is narrow:
            entered.set()
            await asyncio.Event().wait()
        return counter.ask_in_thread(quota, *arguments)

    options = {"user_id": lambda _: "ada"}
    with limited("aio", echo("aio"), DAILY, narrow, interceptor_options=options) as ours:
        counter = ours.quotas.counter
        counter.ask = ask  # type: ignore[method-assign]
        client = Client(ours.scene.channel)
        call = client.begin(METHOD, "uu")
        assert entered.wait(10)
        call.cancel()
        assert ours.settled()
        assert ours.trail.one(client.request_id).response_status == CANCELLED


@pytest.mark.parametrize(
    ("code", "is_given_back"),
    [
        (StatusCode.NOT_FOUND, False),
        (StatusCode.PERMISSION_DENIED, False),
        (StatusCode.UNAUTHENTICATED, True),
        (StatusCode.RESOURCE_EXHAUSTED, True),
        (StatusCode.INTERNAL, True),
    ],
)
def test_status_decides_what_is_given_back(
    rpc_server: str, code: StatusCode, is_given_back: bool
) -> None:
    """As of HTTP, by the status that stands for it there."""
    with limited(rpc_server, one(rpc_server, drain, abort(code)), DAILY) as ours:
        assert ours.call().code == code.value[0]
        if is_given_back:
            assert ours.settled()
        assert ours.call().code == (code.value[0] if is_given_back else USED_UP)


def test_bytes_are_charged_when_they_are_known(rpc_server: str) -> None:
    """In and out; the last RPC may go beyond."""
    quota = Quota("volume", 10, "day", counts="bytes")
    with limited(rpc_server, echo(rpc_server), quota) as ours:
        for _ in range(2):
            assert ours.call(sends=(b"abc",)).code == OK
            assert ours.settled()
        assert ours.call(sends=(b"abc",)).code == USED_UP


def test_bytes_of_a_stream_are_charged_at_its_end(rpc_server: str) -> None:
    quota = Quota("volume", 10, "day", counts="bytes")
    shape = SHAPES[rpc_server]["us"][0]
    methods = {METHOD: handler("us", shape, [drain, *[send("abcde")] * 3])}
    with limited(rpc_server, methods, quota) as ours:
        assert ours.call(kind="us").code == OK
        assert ours.settled()
        assert ours.call(kind="us").code == USED_UP


def test_user_whom_only_the_handler_knows_is_charged_afterwards(rpc_server: str) -> None:
    quota = Quota("users", 1, "day", counts="authenticated")
    with limited(rpc_server, one(rpc_server, drain, say(user_id="ada")), quota) as ours:
        assert ours.call().code == OK
        assert ours.settled()
        assert ours.call().code == USED_UP


@pytest.mark.parametrize("durability", STRICT)
def test_refusal_has_its_row_before_the_client_hears_of_it(
    rpc_server: str, durability: str
) -> None:
    """In every kind and shape, and nothing is added when the RPC is over."""
    kinds, methods = handlers_of(rpc_server, drain, send("a"))
    trail = DurableTrail(settings_of(durability))
    with limited(rpc_server, methods, Quota("calls", 0, "day"), trail=trail) as ours:
        clients = {method: Client(ours.scene.channel) for method in kinds}
        for method, client in clients.items():
            assert client.call(method, kinds[method]).code == USED_UP, method
            row = _complete(trail, client)
            assert row.response_status == USED_UP, method
            assert metadata(row)["audit.quota_refused"] == "calls", method
        ours.scene.running.stop(0)
        expected = ["complete"] if durability == "spool" else ["complete", "received"]
        for method, client in clients.items():
            assert sorted(trail.stages_of(client.request_id)) == expected, method


@pytest.mark.parametrize("durability", STRICT)
def test_quota_exceeded_in_a_handler_has_its_row_before_the_client_hears_of_it(
    rpc_server: str, durability: str
) -> None:
    spend = Spend("exports")
    kinds, methods = handlers_of(rpc_server, drain, send("a"), spend)
    trail = DurableTrail(settings_of(durability))
    quota = Quota("exports", 0, "day", counts="reported")
    with limited(rpc_server, methods, quota, DAILY, trail=trail) as ours:
        spend.quotas = ours.quotas
        for method, kind in kinds.items():
            client = Client(ours.scene.channel)
            assert client.call(method, kind).code == USED_UP, method
            row = _complete(trail, client)
            assert row.response_status == USED_UP, method
            assert metadata(row)["audit.quota_refused"] == "exports", method
            # What the request itself has cost is given back: it was refused.
            assert ours.settled(), method


def _complete(trail: DurableTrail, client: Client) -> Any:
    (row,) = [
        row
        for row in trail.of(client.request_id)
        if metadata(row).get("audit.stage", "complete") == "complete"
    ]
    return row
