"""`durability="commit"`: no audit, no answer."""

import asyncio
import gc
import json
from typing import Any

import pytest
from test_durable_web_spool import ACCEPT, CLOSE, DENIAL, DENIED, EMPTY, HINT, LAST, PATH, THREE

from asgi_driver import END, START, body, http_scope, metadata_of, script, start, websocket_scope
from auditlog import AuditMiddleware, Level, LogRecord, Policy, Rule, annotate, skip
from auditlog.capture.web.committed import UnauditedError
from durable_trail import DURABLE, OrderedSink
from tuples import encoded

SELDOM = Policy([Rule(name="seldom", level=Level.METADATA, statuses=("2xx",), sample=0)])
REFUSING = {"websocket.http.response": {}}
PROBLEM = (b"content-type", b"application/problem+json")
CONNECT = [{"type": "websocket.connect"}]


def commit(*answers: bool, **settings: Any) -> OrderedSink:
    return OrderedSink(*answers, durability="commit", **settings)


def problem_of(messages: list[Any]) -> dict[str, Any]:
    """What a refusal says, whose two messages are these."""
    first, last = messages
    headers = dict(first["headers"])
    assert first["status"] == 503
    assert PROBLEM in first["headers"]
    assert int(headers[b"content-length"]) == len(last["body"])
    problem = json.loads(last["body"])
    assert (problem["type"], problem["title"], problem["status"]) == (
        "about:blank",
        "Service Unavailable",
        503,
    )
    assert isinstance(problem["detail"], str)
    return {"retry-after": headers.get(b"retry-after"), **problem}


# Of an answer that ends well.


@pytest.mark.parametrize(("scope", "messages", "before"), LAST.values(), ids=LAST)
async def test_answer_waits_for_its_complete_row(
    scope: dict[str, Any], messages: list[Any], before: int
) -> None:
    """The received row before the application runs, the complete one before the end."""
    sink = commit()
    run = await sink.run(script(*messages), scope)
    waited = sink.events.index("complete") + 1

    assert sink.events[:2] == ["received", DURABLE]
    assert sink.events[waited] == DURABLE
    # A head on its own is held back until then.
    held = before and messages[before - 1]["type"].endswith("response.start")
    assert len(sink.events[2 : waited - 1]) == before - bool(held)
    assert [id(message) for message in run.sent] == [id(message) for message in messages]
    assert (run.error, sink.stages()) == (None, ["received", "complete"])


async def test_rows_tell_what_they_do_where_a_rule_asks_for_both() -> None:
    """The same two, under one ticket."""
    sink = commit()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(user_id="7")
        await send(start(201))
        await send(body(b"abc"))

    await sink.run(app, http_scope())
    received, complete = sink.row("received"), sink.row("complete")
    metadata = metadata_of(complete)

    assert metadata_of(received)["audit.outcome"] == "unknown"
    assert encoded(received)["request_headers"] == {"host": ["example.org"]}
    assert (complete.response_status, complete.user_id) == (201, "7")
    assert (metadata["audit.exchange_id"], metadata["audit.outcome"]) == (received.log_id, "ok")
    assert metadata["http.response.body.size"] == 3
    assert sink.tickets[0] is sink.tickets[1] is not None


@pytest.mark.parametrize("said", [skip, None], ids=["skip", "sampled out"])
async def test_what_is_left_out_is_ended_all_the_same(said: Any) -> None:
    """And its end is waited for."""
    sink = commit()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if said:
            said()
        await send(START)
        await send(END)

    policy = Policy() if said else SELDOM
    await sink.run(app, http_scope(), policy=policy)

    assert sink.events == ["received", DURABLE, "complete", DURABLE, "start", "body"]
    assert metadata_of(sink.row("complete"))["audit.left_out"] is True


async def test_exempt_request_waits_for_nothing() -> None:
    """A health check is answered while the database is away; if it fails, it has its row."""
    sink = commit(False, False)
    scope = http_scope(path="/healthz", raw_path=b"/healthz")
    assert (await sink.run(script(START, END), scope)).sent == [START, END]
    assert sink.events == ["start", "body"]
    bad = start(500)
    assert (await sink.run(script(bad, END), scope)).sent == [bad, END]

    assert sink.events[2:] == ["start", "body", "row"]


@pytest.mark.parametrize(
    "conditions",
    [
        {"users": ("svc-*",)},
        {"tenants": ("test",)},
        {"routes": ("**/__schema",), "protocols": (3,)},
        {"protocols": (3,)},
        {"statuses": ("404",)},
        {"outcomes": ("client_disconnect",)},
        {"paths": ("/orders/**",), "routes": ("/orders/mine",)},
    ],
    ids=["users", "tenants", "introspection", "protocol", "status", "outcome", "route"],
)
async def test_rule_that_may_be_for_any_request_exempts_none(conditions: Any) -> None:
    """It leaves out a few, and which these are is told by the answer."""
    policy = Policy([Rule(name="left out", level=Level.NONE, **conditions)])
    sink = commit(False)
    run = await sink.run(script(START, END), http_scope(), policy=policy)

    assert sink.stages() == ["received", "complete"]
    assert run.sent[0]["status"] == 503


@pytest.mark.parametrize(
    "conditions",
    [{}, {"methods": ("GET",), "statuses": ("2xx",)}, {"protocols": (1,), "outcomes": ("ok",)}],
    ids=["all", "status", "outcome"],
)
async def test_rule_that_leaves_out_all_that_succeeds_exempts_it(conditions: Any) -> None:
    """There would be no row to wait for."""
    policy = Policy([Rule(name="left out", level=Level.NONE, **conditions)])
    sink = commit(False)
    run = await sink.run(script(START, END), http_scope(), policy=policy)

    assert (run.sent, sink.records) == ([START, END], [])


# Of a request that cannot be announced.


@pytest.mark.parametrize(
    ("durability", "scope", "statuses"),
    [
        ("commit", http_scope(), [503]),
        ("commit", http_scope(method="HEAD"), [503]),
        ("commit", websocket_scope(extensions=REFUSING), [503]),
        ("commit", websocket_scope(), [1013]),
        ("memory", http_scope(), [200]),
    ],
)
async def test_request_that_cannot_be_read_is_not_served_without_a_row(
    durability: str, scope: Any, statuses: list[int]
) -> None:
    """Its scope is not what it should be, for one; other modes serve it, and count."""

    class Unread(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return 1 / 0 if key == "query_string" else super().get(key, default)

    sink, sent = OrderedSink(durability=durability), []

    async def send(message: Any) -> None:
        sent.append(message)

    await AuditMiddleware(script(START, END), audit=sink)(Unread(scope), None, send)  # type: ignore[arg-type]  # nothing comes in

    assert [type(error) for error in sink.errors] == [ZeroDivisionError]
    assert [each.get("status", each.get("code")) for each in sent[:1]] == statuses


async def test_request_that_cannot_be_announced_is_refused() -> None:
    """The application does not run; the client is told, and later the trail."""
    sink = commit(False)
    ran: list[Any] = []

    async def app(*_: Any) -> None:
        ran.append(1)

    run = await sink.run(app, http_scope())
    problem = problem_of(run.sent)
    complete = sink.row("complete")
    metadata = metadata_of(complete)

    assert ran == []
    assert sink.events == ["received", DURABLE, "start", "body", "complete"]
    assert (problem["retry-after"], run.error) == (b"2", None)
    assert "not carried out" in problem["detail"]
    assert (complete.response_status, complete.log_level, complete.low_priority) == (503, 3, False)
    assert (metadata["audit.outcome"], metadata["audit.refused"]) == ("server_error", True)
    assert metadata["audit.status_source"] == "wire"
    assert "audit.refused" not in metadata_of(sink.row("received"))
    assert sink.tickets[1] is None, "queued, not waited for"


async def test_refusal_of_a_head_has_no_body() -> None:
    """But the headers that a GET would have."""
    sink = commit(False)
    run = await sink.run(script(START, END), http_scope(method="HEAD"))

    assert run.sent[0]["status"] == 503
    assert PROBLEM in run.sent[0]["headers"]
    assert run.sent[1]["body"] == b""


async def test_refusal_echoes_the_request_id() -> None:
    """So that the client can name what was refused."""
    sink = commit(False, echo_request_id=True, commit_timeout_s=0.5)
    run = await sink.run(script(START, END), http_scope())
    headers = dict(run.sent[0]["headers"])

    assert headers[b"x-request-id"].decode() == sink.row("received").log_id
    assert headers[b"retry-after"] == b"1"


async def test_refusal_to_a_client_that_left_breaks_nothing() -> None:
    """There is nobody to tell."""

    class Gone(OrderedSink):
        def passed(self, message: Any) -> None:
            raise OSError("gone")

    sink = Gone(False, durability="commit")
    run = await sink.run(script(START, END), http_scope())

    assert (run.error, run.sent) == (None, [])
    assert metadata_of(sink.row("complete"))["audit.outcome"] == "client_disconnect"


@pytest.mark.parametrize("offered", [True, False])
async def test_websocket_that_cannot_be_announced_is_refused(offered: bool) -> None:
    """With a denial where the server offers that; else by a close, of which it makes a 403."""
    sink = commit(False)
    scope = websocket_scope(extensions=REFUSING if offered else None)
    run = await sink.run(script(..., ACCEPT, CLOSE), scope, CONNECT)
    complete = sink.row("complete")
    metadata = metadata_of(complete)

    if offered:
        problem_of(run.sent)
    else:
        assert run.sent == [{"type": "websocket.close", "code": 1013}]
    assert (complete.response_status, metadata["audit.status_source"]) == (
        (503, "wire") if offered else (403, "derived")
    )
    assert (metadata["audit.outcome"], metadata["audit.refused"]) == ("server_error", True)


async def test_cancelled_wait_leaves_both_rows() -> None:
    """The client gave up, or the server stops; the application did not run."""

    class Hanging(OrderedSink):
        async def durable(self, _ticket: Any) -> bool:
            raise asyncio.CancelledError

    sink = Hanging(durability="commit")
    run = await sink.run(script(START, END), http_scope())

    assert isinstance(run.error, asyncio.CancelledError)
    assert (run.sent, sink.stages()) == ([], ["received", "complete"])
    assert metadata_of(sink.row("complete"))["audit.outcome"] == "cancelled"


class Raising:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError("hunter2")


@pytest.mark.parametrize("broken", ["policy", "redactor", "recorder"])
async def test_nothing_runs_without_a_row_whatever_is_broken(broken: str) -> None:
    """A bare row is one; where not even that can be made, the request is refused."""
    sink = OrderedSink(durability="commit")
    middleware = AuditMiddleware(script(START, END), audit=sink)
    if broken == "recorder":
        sink.submit = lambda *_: Raising().submit  # type: ignore[method-assign]  # broken
        sink.durable = super(OrderedSink, sink).durable  # type: ignore[method-assign]
    elif broken == "policy":
        middleware._capture.policy.at_beginning = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]  # broken
    else:
        capture = middleware._capture
        parts = {slot: getattr(capture, slot) for slot in capture.__slots__}
        middleware._capture = type(capture)(**{**parts, broken: Raising()})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await middleware(http_scope(), None, send)  # type: ignore[arg-type]  # nothing comes in

    if broken == "recorder":
        problem_of(sent)
        assert sink.errors != []
    else:
        assert sent == [START, END]
        assert sink.events == ["received", DURABLE, "complete", DURABLE]


# Of an answer that cannot be audited.


async def refused_answer(app: Any, scope: Any = None) -> tuple[OrderedSink, Any]:
    """The sink and the run of a request whose complete row is not committed in time."""
    sink = commit(True, False)
    return sink, await sink.run(app, http_scope() if scope is None else scope, CONNECT)


@pytest.mark.parametrize(
    "messages",
    [
        [START, END],
        [start(headers=[EMPTY]), END],
        [start(204), END],
        [start(headers=[THREE]), body(b"abc", more_body=True), END],
        [START, PATH],
        [HINT, START, END],
    ],
    ids=["plain", "without a body", "no content", "with its length", "file", "hint first"],
)
async def test_answer_that_cannot_be_audited_is_withheld(messages: list[Any]) -> None:
    """Nothing of it reaches the client; the application, which has done its work, goes on."""
    went_on: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        await send(END)
        went_on.extend(sink.stages())

    sink = commit(True, False)
    run = await sink.run(app, http_scope())
    hints = [message for message in messages if message is HINT]
    problem = problem_of(run.sent[len(hints) :])
    late = sink.row("late")
    metadata = metadata_of(late)

    assert (run.error, went_on) == (None, ["received", "complete", "late"])
    assert problem["retry-after"] is None, "it may have been carried out"
    assert "may have been carried out" in problem["detail"]
    assert sink.stages() == ["received", "complete", "late"]
    assert metadata_of(sink.row("complete"))["audit.outcome"] == "ok"
    assert (late.response_status, metadata["audit.refused"]) == (503, True)
    assert (metadata["audit.outcome"], metadata["audit.status_source"]) == ("server_error", "wire")
    assert (late.log_level, late.low_priority) == (3, False)
    assert sink.tickets[2] is None


async def test_what_comes_after_a_refusal_is_no_second_one() -> None:
    """Refusals are counted by their rows."""
    sink, run = await refused_answer(script(START, END, RuntimeError()))
    first, second = sink.records[2:]
    assert isinstance(first, LogRecord)
    assert isinstance(second, LogRecord)
    metadata = metadata_of(second)

    assert run.error is not None
    assert metadata_of(first)["audit.refused"] is True
    assert (metadata["error.type"], "audit.refused" in metadata) == ("RuntimeError", False)
    assert (second.response_status, metadata["audit.outcome"]) == (None, "server_error")


async def test_stream_that_cannot_be_audited_is_broken_off() -> None:
    """The chunks are at the client; the end never is, however often it is sent."""
    chunk, raised = body(b"a", more_body=True), []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(chunk)
        for _ in range(2):
            try:
                await send(END)
            except UnauditedError as error:
                raised.append(error)
        raise raised[0]

    sink, run = await refused_answer(app)
    late = sink.row("late")
    metadata = metadata_of(late)

    assert run.sent == [START, chunk]
    assert (len(raised), run.error) == (2, raised[0])
    assert (metadata["error.type"], metadata["audit.refused"]) == ("UnauditedError", True)
    assert (metadata["audit.outcome"], late.response_status) == ("server_error", 200)
    assert sink.stages() == ["received", "complete", "late"]


@pytest.mark.parametrize("held", [True, False], ids=["head held back", "nothing sent"])
async def test_error_of_the_application_waits_for_the_row(held: bool) -> None:
    """An outer layer answers for it only then; what was held back goes first, as ever."""
    error = RuntimeError()
    sink = commit()
    run = await sink.run(script(*([START] if held else []), error), http_scope())
    metadata = metadata_of(sink.row("complete"))

    assert run.error is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert run.sent == ([START] if held else [])
    assert sink.events[2:4] == ["complete", DURABLE]
    assert sink.stages() == ["received", "complete"]
    assert (metadata["error.type"], metadata["audit.outcome"]) == ("RuntimeError", "server_error")


@pytest.mark.parametrize("held", [True, False], ids=["head held back", "nothing sent"])
async def test_error_that_cannot_be_audited_is_a_refusal(held: bool) -> None:
    """The error goes on; whoever is outside sees an answer that has been given."""
    error = RuntimeError()
    sink, run = await refused_answer(script(*([START] if held else []), error))

    problem_of(run.sent)
    assert run.error is error
    assert sink.stages() == ["received", "complete", "late"]
    assert metadata_of(sink.row("late"))["error.type"] == "RuntimeError"


async def test_error_in_a_stream_that_cannot_be_audited_stays_the_same_error() -> None:
    """The answer is broken off by it in any case."""
    error, chunk = RuntimeError(), body(b"a", more_body=True)
    sink, run = await refused_answer(script(START, chunk, error))

    assert (run.sent, run.error) == ([START, chunk], error)
    assert metadata_of(sink.row("late"))["audit.refused"] is True


@pytest.mark.parametrize(
    ("steps", "sent"),
    [([], []), ([START], [START])],
    ids=["nothing", "only a head"],
)
async def test_application_that_ends_without_an_end_waits_too(
    steps: list[Any], sent: list[Any]
) -> None:
    """The server answers for it."""
    sink = commit()
    run = await sink.run(script(*steps), http_scope())

    assert (run.sent, run.error) == (sent, None)
    assert sink.events[2:4] == ["complete", DURABLE]


async def test_client_that_left_is_not_waited_for() -> None:
    """Its row is queued."""
    sink = commit()
    await sink.run(script(..., START), http_scope(), [{"type": "http.disconnect"}])

    assert sink.events == ["received", DURABLE, "complete"]


async def test_cancelled_application_is_not_waited_for() -> None:
    """The server stops."""
    sink = commit()
    run = await sink.run(script(START, asyncio.CancelledError()), http_scope())

    assert isinstance(run.error, asyncio.CancelledError)
    assert sink.events == ["received", DURABLE, "complete"]


async def test_answer_whose_wait_was_cancelled_never_goes_out() -> None:
    """An application may have a time-out of its own, catch it and try again."""

    class Hanging(OrderedSink):
        async def durable(self, ticket: Any) -> bool:
            await super().durable(ticket)
            if self.events.count(DURABLE) > 1:
                raise asyncio.CancelledError
            return True

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        with pytest.raises(asyncio.CancelledError):
            await send(END)
        with pytest.raises(UnauditedError):
            await send(END)

    sink = Hanging(durability="commit")
    run = await sink.run(app, http_scope())

    assert (run.sent, run.error) == ([], None)
    assert sink.stages() == ["received", "complete", "late"]
    late = sink.row("late")
    assert metadata_of(late)["audit.refused"] is True
    assert (late.response_status, metadata_of(late)["audit.status_source"]) == (500, "derived")


async def test_head_that_is_held_back_goes_as_it_was_sent() -> None:
    """What an application does to it in the belief that it is at the client has no effect."""
    message = start(headers=[(b"a", b"1")])

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(message)
        message["status"] = 500
        message["headers"].append((b"b", b"2"))
        await send(END)

    run = await commit().run(app, http_scope())

    assert run.sent == [start(headers=[(b"a", b"1")]), END]


async def test_head_that_goes_on_its_own_goes_as_it_was_sent() -> None:
    """By the timer, likewise."""
    message, at_client = start(headers=[(b"a", b"1")]), asyncio.Event()
    sink = commit()
    sink.passed = lambda _: at_client.set()  # type: ignore[method-assign]  # the server

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(message)
        message["headers"].clear()
        await at_client.wait()
        await send(END)

    run = await sink.run(app, http_scope())

    assert run.sent == [start(headers=[(b"a", b"1")]), END]


async def test_head_on_its_way_ends_with_the_application() -> None:
    """A client that reads nothing holds up no task for ever."""
    taken, ended, sink = asyncio.Event(), asyncio.Event(), commit()

    async def send(_message: Any) -> None:
        taken.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await taken.wait()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await AuditMiddleware(app, audit=sink)(http_scope(), None, send)  # type: ignore[arg-type]

    await asyncio.wait_for(ended.wait(), 5)


async def test_client_that_left_before_the_head_went_on_its_own_is_told_as_such(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody asks the task that found it out, and the loop does not complain of that."""
    tried = asyncio.Event()

    class Gone(OrderedSink):
        def passed(self, message: Any) -> None:
            tried.set()
            raise OSError("gone")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await tried.wait()

    sink = Gone(durability="commit")
    run = await sink.run(app, http_scope())
    gc.collect()

    # What earlier tests have left is collected now too, and complained of.
    complaints = [each for each in caplog.records if "gone" in str(each.exc_info)]
    assert (run.error, run.sent, complaints) == (None, [], [])
    assert metadata_of(sink.row("complete"))["audit.outcome"] == "client_disconnect"


async def test_head_is_not_held_back_for_ever() -> None:
    """The client of an event stream waits for it, and the first event may be far away."""
    at_client = asyncio.Event()

    class Watching(OrderedSink):
        def passed(self, message: Any) -> None:
            super().passed(message)
            at_client.set()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await at_client.wait()
        await send(body(b"a", more_body=True))
        await send(END)

    sink = Watching(durability="commit")
    run = await sink.run(app, http_scope())

    assert [message["type"] for message in run.sent] == [
        "http.response.start",
        "http.response.body",
        "http.response.body",
    ]
    assert sink.events[2:] == ["start", "body", "complete", DURABLE, "body"]


async def test_head_that_went_on_its_own_is_followed_in_order() -> None:
    """A server that is slow to take it is waited for."""
    sink, taken, events = commit(), asyncio.Event(), []

    async def send(message: Any) -> None:
        events.append(message["type"])
        if len(events) == 1:
            started.set()
            await taken.wait()
            events.append("taken")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await started.wait()
        asyncio.get_running_loop().call_soon(taken.set)
        await send(END)

    started = asyncio.Event()
    await AuditMiddleware(app, audit=sink)(http_scope(), None, send)  # type: ignore[arg-type]

    assert events == ["http.response.start", "taken", "http.response.body"]


async def test_second_head_is_for_the_server_to_refuse() -> None:
    """The first one goes before it."""

    def refuse(message: Any) -> None:
        if message is second:
            raise RuntimeError("twice")

    second, sink = start(500), commit()
    sink.passed = refuse  # type: ignore[method-assign]  # the server
    run = await sink.run(script(START, second), http_scope())

    assert run.sent == [START]
    assert isinstance(run.error, RuntimeError)


# Of a WebSocket.


async def test_close_of_a_websocket_waits_for_its_row() -> None:
    """Frames and all before it pass at once."""
    frame = {"type": "websocket.send", "text": "a"}
    sink = commit()
    run = await sink.run(script(..., ACCEPT, frame, CLOSE), websocket_scope(), CONNECT)

    assert run.sent == [ACCEPT, frame, CLOSE]
    assert sink.events == [
        "received",
        DURABLE,
        "websocket.accept",
        "websocket.send",
        "complete",
        DURABLE,
        "websocket.close",
    ]


async def test_websocket_that_cannot_be_audited_is_closed_with_another_code() -> None:
    """Try again later, it says, instead of a proper end."""
    sink, run = await refused_answer(script(..., ACCEPT, CLOSE), websocket_scope())

    assert run.sent == [ACCEPT, {"type": "websocket.close", "code": 1013}]
    assert metadata_of(sink.row("complete"))["websocket.close_code"] == 1000
    assert metadata_of(sink.row("late"))["audit.refused"] is True


@pytest.mark.parametrize("messages", [[CLOSE], [DENIAL, DENIED]], ids=["close", "denial"])
@pytest.mark.parametrize("offered", [True, False])
async def test_denial_that_cannot_be_audited_is_a_refusal(
    messages: list[Any], offered: bool
) -> None:
    """The handshake is refused either way."""
    scope = websocket_scope(extensions=REFUSING if offered else None)
    _, run = await refused_answer(script(..., *messages), scope)

    if offered:
        problem_of(run.sent)
    else:
        assert run.sent == [{"type": "websocket.close", "code": 1013}]


async def test_websocket_that_its_client_closed_is_not_waited_for() -> None:
    """There is no answer to hold back."""
    sink = commit()
    messages = [*CONNECT, {"type": "websocket.disconnect", "code": 1000}]
    await sink.run(script(..., ACCEPT, ...), websocket_scope(), messages)

    assert sink.events == ["received", DURABLE, "websocket.accept", "complete"]
