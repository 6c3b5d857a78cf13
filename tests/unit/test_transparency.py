"""The same application, the same server, with and without the middleware: nothing differs."""

import asyncio
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_driver import END, START, audited, body, http_scope, start, upload, websocket_scope
from auditlog import Settings
from auditlog.testing import MemorySink


class ServerRefusal(Exception):  # noqa: N818  # what servers raise has other names still
    pass


@dataclass
class Trace:
    """All that passed between an application and its server, by object."""

    events: list[tuple[str, Any]] = field(default_factory=list)

    def identities(self) -> list[tuple[str, str, int]]:
        """What to compare: equal messages are not enough."""
        return [(kind, repr(value), id(value)) for kind, value in self.events]


Step = tuple[str, Any]


def application(steps: Iterable[Step], trace: Trace) -> Any:
    """An application that does the steps, and notes what it sees."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trace.events.append(("scope", scope.get("path")))
        for act, value in steps:
            if act == "raise":
                raise value
            try:
                if act == "receive":
                    trace.events.append(("received", await receive()))
                else:
                    trace.events.append(("returned", await send(value)))
            except Exception as error:
                trace.events.append(("caught", error))
                if act == "send":
                    raise

    return app


async def record(
    steps: Iterable[Step],
    scope: dict[str, Any],
    incoming: Iterable[Any],
    refusals: dict[int, Exception],
    wrap: Callable[[Any], Any],
) -> Trace:
    """Run the steps against a server that gives what is coming in and refuses by number."""
    trace = Trace()
    messages = iter(incoming)
    over = ServerRefusal("nothing more comes in")
    numbers = iter(range(1_000_000))

    async def receive() -> Any:
        trace.events.append(("receive", None))
        message = next(messages, over)
        if isinstance(message, Exception):
            raise message
        return message

    async def send(message: Any) -> None:
        trace.events.append(("send", message))
        refusal = refusals.get(next(numbers))
        if refusal is not None:
            raise refusal

    try:
        await wrap(application(steps, trace))(scope, receive, send)
    except BaseException as error:  # noqa: BLE001  # SystemExit and its like must pass as well
        trace.events.append(("raised", None if error is over else error))
    trace.events = [(kind, None if value is over else value) for kind, value in trace.events]
    return trace


def assert_same(
    steps: list[Step],
    scope: dict[str, Any],
    incoming: Iterable[Any] = (),
    refusals: dict[int, Exception] | None = None,
    settings: Settings | None = None,
) -> MemorySink:
    """Compare the two traces, and the messages with what they were before."""
    incoming = list(incoming)
    before = copy.deepcopy([value for act, value in steps if act.startswith("send")])
    sink = MemorySink(settings)

    def run(wrap: Callable[[Any], Any]) -> Trace:
        return asyncio.run(record(steps, dict(scope), incoming, refusals or {}, wrap))

    bare, with_middleware = run(lambda app: app), run(lambda app: audited(app, sink)[0])
    assert bare.identities() == with_middleware.identities()
    assert before == [value for act, value in steps if act.startswith("send")]
    return sink


SENT_OVER_HTTP: list[Any] = [
    START,
    END,
    start(404, trailers=True),
    start("200"),
    start(None),
    start(99),
    start(200, headers=5),
    {"type": "http.response.start"},
    body(b"abc", more_body=True),
    body(None),
    body("text"),
    body(5),
    body(bytearray(b"abc")),
    body(b"", more_body=[]),
    {"type": "http.response.body"},
    {"type": "http.response.trailers", "headers": [], "more_trailers": True},
    {"type": "http.response.trailers", "headers": []},
    {"type": "http.response.pathsend", "path": "/etc/hostname"},
    {"type": "http.response.zerocopysend", "file": 3, "count": 5, "more_body": True},
    {"type": "http.response.zerocopysend", "file": 3, "count": "many"},
    {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]},
    {"type": "http.response.push", "path": "/a", "headers": []},
    {"type": "http.response.debug", "info": {"template": None}},
]
SENT_OVER_WEBSOCKET: list[Any] = [
    {"type": "websocket.accept"},
    {"type": "websocket.accept", "subprotocol": 5, "headers": None},
    {"type": "websocket.send", "text": "é"},
    {"type": "websocket.send", "bytes": b"abc", "text": None},
    {"type": "websocket.send"},
    {"type": "websocket.send", "text": 5},
    {"type": "websocket.close"},
    {"type": "websocket.close", "code": 4000, "reason": "x" * 200},
    {"type": "websocket.close", "code": "x", "reason": 5},
    {"type": "websocket.http.response.start", "status": 401, "headers": []},
    {"type": "websocket.http.response.start", "status": None},
    {"type": "websocket.http.response.body", "body": b"no", "more_body": True},
    {"type": "websocket.http.response.body", "body": 5},
    {"type": "websocket.http.response.body"},
]
NO_MESSAGES: list[Any] = [
    None,
    5,
    "http.response.start",
    [],
    ["type", "http.response.body"],
    {},
    {"type": None},
    {"type": 5},
    {"type": ["http.response.body"]},
    {"type": "http.response.unheard_of"},
    {"status": 200},
]
RECEIVED: list[Any] = [
    upload(b"abc", more_body=True),
    upload(),
    {"type": "http.request"},
    {"type": "http.request", "body": 5},
    {"type": "http.disconnect"},
    {"type": "websocket.connect"},
    {"type": "websocket.receive", "text": "é"},
    {"type": "websocket.receive", "bytes": b"a"},
    {"type": "websocket.receive", "text": 5},
    {"type": "websocket.disconnect", "code": 1001},
    {"type": "websocket.disconnect", "code": "x", "reason": 5},
    ServerRefusal("receive"),
    OSError("receive"),
]
ERRORS: list[BaseException] = [
    RuntimeError("no"),
    OSError("no"),
    asyncio.CancelledError(),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopAsyncIteration(),
    ExceptionGroup("some", [RuntimeError("one")]),
    BaseExceptionGroup("some", [asyncio.CancelledError()]),
]
REFUSALS = [ServerRefusal("send"), OSError("send"), RuntimeError("already completed")]

_MESSAGES = st.sampled_from([*SENT_OVER_HTTP, *SENT_OVER_WEBSOCKET, *NO_MESSAGES])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), st.none()),
        st.tuples(st.sampled_from(["send", "send and catch"]), _MESSAGES),
    ),
    max_size=8,
)
# asyncio itself looks at these two on their way out of a task.
_RAISED = st.sampled_from(
    [error for error in ERRORS if not isinstance(error, SystemExit | KeyboardInterrupt)]
)
_ENDS = st.lists(st.tuples(st.just("raise"), _RAISED), max_size=1)
_SCOPES = st.sampled_from([http_scope(), websocket_scope(), http_scope(type="webtransport")])


@given(
    steps=_STEPS,
    end=_ENDS,
    scope=_SCOPES,
    incoming=st.lists(st.sampled_from([*RECEIVED, *NO_MESSAGES]), max_size=6),
    refusals=st.dictionaries(st.integers(0, 8), st.sampled_from(REFUSALS), max_size=3),
)
@example([("send", START), ("send", START)], [], http_scope(), [], {1: REFUSALS[0]})
@example([("send", END), ("send", START)], [], http_scope(), [], {})
def test_any_sequence_of_messages_passes_unchanged(
    steps: list[Step],
    end: list[Step],
    scope: dict[str, Any],
    incoming: list[Any],
    refusals: dict[int, Exception],
) -> None:
    """Legal or not, accepted or refused: the same objects in the same order, both ways."""
    sink = assert_same([*steps, *end], scope, incoming, refusals)

    assert len(sink.records) == (scope["type"] != "webtransport")
    assert sink.errors == []


@pytest.mark.parametrize("scope", [http_scope(), websocket_scope()], ids=["http", "websocket"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_exception_passes_as_the_same_object(error: BaseException, scope: dict[str, Any]) -> None:
    """Without a cause or a context that it did not have."""
    middleware, sink = audited(application([("raise", error)], Trace()))
    coroutine = middleware(scope, None, None)
    with pytest.raises(type(error)) as raised:
        coroutine.send(None)

    assert raised.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert len(sink.records) == 1


@pytest.mark.parametrize("message", [*SENT_OVER_HTTP, *NO_MESSAGES], ids=repr)
def test_message_passes_alone(message: Any) -> None:
    """Extensions are for server and application to agree on."""
    assert_same([("send", START), ("send", message), ("send", END)], http_scope())


def test_receive_is_called_only_by_the_application() -> None:
    """A disconnect that somebody else has taken would never reach it."""
    sink = assert_same(
        [("send", START), ("send", END)], http_scope(), [{"type": "http.disconnect"}]
    )

    assert len(sink.records) == 1


@pytest.mark.parametrize("type_", ["http", "websocket"])
async def test_cancelled_task_is_cancelled(type_: str) -> None:
    """As it would be without the middleware, and once."""
    reached = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    middleware, sink = audited(app)
    scope = http_scope() if type_ == "http" else websocket_scope()
    task = asyncio.create_task(middleware(scope, None, None))
    await reached.wait()
    task.cancel("by the server")
    await asyncio.wait({task})

    assert task.cancelled()
    assert len(sink.records) == 1


async def test_time_out_of_an_outer_layer_stays_a_time_out() -> None:
    """asyncio.timeout counts cancellations; one swallowed or added would show."""

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    middleware, sink = audited(app)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await middleware(http_scope(), asyncio.Event().wait, None)
    task = asyncio.current_task()

    assert task is not None
    assert task.cancelling() == 0
    assert len(sink.records) == 1


def lifespan_scope() -> dict[str, Any]:
    return {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}
RECEIVE: Step = ("receive", None)


@pytest.mark.parametrize(
    "steps",
    [
        [RECEIVE, ("send", COMPLETE), RECEIVE, ("send", STOPPED)],
        [RECEIVE, ("send", {"type": "lifespan.startup.failed", "message": "no"})],
        [RECEIVE, ("send", {"type": "lifespan.startup.failed"}), ("raise", ERRORS[0])],
        [RECEIVE, ("raise", ERRORS[0])],
        [RECEIVE, ("raise", ERRORS[2])],
        [RECEIVE, ("send", COMPLETE), ("raise", ERRORS[0])],
        [RECEIVE, ("send", COMPLETE), RECEIVE, ("raise", ERRORS[0])],
        [RECEIVE, ("send", COMPLETE), RECEIVE, ("send", {"type": "lifespan.shutdown.failed"})],
        [RECEIVE, ("send", COMPLETE), RECEIVE],
        [RECEIVE, ("send", COMPLETE), RECEIVE, ("send", STOPPED), ("raise", ERRORS[0])],
        [RECEIVE],
        [RECEIVE, ("send", None), ("send", {"type": []}), ("send", COMPLETE), RECEIVE],
        [("send", COMPLETE), RECEIVE, RECEIVE, ("send", STOPPED)],
        [("send", COMPLETE), ("raise", ERRORS[0])],
    ],
    ids=lambda steps: " ".join(
        str((value or {}).get("type")) if act == "send" else act
        for act, value in steps
        if not isinstance(value, list)
    ),
)
def test_lifespan_of_an_application_that_has_one_passes_unchanged(steps: list[Step]) -> None:
    """Also where it fails; and however it ends, the log is started and drained as often."""
    sink = assert_same(steps, lifespan_scope(), [STARTUP, SHUTDOWN])

    assert sink.starts == 0


def test_lifespan_of_a_server_that_breaks_passes_unchanged() -> None:
    """Non-messages and exceptions from its side."""
    for incoming in ([None], [5], [{}], [OSError("no")], [STARTUP, RuntimeError("no")]):
        steps: list[Step] = [RECEIVE, ("send", COMPLETE), RECEIVE]
        assert assert_same(steps, lifespan_scope(), incoming).starts == 0


def test_echo_of_the_request_id_changes_nothing_but_that_header() -> None:
    """The one setting that touches a response."""
    sink = MemorySink(Settings(echo_request_id=True))
    scope = http_scope(headers=[(b"x-request-id", b"abc")])
    message = start(201, headers=[(b"a", b"b")], trailers=True)
    steps: list[Step] = [("send", message), ("send", END)]
    trace = asyncio.run(record(steps, scope, [], {}, lambda app: audited(app, sink)[0]))
    sent = [value for kind, value in trace.events if kind == "send"]

    assert sent == [{**message, "headers": [(b"a", b"b"), (b"x-request-id", b"abc")]}, END]
