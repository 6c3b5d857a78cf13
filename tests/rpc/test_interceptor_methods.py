"""Methods that are not there, generated ones, and those of gRPC itself."""

from functools import partial
from typing import Any

import grpc
import pytest
import shop_pb2
import shop_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from rpc_client import Client
from rpc_handlers import Handlers, make_handler
from rpc_scene import METHOD, echo, scene
from rpc_servers import serving
from rpc_trail import metadata

from auditlog.capture.policy import Level, Policy, Rule
from auditlog.records import Protocol

UNIMPLEMENTED = 12
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
@pytest.mark.parametrize(
    ("method", "service", "name"),
    [
        ("/rpc.Scene/Unknown", "rpc.Scene", "Unknown"),
        ("/nowhere.Service/Method", "nowhere.Service", "Method"),
        ("/", ..., ...),
        ("/noslash", ..., ...),
        ("noslash", ..., ...),
        ("//", ..., ...),
        ("/a/b/c", ..., ...),
    ],
)
def test_unknown_method_has_its_row(
    rpc_server: str, kind: str, method: str, service: Any, name: Any
) -> None:
    """UNIMPLEMENTED for the client, bare or audited, and in the row."""
    with (
        scene(rpc_server, {}) as ours,
        serving(rpc_server) as bare,
        grpc.insecure_channel(bare.target) as channel,
    ):
        client = Client(ours.channel)
        seen = client.call(method, kind)
        row = ours.trail.one(client.request_id)

        assert seen == Client(channel).call(method, kind)
    assert seen.code == row.response_status == UNIMPLEMENTED
    assert row.request_url == method
    if service is not ...:
        assert (metadata(row)["rpc.service"], row.request_method) == (service, name)


def test_method_is_made_printable(rpc_server: str) -> None:
    """Like the target of an HTTP request."""
    with scene(rpc_server, {}) as ours:
        assert ours.row_of("/a b/\x01c").request_url == "/a%20b/%01c"


class Orders(shop_pb2_grpc.OrdersServicer):
    def Get(self, request: Any, context: Any) -> Any:  # noqa: N802  # the method's name
        return shop_pb2.Order(order_id=request.order_id, status=shop_pb2.STATUS_OPEN)

    def Watch(self, request: Any, context: Any) -> Any:  # noqa: N802  # likewise
        yield from (shop_pb2.Order(order_id=request.order_id) for _ in range(request.count))


class AsyncOrders(shop_pb2_grpc.OrdersServicer):
    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802  # likewise
        return shop_pb2.Order(order_id=request.order_id, status=shop_pb2.STATUS_OPEN)

    async def Watch(self, request: Any, context: Any) -> Any:  # noqa: N802  # likewise
        for _ in range(request.count):
            yield shop_pb2.Order(order_id=request.order_id)


def _register_orders(server: Any) -> None:
    servicer = Orders() if isinstance(server, grpc.Server) else AsyncOrders()
    shop_pb2_grpc.add_OrdersServicer_to_server(servicer, server)


def test_generated_service_works_through_its_stub(rpc_server: str) -> None:
    """A method that the servicer has not filled is answered by the generated code."""
    with scene(rpc_server, {}, register=_register_orders) as ours:
        stub = shop_pb2_grpc.OrdersStub(ours.channel)
        order = stub.Get(shop_pb2.OrderRequest(order_id="7"))
        orders = list(stub.Watch(shop_pb2.WatchRequest(order_id="8", count=3)))
        with pytest.raises(grpc.RpcError) as refused:
            stub.Delete(shop_pb2.OrderRequest(order_id="9"))
        rows = ours.trail.wait_for(3)

    assert (order.order_id, [each.order_id for each in orders]) == ("7", ["8"] * 3)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert sorted((row.request_url or "", row.response_status) for row in rows) == [
        ("/shop.v1.Orders/Delete", UNIMPLEMENTED),
        ("/shop.v1.Orders/Get", 0),
        ("/shop.v1.Orders/Watch", 0),
    ]


def test_method_that_is_registered_by_name_has_its_row(rpc_server: str) -> None:
    """As the code does that newer compilers generate: the core itself knows such methods."""
    handlers = {"Method": echo(rpc_server)[METHOD]}

    def register(server: Any) -> None:
        server.add_registered_method_handlers("rpc.Registered", handlers)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("rpc.Registered", handlers),)
        )

    with scene(rpc_server, {}, register=register) as ours:
        client = Client(ours.channel)
        seen = client.call("/rpc.Registered/Method", "uu", (b"there and back",))
        row = ours.trail.one(client.request_id)

    assert (seen.code, seen.messages) == (0, (b"there and back",))
    assert (row.request_url, row.request_method) == ("/rpc.Registered/Method", "Method")
    assert (row.response_status, row.protocol) == (0, Protocol.GRPC)


def _register_noise(server: Any) -> None:
    if isinstance(server, grpc.Server):
        health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    else:
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    reflection.enable_server_reflection(("rpc.Scene", reflection.SERVICE_NAME), server)


def _ask_health_and_reflection(channel: grpc.Channel) -> None:
    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([request])
    )
    assert len(list(answers)) == 1


def test_health_and_reflection_are_left_out(rpc_server: str) -> None:
    """By the default policy, as long as they succeed."""
    with scene(rpc_server, echo(rpc_server), register=_register_noise) as ours:
        _ask_health_and_reflection(ours.channel)
        last = ours.row_of()
        with pytest.raises(grpc.RpcError):
            health_pb2_grpc.HealthStub(ours.channel).Check(
                health_pb2.HealthCheckRequest(service="unknown")
            )
        rows = ours.trail.wait_for(2)

    assert [row.request_url for row in rows] == [last.request_url, HEALTH]
    assert rows[1].response_status == grpc.StatusCode.NOT_FOUND.value[0]


def test_health_and_reflection_are_switched_in_by_a_policy(rpc_server: str) -> None:
    """Whose own rules take the place of the default ones."""
    rules = [Rule(name="all", level=Level.METADATA, protocols=(Protocol.GRPC,))]
    with scene(
        rpc_server, {}, register=_register_noise, interceptor_options={"policy": Policy(rules)}
    ) as ours:
        _ask_health_and_reflection(ours.channel)
        rows = ours.trail.wait_for(2)

    assert sorted((row.request_url or "", row.response_status) for row in rows) == [
        (HEALTH, 0),
        (REFLECTION, 0),
    ]


def test_rules_are_for_protocol_method_path_and_status(rpc_server: str) -> None:
    """A policy for gRPC speaks the same language as one for HTTP."""
    rules = [
        Rule(name="not echoes", level=Level.NONE, paths=("/rpc.Scene/*",), statuses=("0",)),
        Rule(name="unknown ones", level=Level.METADATA, methods=("Unknown",), statuses=("12",)),
    ]
    with scene(rpc_server, echo(rpc_server), interceptor_options={"policy": Policy(rules)}) as ours:
        ours.call()
        row = ours.row_of("/rpc.Scene/Unknown")

        assert [each.request_url for each in ours.trail.rows()] == ["/rpc.Scene/Unknown"]
    assert metadata(row)["audit.rule"] == "unknown ones"
    assert row.request_headers is None


@pytest.mark.parametrize("name", ["plain", "lambda", "partial", "callable object", "not callable"])
def test_handler_may_be_anything_that_can_be_called(rpc_server: str, name: str) -> None:
    """And the client of one that cannot sees what it sees without us."""
    _compare(rpc_server, make_handler("uu", PLAIN[name], raw=True))


@pytest.mark.parametrize("name", ["function", "partial", "method"])
def test_coroutine_may_be_wrapped(name: str) -> None:
    """As long as the server itself can tell that it is one."""
    _compare("aio", make_handler("uu", COROUTINES[name], raw=True))


def _compare(server: str, method: grpc.RpcMethodHandler) -> None:
    methods = {METHOD: method}
    with (
        scene(server, methods) as ours,
        serving(server, [Handlers(methods)]) as bare,
        grpc.insecure_channel(bare.target) as channel,
    ):
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu", (b"odd",))

        assert seen == Client(channel).call(METHOD, "uu", (b"odd",))
        assert ours.trail.one(client.request_id).response_status == seen.code


def _plain(request: Any, context: Any) -> Any:
    return request


async def _coroutine(request: Any, context: Any) -> Any:
    return request


class _Callable:
    def __call__(self, request: Any, context: Any) -> Any:
        return request

    async def later(self, request: Any, context: Any) -> Any:
        return request


PLAIN: dict[str, Any] = {
    "plain": _plain,
    "lambda": lambda *request_and_context: request_and_context[0],
    "partial": partial(_plain),
    "callable object": _Callable(),
    "not callable": 5,
}
COROUTINES: dict[str, Any] = {
    "function": _coroutine,
    "partial": partial(_coroutine),
    "method": _Callable().later,
}
