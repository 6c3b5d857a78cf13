"""Other interceptors before and behind ours, and ours twice."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from rpc_client import Client
from rpc_interceptors import interceptor
from rpc_scene import METHOD, echo, every_shape, one, scene
from rpc_steps import drain, fail, send
from rpc_trail import Trail, metadata

from auditlog import annotate

DENIED, UNKNOWN = 7, 2
Intercept = Callable[[Callable[[Any], Any], Any], Any]


def neighbour(server: str, intercept: Any, intercept_async: Any) -> Any:
    """An interceptor out of one function for each server."""
    if server == "aio":

        class Async(grpc.aio.ServerInterceptor):
            async def intercept_service(self, continuation: Any, details: Any) -> Any:
                return await intercept_async(continuation, details)

        return Async()

    class Threaded(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            return intercept(continuation, details)

    return Threaded()


def refusing(server: str) -> Any:
    """Aborts, as an interceptor that authenticates does: with a handler of its own."""

    def refuse(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    async def refuse_async(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    async def intercept_async(continuation: Any, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(refuse_async)

    return neighbour(
        server, lambda *_: grpc.unary_unary_rpc_method_handler(refuse), intercept_async
    )


def raising(server: str) -> Any:
    def intercept(continuation: Any, details: Any) -> Any:
        raise RuntimeError("broken")

    async def intercept_async(continuation: Any, details: Any) -> Any:
        raise RuntimeError("broken")

    return neighbour(server, intercept, intercept_async)


def hiding(server: str) -> Any:
    """Says that there is no such method."""

    async def intercept_async(continuation: Any, details: Any) -> Any:
        return None

    return neighbour(server, lambda *_: None, intercept_async)


def rewriting(server: str) -> Any:
    """Wraps the handler, and answers in its place."""

    def intercept(continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        return handler._replace(
            unary_unary=lambda request, context: (
                context.set_code(grpc.StatusCode.DATA_LOSS),
                handler.unary_unary(request, context) + b" and more",
            )[1]
        )

    async def intercept_async(continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def answer(request: Any, context: Any) -> Any:
            context.set_code(grpc.StatusCode.DATA_LOSS)
            return await handler.unary_unary(request, context) + b" and more"

        return handler._replace(unary_unary=answer)

    return neighbour(server, intercept, intercept_async)


def translating(server: str) -> Any:
    """Turns an error of the handler into a status, as many applications do."""

    def intercept(continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def answer(request: Any, context: Any) -> Any:
            try:
                return handler.unary_unary(request, context)
            except KeyError:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such key")

        return handler._replace(unary_unary=answer)

    async def intercept_async(continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def answer(request: Any, context: Any) -> Any:
            try:
                return await handler.unary_unary(request, context)
            except KeyError:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such key")

        return handler._replace(unary_unary=answer)

    return neighbour(server, intercept, intercept_async)


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize(
    ("make", "code", "error"),
    [(refusing, DENIED, None), (raising, UNKNOWN, "RuntimeError"), (hiding, 12, None)],
)
def test_refusal_of_another_interceptor(
    rpc_server: str, make: Any, code: int, error: str | None, place: str
) -> None:
    """Behind ours it has a row; before ours we never hear of the RPC."""
    with scene(rpc_server, echo(rpc_server), **{place: [make(rpc_server)]}) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu")

        assert seen.code == code
        if place == "behind":
            row = ours.trail.one(client.request_id)
            assert row.response_status == code
            assert metadata(row).get("error.type") == error
        ours.running.stop(0)
        assert len(ours.trail.rows()) == (1 if place == "behind" else 0)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_answer_of_another_interceptor(rpc_server: str, place: str) -> None:
    """The row says what the client got, whichever of the two stands further out."""
    with scene(rpc_server, echo(rpc_server), **{place: [rewriting(rpc_server)]}) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu", (b"some",))
        row = ours.trail.one(client.request_id)

    assert seen.code == row.response_status == 15
    # An answer beside an error, the asynchronous server does not send.
    sent = b"" if rpc_server == "aio" else b"some and more"
    assert metadata(row)["audit.bytes_out"] == len(sent)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_error_that_another_interceptor_translates(rpc_server: str, place: str) -> None:
    """The client gets NOT_FOUND, and so says the row."""
    methods = one(rpc_server, drain, fail(lambda: KeyError("a")))
    with scene(rpc_server, methods, **{place: [translating(rpc_server)]}) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu")
        row = ours.trail.one(client.request_id)

    assert (seen.code, seen.details) == (5, "no such key")
    assert row.response_status == 5
    assert metadata(row)["audit.status_details"] == "no such key"


def test_installed_twice_records_once(rpc_server: str) -> None:
    """In every kind and shape, and for a method that is not there."""
    trail = Trail()
    twice = interceptor(rpc_server, trail)
    methods = every_shape(rpc_server, drain, annotate_and_go, send("a"))
    handlers = {method: each for method, (_, each) in methods.items()}
    with scene(rpc_server, handlers, audit=trail, behind=[twice]) as ours:
        clients = {method: Client(ours.channel) for method in [*methods, "/rpc.Scene/Unknown"]}
        for method, client in clients.items():
            kind = methods[method][0] if method in methods else "uu"
            client.call(method, kind)
        rows = {method: trail.one(client.request_id) for method, client in clients.items()}
        ours.running.stop(0)

        assert len(trail.rows()) == len(clients)
    for method in methods:
        assert rows[method].user_id == "alice", method
        assert metadata(rows[method])["audit.bytes_out"] == 3, method


def annotate_and_go(_: Any) -> None:
    annotate(user_id="alice")


def test_two_logs_on_one_server(rpc_server: str) -> None:
    """The outer one records: an RPC has one row, wherever it is written."""
    outer, inner = Trail(), Trail()
    behind = [interceptor(rpc_server, inner)]
    with scene(rpc_server, echo(rpc_server), audit=outer, behind=behind) as ours:
        ours.call()
        ours.running.stop(0)

    assert (len(outer.rows()), len(inner.rows())) == (1, 0)
