"""Strict auditing beside others: other interceptors, and the application's own callables."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from rpc_client import Client
from rpc_durable_scene import KINDS_AND_SHAPES, method_of, strict_scene
from rpc_durable_trail import STRICT, DurableTrail, settings_of
from rpc_interceptors import interceptor
from rpc_scene import METHOD, one, scene
from rpc_steps import abort, drain, send
from rpc_trail import metadata

OK, UNKNOWN, NOT_FOUND = 0, 2, 5
strictly = pytest.mark.parametrize("durability", STRICT)


class AioInFront(grpc.aio.ServerInterceptor):
    """Does something when the handler, and ours, has answered."""

    def __init__(self, then: Callable[[Any], None]) -> None:
        self._then = then

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def answer(request: Any, context: Any) -> Any:
            response = await handler.unary_unary(request, context)
            self._then(context)
            return response

        return handler._replace(unary_unary=answer)


class ThreadedInFront(grpc.ServerInterceptor):
    def __init__(self, then: Callable[[Any], None]) -> None:
        self._then = then

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def answer(request: Any, context: Any) -> Any:
            response = handler.unary_unary(request, context)
            self._then(context)
            return response

        return handler._replace(unary_unary=answer)


IN_FRONT = {"aio": AioInFront, "threaded": ThreadedInFront}


@strictly
def test_interceptor_in_front_that_fails_later(rpc_server: str, durability: str) -> None:
    """What it makes of an answer is told, be it in a row of its own."""

    def fail(_: Any) -> None:
        raise ValueError

    seen, trail, request_id = _call_behind(rpc_server, durability, fail)
    complete = trail.wait_for_stage(request_id, "complete")

    assert seen == UNKNOWN
    if rpc_server == "aio" and durability == "commit":
        late = trail.wait_for_stage(request_id, "late")
        assert complete.response_status == OK
        assert metadata(late)["audit.outcome"] == "server_error"
    else:
        assert complete.response_status == UNKNOWN
    assert "audit.still_running" not in metadata(complete)


@strictly
def test_interceptor_in_front_that_sets_a_code(rpc_server: str, durability: str) -> None:
    """As above; on the threaded server it is in time for the row."""
    seen, trail, request_id = _call_behind(
        rpc_server, durability, lambda context: context.set_code(grpc.StatusCode.NOT_FOUND)
    )
    complete = trail.wait_for_stage(request_id, "complete")

    assert seen == NOT_FOUND
    if rpc_server == "aio" and durability == "commit":
        late = trail.wait_for_stage(request_id, "late")
        assert complete.response_status == OK
        assert metadata(late)["error.type"] == "StatusReplaced"
    else:
        assert complete.response_status == NOT_FOUND


def _call_behind(
    server: str, durability: str, then: Callable[[Any], None]
) -> tuple[int, DurableTrail, str]:
    trail = DurableTrail(settings_of(durability))
    in_front = IN_FRONT[server](then)
    methods = one(server, drain, send("a"))
    with scene(server, methods, audit=trail, before=[in_front]) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu")
        ours.running.stop(1)
    return seen.code, trail, client.request_id


@strictly
def test_interceptor_that_is_installed_twice(rpc_server: str, durability: str) -> None:
    """Records once."""
    trail = DurableTrail(settings_of(durability))
    inner = interceptor(rpc_server, trail)
    methods = one(rpc_server, drain, send("a"))
    with scene(rpc_server, methods, audit=trail, behind=[inner]) as ours:
        client = Client(ours.channel)
        assert client.call(METHOD, "uu").code == OK
        ours.running.stop(1)

    expected = ["received", "complete"] if durability == "commit" else ["complete"]
    assert trail.stages_of(client.request_id) == expected


@strictly
@pytest.mark.parametrize(("name", "kind", "shape"), KINDS_AND_SHAPES)
@pytest.mark.parametrize("ends", ["returns", "aborts"])
def test_callables_are_asked_while_the_call_lives(
    name: str, kind: str, shape: str, durability: str, ends: str
) -> None:
    """Before the handler and after it, with a context, and no third time."""
    asked: list[Any] = []
    owners: list[bool] = []

    def user_id(context: Any) -> str | None:
        asked.append(context and dict(context.invocation_metadata())["x-request-id"])
        return "7" if len(asked) > 1 else None

    def resource_owner(context: Any) -> None:
        owners.append(context is not None)

    steps = {"returns": send("a"), "aborts": abort(grpc.StatusCode.NOT_FOUND, "gone")}[ends]
    callables = {"user_id": user_id, "resource_owner": resource_owner}
    options = {"interceptor_options": callables, "durability": durability}
    with strict_scene(name, drain, steps, **options) as strict:
        client = strict.client()
        strict_code = client.call(method_of(kind, shape), kind).code
        row = strict.trail.wait_for_stage(client.request_id, "complete")
        strict.ours.running.stop(0)

    assert strict_code == (OK if ends == "returns" else NOT_FOUND)
    assert asked == [client.request_id] * 2
    # It names nobody, so that every look would ask it.
    assert len(owners) >= 2
    assert all(owners)
    assert row.user_id == "7"
    assert strict.trail.errors == []
