"""What is strange, or breaks, fails closed under `commit`, and nowhere else."""

import inspect
import itertools
import threading
from collections.abc import Callable
from typing import Any, Never

import grpc
import pytest
from grpc import StatusCode
from rpc_client import Client, Seen
from rpc_durable_scene import KINDS_AND_SHAPES, method_of, strict_scene
from rpc_durable_trail import STRICT, DurableTrail, settings_of
from rpc_handlers import SHAPES, Handlers, handler
from rpc_interceptors import interceptor
from rpc_scene import METHOD, one, scene
from rpc_servers import serving
from rpc_steps import ARRIVED, abort, arrive, drain, fail, send
from rpc_trail import WAIT_S, metadata

from auditlog.capture.rpc import durable_aio_ending
from auditlog.capture.rpc.durable import NOT_CARRIED_OUT
from auditlog.capture.rpc.durable_aio import CommittedAio
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.ticket import Ticket

OK, UNKNOWN, NOT_FOUND, INTERNAL, UNAVAILABLE = 0, 2, 5, 13, 14
HEALTH = "/grpc.health.v1.Health/Check"
PLACES = {
    "uu": "unary_unary",
    "us": "unary_stream",
    "su": "stream_unary",
    "ss": "stream_stream",
}
ENDS: dict[str, tuple[Any, int]] = {
    "returns": (send("a"), OK),
    "raises": (fail(ValueError), UNKNOWN),
    "aborts": (abort(StatusCode.NOT_FOUND, "gone"), NOT_FOUND),
}
every = pytest.mark.parametrize(("name", "kind", "shape"), KINDS_AND_SHAPES)
in_any_mode = pytest.mark.parametrize("durability", ["memory", *STRICT])


# What cannot be watched.


@in_any_mode
def test_rpc_of_which_nothing_can_be_told(
    rpc_server: str, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: object) -> Never:
        raise RuntimeError("broken")

    monkeypatch.setattr(GrpcExchange, "__init__", break_down)
    with strict_scene(rpc_server, drain, arrive, send("a"), durability=durability) as strict:
        client = strict.client()
        seen = client.call(method_of("uu", SHAPES[rpc_server]["uu"][0]), "uu")

    _assert_served_unless_commit(durability, seen, client)
    assert [str(error) for error in strict.trail.errors] == ["broken"]


class Moody(grpc.RpcMethodHandler):
    """Whoever asks it first, which is us, gets no answer."""

    def __init__(self, handler: grpc.RpcMethodHandler) -> None:
        self._handler = handler
        self._has_refused = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        if name == "request_deserializer" and not self._has_refused:
            self._has_refused = True
            raise RuntimeError("not now")
        return getattr(self._handler, name)


class MoodyHandlers(Handlers):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = super().service(details)
        return None if handler is None else Moody(handler)


@in_any_mode
def test_handler_that_cannot_be_watched(rpc_server: str, durability: str) -> None:
    """Its row comes before it runs, for nobody hears how it ends; a health check is exempt."""
    trail = DurableTrail(settings_of(durability))
    answer = one(rpc_server, drain, arrive, send("a"))[METHOD]
    handlers = MoodyHandlers({METHOD: answer, HEALTH: answer})
    with (
        serving(rpc_server, [handlers], [interceptor(rpc_server, trail)]) as running,
        grpc.insecure_channel(running.target) as channel,
    ):
        client = Client(channel)
        seen = client.call(METHOD, "uu")
        by_then = trail.stages_of(client.request_id)
        healthy = Client(channel).call(HEALTH, "uu").code
        row = trail.wait_for_stage(client.request_id, "complete")

    _assert_served_unless_commit(durability, seen, client)
    assert durability == "memory" or by_then == ["complete"]
    assert row.response_status == (UNAVAILABLE if durability == "commit" else None)
    assert metadata(row).get("audit.status_source") == ("wire" if row.response_status else "none")
    assert healthy == OK


def _assert_served_unless_commit(durability: str, seen: Seen, client: Client) -> None:
    refused = durability == "commit"
    assert seen.code == (UNAVAILABLE if refused else OK)
    assert (seen.details == NOT_CARRIED_OUT) == refused
    assert ARRIVED[client.request_id].is_set() == (not refused)


# Contexts of interceptors in front.


class Wrapped:
    """Passes on what it is asked."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def hidden(context: Any) -> Any:
    """Return one that leads nobody to the server's own, which says what the status is."""

    class Hidden:
        def __getattr__(self, name: str) -> Any:
            if name == "code":
                raise AttributeError(name)
            return getattr(context, name)

    return Hidden()


@every
@pytest.mark.parametrize("wrap", [Wrapped, hidden])
@pytest.mark.parametrize("ends", ENDS)
def test_context_of_another(
    name: str, kind: str, shape: str, ends: str, wrap: Callable[[Any], Any]
) -> None:
    """Its client has the status once the row is committed, or another one."""
    step, code = ENDS[ends]
    trail = DurableTrail(settings_of("commit"))
    methods = {METHOD: handler(kind, shape, (drain, step))}
    in_front = _in_front(name, lambda each: _with_context(each, PLACES[kind], wrap))
    with scene(name, methods, audit=trail, before=[in_front]) as ours:
        client = Client(ours.channel)
        seen = client.call_until_it_ends(METHOD, kind)
        by_then = trail.stages_of(client.request_id)
        trail.hopeless_from = len(trail.rows()) + 2
        withheld = Client(ours.channel).call_until_it_ends(METHOD, kind)

    assert seen.code == code
    assert by_then == ["received", "complete"]
    assert withheld.code in {UNKNOWN, INTERNAL, UNAVAILABLE}
    if wrap is Wrapped:
        assert withheld.code == UNAVAILABLE


class Mute(Wrapped):
    """Does not let a status be set."""

    set_code = None


@pytest.mark.parametrize("kind", PLACES)
def test_context_that_takes_no_status(kind: str) -> None:
    """On the threaded server, which is told of the other status by nothing else."""
    trail = DurableTrail(settings_of("commit"))
    trail.hopeless_from = 2
    methods = {METHOD: handler(kind, "sync", (drain, send("a")))}
    in_front = _in_front("threaded", lambda each: _with_context(each, PLACES[kind], Mute))
    with scene("threaded", methods, audit=trail, before=[in_front]) as ours:
        seen = Client(ours.channel).call(METHOD, kind)

    assert seen.code == (UNKNOWN if kind[1] == "s" else INTERNAL)


def _with_context(handler: Any, place: str, wrap: Callable[[Any], Any]) -> Any:
    behaviour = getattr(handler, place)
    replaced: Any
    if inspect.isasyncgenfunction(behaviour):

        async def replaced(request: Any, context: Any) -> Any:
            async for message in behaviour(request, wrap(context)):
                yield message

    elif inspect.iscoroutinefunction(behaviour):

        async def replaced(request: Any, context: Any) -> Any:
            return await behaviour(request, wrap(context))

    else:

        def replaced(request: Any, context: Any) -> Any:
            return behaviour(request, wrap(context))

    return handler._replace(**{place: replaced})


# What other interceptors in front do.


@pytest.mark.parametrize("durability", STRICT)
@pytest.mark.parametrize("ends", ["returns", "aborts"])
@pytest.mark.parametrize("takes", ["messages", "serializer"])
def test_interceptor_in_front_takes_what_is_waited_for(
    durability: str, ends: str, takes: str
) -> None:
    """A thread does not wait for ever for messages that its server never writes."""

    def replace(handler: Any) -> Any:
        if takes == "serializer":
            return handler._replace(response_serializer=lambda note: note.SerializeToString())

        def take_every_other(request: Any, context: Any) -> Any:
            yield from itertools.islice(handler.unary_stream(request, context), 1, None, 2)

        return handler._replace(unary_stream=take_every_other)

    step, code = ENDS[ends]
    last = () if ends == "returns" else (step,)
    methods = {METHOD: handler("us", "sync", (drain, send("a"), send("b"), *last))}
    trail = DurableTrail(settings_of(durability))
    with scene("aio", methods, audit=trail, before=[_in_front("aio", replace)]) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "us")
        row = trail.wait_for_stage(client.request_id, "complete")

    assert seen.code == row.response_status == code


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (settings_of("spool"), OK),
        (settings_of("spool", spool_fsync="always"), OK),
        (settings_of("commit"), UNKNOWN),
    ],
)
@pytest.mark.parametrize("kind", ["uu", "us"])
def test_interceptor_in_front_keeps_the_loop(kind: str, settings: Any, code: int) -> None:
    """It does on the event loop what belongs in a thread: nothing may be waited for there."""

    def replace(handler: Any) -> Any:
        if kind == "us":
            behaviour = handler.unary_stream
            return handler._replace(unary_stream=lambda *call: list(behaviour(*call)))

        async def answer(request: Any, context: Any) -> Any:
            return handler.unary_unary(request, context)

        return handler._replace(unary_unary=answer)

    trail = DurableTrail(settings)
    methods = {METHOD: handler(kind, "sync", (drain, send("a")))}
    with scene("aio", methods, audit=trail, before=[_in_front("aio", replace)]) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, kind)
        row = trail.wait_for_stage(client.request_id, "complete")

    assert seen.code == row.response_status == code


@pytest.mark.parametrize("is_hopeless", [True, False])
def test_interceptor_in_front_that_tries_again(rpc_server: str, is_hopeless: bool) -> None:
    """The RPC is announced once, and what was refused stays so."""
    runs: list[None] = []

    def fail_once(_: Any) -> None:
        runs.append(None)
        if len(runs) == 1:
            raise ValueError

    trail = DurableTrail(settings_of("commit"))
    trail.hopeless_from = 0 if is_hopeless else None
    methods = one(rpc_server, drain, fail_once, send("a"))
    in_front = _in_front(rpc_server, _trying_again)
    with scene(rpc_server, methods, audit=trail, before=[in_front]) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu")
        trail.wait_for_stage(client.request_id, "complete")
        ours.running.stop(0)

    assert (seen.code, len(runs)) == ((UNAVAILABLE, 0) if is_hopeless else (OK, 2))
    assert trail.stages_of(client.request_id).count("received") == 1


def _trying_again(handler: Any) -> Any:
    behaviour = handler.unary_unary
    replaced: Any
    if inspect.iscoroutinefunction(behaviour):

        async def replaced(request: Any, context: Any) -> Any:
            try:
                return await behaviour(request, context)
            except Exception:  # noqa: BLE001  # what careless interceptors do
                return await behaviour(request, context)

    else:

        def replaced(request: Any, context: Any) -> Any:
            try:
                return behaviour(request, context)
            except Exception:  # noqa: BLE001  # what careless interceptors do
                return behaviour(request, context)

    return handler._replace(unary_unary=replaced)


class _AioInFront(grpc.aio.ServerInterceptor):
    def __init__(self, replace: Callable[[Any], Any]) -> None:
        self._replace = replace

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        return self._replace(await continuation(details))


class _ThreadedInFront(grpc.ServerInterceptor):
    def __init__(self, replace: Callable[[Any], Any]) -> None:
        self._replace = replace

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        return self._replace(continuation(details))


def _in_front(server: str, replace: Callable[[Any], Any]) -> Any:
    return (_AioInFront if server == "aio" else _ThreadedInFront)(replace)


# What handlers and loops do.


@pytest.mark.parametrize(
    ("kind", "shape"), [(kind, shape) for kind, each in SHAPES["aio"].items() for shape in each]
)
def test_error_of_abort_without_an_abort(kind: str, shape: str) -> None:
    """The server answers it like any other, so its row is waited for like that of any other."""
    step = fail(lambda: grpc.aio.AbortError("of the handler's own"))
    with strict_scene("aio", drain, step) as strict:
        client, withheld = strict.client(), strict.client()
        seen = client.call_until_it_ends(method_of(kind, shape), kind)
        by_then = strict.trail.stages_of(client.request_id)
        row = strict.trail.wait_for_stage(client.request_id, "complete")
        strict.trail.hopeless_from = len(strict.trail.rows()) + 2
        seen_withheld = withheld.call_until_it_ends(method_of(kind, shape), kind)

    assert seen.code == row.response_status == UNKNOWN
    assert metadata(row)["error.type"] == "AbortError"
    assert by_then == ["received", "complete"]
    assert seen_withheld.code == UNAVAILABLE


class LateTrail(DurableTrail):
    """Keeps the event loop until the handler's thread does not wait for it any more."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.given_up = threading.Event()

    async def durable(self, ticket: Ticket) -> bool:
        assert self.given_up.wait(WAIT_S)
        return True


@pytest.mark.parametrize(("kind", "code"), [("uu", OK), ("us", OK)])
def test_loop_that_is_late_is_no_error_where_rows_are_only_spooled(
    kind: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of("spool", spool_fsync="always")
    trail = LateTrail(settings)
    run_on_loop = CommittedAio._run_on_loop

    def run_and_tell(*arguments: Any) -> None:
        try:
            run_on_loop(*arguments)
        except TimeoutError:
            trail.given_up.set()
            raise

    # Shorter than nothing: what takes a moment takes too long.
    monkeypatch.setattr(durable_aio_ending, "_LATENESS_S", 0.2 - settings.commit_timeout_s)
    monkeypatch.setattr(durable_aio_ending.DurableAioEnding, "_run_on_loop", run_and_tell)
    with scene("aio", {METHOD: handler(kind, "sync", (drain, send("a")))}, audit=trail) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, kind)
        trail.wait_for_stage(client.request_id, "complete")

    assert trail.given_up.is_set()
    assert seen.code == code
