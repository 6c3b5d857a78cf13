"""Other interceptors around ours, ours in another order, and contexts of others' own."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from rpc_client import Client
from rpc_handlers import Handlers, make_handler
from rpc_interceptors import interceptor
from rpc_quota_scene import NOT_THERE, OK, UNKNOWN, USED_UP, limited, quota_interceptor
from rpc_scene import METHOD, echo, every_shape, scene
from rpc_servers import serving
from rpc_steps import drain, send
from rpc_trail import Trail, metadata
from test_interceptor_neighbours import hiding, neighbour, raising, refusing

from auditlog import annotate
from auditlog.quota.model import Quota
from auditlog.testing import MemoryQuotas

DAILY = Quota("calls", 1, "day")


def naming(server: str) -> Any:
    """Says whose RPC it is, before its handler runs, as one does that authenticates."""

    def name(details: Any) -> None:
        annotate(user_id=dict(details.invocation_metadata)["x-user"])

    def intercept(continuation: Any, details: Any) -> Any:
        name(details)
        return continuation(details)

    async def intercept_async(continuation: Any, details: Any) -> Any:
        name(details)
        return await continuation(details)

    return neighbour(server, intercept, intercept_async)


class Proxy:
    """A context of another interceptor's own."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def proxying(server: str) -> Any:
    """Gives handlers a context of its own."""

    def intercept(continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        run = handler.unary_unary
        return handler._replace(unary_unary=lambda request, context: run(request, Proxy(context)))

    async def intercept_async(continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def answer(request: Any, context: Any) -> Any:
            return await handler.unary_unary(request, Proxy(context))

        return handler._replace(unary_unary=answer)

    return neighbour(server, intercept, intercept_async)


@pytest.mark.parametrize("place", ["between", "behind"])
def test_user_that_another_interceptor_names(rpc_server: str, place: str) -> None:
    """Wherever it stands: it has spoken by the time a handler is about to run."""
    quota = Quota("calls", 1, "day", per="user")
    others: Any = {place: [naming(rpc_server)]}
    with limited(rpc_server, echo(rpc_server), quota, **others) as ours:
        codes = [ours.call(metadata=[("x-user", name)]).code for name in ("ada", "bob", "ada")]
    assert codes == [OK, OK, USED_UP]


@pytest.mark.parametrize("place", ["before", "between", "behind"])
def test_context_of_another_interceptor(rpc_server: str, place: str) -> None:
    others: Any = {place: [proxying(rpc_server)]}
    with limited(rpc_server, echo(rpc_server), DAILY, **others) as ours:
        assert ours.codes(2) == [OK, USED_UP]


@pytest.mark.parametrize(
    ("make", "codes"),
    [(refusing, [7, USED_UP]), (raising, [UNKNOWN, UNKNOWN]), (hiding, [NOT_THERE, USED_UP])],
)
def test_refusal_of_an_interceptor_behind(rpc_server: str, make: Any, codes: list[int]) -> None:
    """Its handler is limited like any other; where it raises, there is none."""
    with limited(rpc_server, echo(rpc_server), DAILY, behind=[make(rpc_server)]) as ours:
        assert ours.codes(2) == codes


def test_without_an_audit_interceptor_it_brings_its_own(
    rpc_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In every kind and shape; and says so, once."""
    trail = Trail()
    quotas = MemoryQuotas(trail, [Quota("calls", 1, "day", per="route", routes="**")])
    methods = every_shape(rpc_server, drain, send("a"))
    handlers = {method: each for method, (_, each) in methods.items()}
    ours = quota_interceptor(rpc_server, quotas)
    with (
        serving(rpc_server, [Handlers(handlers)], [ours]) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        for method, (kind, _) in methods.items():
            for code in (OK, USED_UP):
                client = Client(channel)
                assert client.call(method, kind).code == code, method
                assert trail.one(client.request_id).response_status == code, method
    assert caplog.text.count("auditlog.quota_outside") == 1


def test_audit_interceptor_that_comes_too_late(rpc_server: str) -> None:
    """There is one row."""
    trail = Trail()
    quotas = MemoryQuotas(trail, [DAILY])
    ours = [quota_interceptor(rpc_server, quotas), interceptor(rpc_server, trail)]
    with (
        serving(rpc_server, [Handlers(echo(rpc_server))], ours) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        for code in (OK, USED_UP):
            client = Client(channel)
            assert client.call(METHOD, "uu").code == code
            assert trail.one(client.request_id).response_status == code


def test_handler_that_is_given_a_function_to_send_with() -> None:
    """An experiment of grpcio's threaded server: known by an attribute of the handler."""

    def converse(request: Any, context: Any, send_message: Any) -> None:
        for message in (b"a", b"b", None):
            send_message(message)

    converse.experimental_non_blocking = True  # type: ignore[attr-defined]
    methods = {METHOD: make_handler("us", converse, raw=True)}
    with limited("threaded", methods, DAILY) as ours:
        seen = ours.call(kind="us")
        assert (seen.code, seen.messages) == (OK, (b"a", b"b"))
        seen = ours.call(kind="us")
        assert (seen.code, seen.messages) == (USED_UP, ())


def test_handler_in_a_pool_of_its_own() -> None:
    """Likewise: it is decided there, too."""
    with ThreadPoolExecutor(1, thread_name_prefix="own") as pool:

        def answer(request: Any, context: Any) -> Any:
            return threading.current_thread().name.encode()

        answer.experimental_thread_pool = pool  # type: ignore[attr-defined]
        threads: list[str] = []

        def key(_: Any) -> str:
            threads.append(threading.current_thread().name)
            return "a"

        methods = {METHOD: make_handler("uu", answer, raw=True)}
        with limited("threaded", methods, DAILY, key=key) as ours:
            assert ours.call().messages == (b"own_0",)
            assert ours.call().code == USED_UP
    assert threads == ["own_0", "own_0"]


def test_two_sets_of_quotas(rpc_server: str) -> None:
    """Each counts by itself; whichever is used up first refuses."""
    trail = Trail()
    outer = MemoryQuotas(trail, [Quota("outer", 9, "day")])
    inner = MemoryQuotas(trail, [Quota("inner", 2, "day")])
    behind = [quota_interceptor(rpc_server, outer), quota_interceptor(rpc_server, inner)]
    with scene(rpc_server, echo(rpc_server), audit=trail, behind=behind) as ours:
        codes = [ours.call().code for _ in range(3)]
        row = ours.row_of()
    assert codes == [OK, OK, USED_UP]
    assert metadata(row)["audit.quota_refused"] == "inner"
