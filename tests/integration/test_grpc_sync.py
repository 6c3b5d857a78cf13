"""The threaded server's interceptor: invisible to those who serve, call and intercept beside it."""

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
import pytest

from auditlog import LogRecord, Outcome, annotate, skip
from auditlog.capture.context import current
from auditlog.capture.grpc_sync import AuditInterceptor
from auditlog.capture.policy import Level, Policy, Rule
from auditlog.records import Record
from auditlog.testing import MemorySink
from threaded_scene import WAIT_S, Interceptor, Trail, serving, ss, su, us, uu


class Details(NamedTuple):
    """What a server tells its interceptors."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...]


def said(row: LogRecord) -> dict[str, Any]:
    return dict(row.metadata or {})


def say_in_answer(_: Any, __: Any) -> bytes:
    annotate(user_id="7", step="one")
    return b""


def say_in_generator(_: Any, __: Any) -> Iterator[bytes]:
    annotate(user_id="7")
    yield b"1"
    annotate(step="one")
    yield b"2"
    annotate(last=True)


def say_between_requests(requests: Any, _: Any) -> bytes:
    for request in requests:
        annotate(user_id=request.decode(), step="one")
    return b""


def say_in_conversation(requests: Any, _: Any) -> Iterator[bytes]:
    for request in requests:
        annotate(user_id=request.decode())
        yield request
        annotate(step="one")


class SayingIterator:
    """No generator, and without `__iter__`, which the server does not ask for."""

    def __init__(self, _: Any, __: Any) -> None:
        annotate(user_id="7")
        self.left = 2

    def __next__(self) -> bytes:
        annotate(step="one")
        if not self.left:
            raise StopIteration
        self.left -= 1
        return b""


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (uu(say_in_answer), "unary"),
        (us(say_in_generator), "server_stream"),
        (us(SayingIterator), "server_stream"),
        (su(say_between_requests), "client_stream"),
        (ss(say_in_conversation), "bidi_stream"),
    ],
    ids=["return", "generator", "iterator", "requests", "conversation"],
)
def test_annotate_in_handlers_of_every_kind(handler: Any, kind: str) -> None:
    """And `skip` in the same places leaves no row."""
    trail = Trail()
    with serving(trail, method=handler) as scene:
        call = {
            "unary": lambda: scene.call("method"),
            "server_stream": lambda: list(scene.watch("method")),
            "client_stream": lambda: scene.upload("method", [b"6", b"7"]),
            "bidi_stream": lambda: list(scene.chat("method", [b"6", b"7"])),
        }[kind]
        call()
        row = trail.one()
    assert (row.user_id, said(row)["step"], said(row)["audit.rpc_kind"]) == ("7", "one", kind)


def test_skip_leaves_no_row() -> None:
    """Of a handler that returns, and of a generator after its first message."""
    trail = Trail()

    def generate(_: Any, __: Any) -> Iterator[bytes]:
        yield b""
        skip()

    with serving(
        trail, skips=uu(lambda *_: skip() or b""), streams=us(generate), ok=uu(lambda *_: b"")
    ) as scene:
        scene.call("skips")
        list(scene.watch("streams"))
        scene.call("ok")
        scene.server.stop(5).wait(WAIT_S)
        assert [row.request_method for row in trail.wait_for(1)] == ["ok"]


def test_interceptor_behind_may_annotate() -> None:
    """It runs on the server's thread, before the handler is known."""
    trail = Trail()

    def authenticate(continuation: Any, details: Any) -> Any:
        annotate(user_id=dict(details.invocation_metadata)["x-user"])
        return continuation(details)

    with serving(trail, behind=[Interceptor(authenticate)], ok=uu(lambda *_: b"")) as scene:
        scene.call("ok", metadata=(("x-user", "7"),))
        assert trail.one().user_id == "7"


def test_handler_that_is_run_in_another_thread_may_annotate() -> None:
    """By an interceptor in front; that thread's own context is as before."""
    trail = Trail()
    left: list[Any] = []

    def elsewhere(continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def run(request: Any, context: Any) -> Any:
            answer = pool.submit(handler.unary_unary, request, context).result(WAIT_S)
            left.append(pool.submit(current.get).result(WAIT_S))
            return answer

        return handler._replace(unary_unary=run)

    with (
        ThreadPoolExecutor(1) as pool,
        serving(trail, before=[Interceptor(elsewhere)], say=uu(say_in_answer)) as scene,
    ):
        scene.call("say")
        assert trail.one().user_id == "7"
    assert left == [None]


def test_messages_and_errors_pass_as_the_same_objects() -> None:
    """From the deserializer to the handler, from the handler to the serializer, and out."""
    trail = Trail()
    request, response, error = object(), object(), ValueError("the same")
    seen: list[Any] = []

    def handle(message: Any, context: Any) -> Any:
        seen.append(message)
        if "raise" in dict(context.invocation_metadata()):
            raise error
        return response

    def watch(continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def run(message: Any, context: Any) -> Any:
            try:
                return handler.unary_unary(message, context)
            except ValueError as raised:
                seen.append(raised)
                raise

        return handler._replace(unary_unary=run)

    method = uu(handle, lambda _: request, lambda answer: seen.append(answer) or b"")
    with serving(trail, before=[Interceptor(watch)], method=method) as scene:
        scene.call("method")
        scene.refused("method", metadata=(("raise", "1"),))
        trail.wait_for(2)
    assert [id(each) for each in seen] == [id(each) for each in (request, response, request, error)]


def test_interceptor_in_front_sees_the_handlers_attributes() -> None:
    """As decorators leave them, and its iterator's, with which it can be closed."""
    trail = Trail()
    closed: list[Any] = []

    def talk(_: Any, __: Any) -> Iterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            closed.append(current.get())

    talk.allowed_roles = ["admin"]  # type: ignore[attr-defined]

    def first_only(continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        assert handler.unary_stream.allowed_roles == ["admin"]
        assert handler.unary_stream.__name__ == "talk"

        def run(request: Any, context: Any) -> Iterator[bytes]:
            responses = handler.unary_stream(request, context)
            yield next(responses)
            responses.close()

        return handler._replace(unary_stream=run)

    with serving(trail, before=[Interceptor(first_only)], talk=us(talk)) as scene:
        assert list(scene.watch("talk")) == [b"1"]
        row = trail.one()
    assert (row.response_status, len(closed)) == (0, 1)


def test_server_that_is_intercepted_twice_has_one_row() -> None:
    """Of the interceptor in front."""
    trail, inner = Trail(), Trail()
    with serving(trail, behind=[AuditInterceptor(inner)], say=uu(say_in_answer)) as scene:
        scene.call("say")
        assert trail.one().user_id == "7"
    assert not inner.records


@pytest.mark.parametrize("method", ["/t/none", "/", "/noslash", "noslash", "/a/b/c"])
def test_unknown_method_has_a_row_with_its_client(method: str) -> None:
    """And the client sees what a bare server says, to the letter."""
    trail = Trail()
    with serving(trail) as audited, serving(None) as bare:
        errors = [
            scene.channel.unary_unary(method).future(b"").exception(WAIT_S)
            for scene in (audited, bare)
        ]
        row = trail.one()
    ours, theirs = (
        (error.code(), error.details(), error.initial_metadata(), error.trailing_metadata())
        for error in errors
    )
    assert ours == theirs
    assert row.request_url == method
    assert (row.response_status, said(row)["audit.status_source"]) == (12, "wire")
    assert said(row)["client.address"] == "127.0.0.1"


def test_unknown_method_is_answered_when_all_threads_are_busy() -> None:
    """As by a bare server, which asks no thread for it."""
    trail, may_go = Trail(), threading.Event()
    with serving(trail, threads=1, slow=uu(lambda *_: may_go.wait(WAIT_S) and b"")) as scene:
        busy = scene.begin("slow")
        assert scene.refused("none", timeout=WAIT_S) is grpc.StatusCode.UNIMPLEMENTED
        may_go.set()
        busy.result(WAIT_S)
        trail.wait_for(2)


def test_callable_that_blocks_does_not_hold_up_the_server() -> None:
    """It is asked in the handlers' threads, of unknown methods too."""
    trail, may_go = Trail(), threading.Event()

    def user_of(context: Any) -> str | None:
        if dict(context.invocation_metadata()).get("x-slow"):
            may_go.wait(WAIT_S)
        return "7"

    with serving(trail, options={"user_id": user_of}, ok=uu(lambda *_: b"")) as scene:
        slow = [scene.begin(name, metadata=(("x-slow", "1"),)) for name in ("ok", "none")]
        scene.call("ok")
        may_go.set()
        for call in slow:
            call.exception(WAIT_S)
        assert [row.user_id for row in trail.wait_for(3)] == ["7"] * 3


def test_interceptor_behind_that_raises_has_a_row() -> None:
    """The client gets UNKNOWN, as without us."""
    trail = Trail()

    def refuse(_: Any, __: Any) -> Any:
        raise PermissionError

    with serving(trail, behind=[Interceptor(refuse)], ok=uu(lambda *_: b"")) as scene:
        assert scene.refused("ok") is grpc.StatusCode.UNKNOWN
        row = trail.one()
    assert (row.response_status, said(row)["audit.status_source"]) == (2, "derived")
    assert said(row)["error.type"] == "PermissionError"


def test_handler_of_an_experimental_kind() -> None:
    """One that sends by a function it is given, in a pool of its own."""
    trail = Trail()
    names: list[str] = []

    def call_back(_: Any, __: Any, send: Any) -> None:
        names.append(threading.current_thread().name)
        annotate(user_id="7")
        send(b"1")
        send(b"2")
        send(None)

    with ThreadPoolExecutor(1, thread_name_prefix="own") as pool:
        call_back.experimental_non_blocking = True  # type: ignore[attr-defined]
        call_back.experimental_thread_pool = pool  # type: ignore[attr-defined]
        with serving(trail, method=us(call_back)) as scene:
            assert list(scene.watch("method")) == [b"1", b"2"]
            row = trail.one()
    assert names == ["own_0"]
    assert (row.response_status, row.user_id, said(row)["audit.messages_out"]) == (0, "7", 2)


class Broken(MemorySink):
    """A log that fails, against its contract."""

    def submit(self, _: Record) -> Outcome:
        raise RuntimeError("no row today")


def test_error_of_ours_is_not_the_clients() -> None:
    """It is counted, and everything else goes on."""
    broken = Broken()
    with serving(broken, say=uu(say_in_answer), talk=us(say_in_generator)) as scene:
        assert scene.call("say") == b""
        assert list(scene.watch("talk")) == [b"1", b"2"]
        scene.server.stop(5).wait(WAIT_S)
    assert len(broken.errors) == 2


def test_handler_that_is_none_of_grpcios() -> None:
    """It goes to the server as it is, and the row knows no status."""
    trail, handler = Trail(), object()
    interceptor = AuditInterceptor(trail)

    def intercept() -> Any:
        return interceptor.intercept_service(lambda _: handler, Details("/t/any", ()))

    assert contextvars.Context().run(intercept) is handler
    row = trail.one()
    assert (row.response_status, said(row)["audit.status_source"]) == (None, "none")


def test_details_that_are_none_of_grpcios() -> None:
    """The RPC is counted as lost, and goes on."""
    trail = Trail()
    assert AuditInterceptor(trail).intercept_service(lambda _: "handler", object()) == "handler"
    assert [type(error) for error in trail.errors] == [AttributeError]


def test_context_variables_of_the_application_are_as_before() -> None:
    """What an interceptor in front sets is seen in the handler and in its generator."""
    trail = Trail()
    variable = contextvars.ContextVar("variable", default="unset")

    def generate(_: Any, __: Any) -> Iterator[bytes]:
        for _ in range(2):
            yield variable.get().encode()

    def set_variable(continuation: Any, details: Any) -> Any:
        variable.set("set")
        return continuation(details)

    with serving(trail, before=[Interceptor(set_variable)], method=us(generate)) as scene:
        assert list(scene.watch("method")) == [b"set", b"set"]
        trail.one()


def test_long_stream_announces_itself() -> None:
    """Where a rule asks for it: a received row first, with the same exchange."""
    policy = Policy([Rule(name="streams", paths=("/t/*",), level=Level.HEADERS, received=True)])
    trail, may_go = Trail(), threading.Event()

    def talk(_: Any, __: Any) -> Iterator[bytes]:
        yield b"1"
        may_go.wait(WAIT_S)

    with serving(trail, options={"policy": policy}, talk=us(talk)) as scene:
        call = scene.watch("talk")
        next(call)
        received = trail.one()
        may_go.set()
        list(call)
        complete = trail.wait_for(2)[1]
    stages = [
        (said(row)["audit.stage"], said(row)["audit.exchange_id"]) for row in (received, complete)
    ]
    assert stages == [("received", received.log_id), ("complete", received.log_id)]
    assert said(received)["client.address"] == "127.0.0.1"
