"""Two rows for one request: the received one when it begins, the complete one at its end."""

import asyncio
from typing import Any

import pytest

from asgi_driver import (
    END,
    START,
    audited,
    body,
    drive,
    http_scope,
    metadata_of,
    only,
    script,
    start,
    websocket_scope,
)
from auditlog import Level, LogRecord, Policy, Rule, Settings, annotate, skip
from auditlog.capture.context import current
from auditlog.testing import MemorySink
from tuples import encoded

OK_ANSWER = script(START, END)
ALL = Policy([Rule(name="all", level=Level.HEADERS, received=True)])
STAGE, EXCHANGE = "audit.stage", "audit.exchange_id"


async def two_rows(app: Any, scope: Any = None, **options: Any) -> tuple[LogRecord, LogRecord]:
    """The received and the complete row of one call; either can be stored."""
    middleware, sink = audited(app, **{"policy": ALL, **options})
    await drive(middleware, http_scope() if scope is None else scope)
    return pair(sink)


def pair(sink: MemorySink) -> tuple[LogRecord, LogRecord]:
    """The two rows there are, tied by the exchange's id, which is the first one's own."""
    assert sink.errors == []
    received, complete = sink.records
    assert isinstance(received, LogRecord)
    assert isinstance(complete, LogRecord)
    first, last = metadata_of(received), metadata_of(complete)
    assert (first[STAGE], last[STAGE]) == ("received", "complete")
    assert first[EXCHANGE] == last[EXCHANGE] == received.log_id == encoded(received)["log_id"]
    assert encoded(complete)["log_id"] > received.log_id, "the order of recording"
    return received, complete


async def test_request_has_a_row_before_the_application_runs() -> None:
    """It says what is known, and that nothing is known of the end."""
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        seen.extend(sink.records)
        await send(start(201))
        await send(END)

    headers = [(b"host", b"example.org"), (b"x-request-id", b"abc"), (b"cookie", b"a=b")]
    middleware, sink = audited(app, policy=ALL)
    await drive(middleware, http_scope(query_string=b"token=hunter2", headers=headers))
    received, complete = pair(sink)
    row = encoded(received)

    assert [received] == seen
    assert (row["request_method"], row["protocol"], row["log_level"]) == ("GET", 1, 1)
    assert row["request_url"] == "/orders/42?token=[REDACTED]"
    assert row["request_headers"] == {"host": ["example.org"], "x-request-id": ["abc"]}
    assert (row["response_status"], row["response_time_ms"]) == (None, None)
    assert row["metadata"] == {
        STAGE: "received",
        EXCHANGE: received.log_id,
        "audit.outcome": "unknown",
        "audit.status_source": "none",
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "audit.request_id": "abc",
        "audit.rule": "all",
    }
    assert (complete.response_status, metadata_of(complete)["audit.outcome"]) == (201, "ok")
    assert complete.occurrence_date == received.occurrence_date


async def test_without_a_rule_that_asks_nothing_changes() -> None:
    """One row, without a new key."""
    policy = Policy([Rule(name="posts", level=Level.HEADERS, methods=("POST",), received=True)])
    middleware, sink = audited(OK_ANSWER, policy=policy)
    await drive(middleware, http_scope())

    assert {STAGE, EXCHANGE}.isdisjoint(metadata_of(only(sink)))


async def test_level_metadata_leaves_the_headers_out_of_both() -> None:
    """The rule that asks decides on the first row, the rule that decides on the second."""
    policy = Policy([Rule(name="brief", level=Level.METADATA, received=True)])
    received, complete = await two_rows(OK_ANSWER, policy=policy)

    assert (received.request_headers, complete.request_headers) == (None, None)


async def test_websocket_has_both_too() -> None:
    """The received row comes before the handshake is answered."""
    app = script(..., {"type": "websocket.accept"}, {"type": "websocket.close", "code": 1000})
    middleware, sink = audited(app, policy=ALL)
    await drive(middleware, websocket_scope(), [{"type": "websocket.connect"}])
    received, complete = pair(sink)

    assert (received.request_url, received.response_status) == ("/ws", None)
    assert (complete.response_status, metadata_of(complete)["websocket.close_code"]) == (101, 1000)


async def test_callables_are_asked_when_it_begins_and_at_its_end() -> None:
    """What they know early is in the first row; what a handler says later is in the second."""
    answers = iter(["early", "late"])

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(instance_id="acme", resource_owner="org")
        await send(START)
        await send(END)

    received, complete = await two_rows(app, user_id=lambda _: next(answers))

    assert (received.user_id, complete.user_id) == ("early", "late")
    assert (received.instance_id, complete.instance_id) == (None, "acme")
    assert (received.resource_owner, complete.resource_owner) == (None, "org")


async def test_what_refers_to_the_request_refers_to_its_received_row() -> None:
    """From the handler, and from a task that outlives it; the client is told the same id."""
    ids: list[str] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        holder = current.get()
        assert holder is not None
        ids.append(holder.row_id())
        await send(START)
        await send(END)
        asyncio.get_running_loop().call_soon(lambda: ids.append(holder.row_id()))

    middleware, sink = audited(app, MemorySink(Settings(echo_request_id=True)), policy=ALL)
    run = await drive(middleware, http_scope())
    await asyncio.sleep(0)
    received, _ = pair(sink)

    assert ids == [received.log_id] * 2
    assert dict(run.sent[0]["headers"])[b"x-request-id"] == ids[0].encode()


async def test_id_that_was_asked_for_first_is_the_one_that_is_echoed() -> None:
    """Also for a request with one row: an event has named it already."""
    ids: list[str] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        ids.append(current.get().row_id())  # type: ignore[union-attr]  # within a request
        await send(START)
        await send(END)

    middleware, sink = audited(app, MemorySink(Settings(echo_request_id=True)))
    run = await drive(middleware, http_scope())

    assert dict(run.sent[0]["headers"])[b"x-request-id"] == ids[0].encode()
    assert only(sink).log_id == ids[0]


LEFT_OUT = {"audit.left_out": True}
NOT_OK = Rule(name="fine", level=Level.NONE, outcomes=("ok",))
SELDOM = Rule(name="seldom", level=Level.BODY, statuses=("2xx",), sample=0)


@pytest.mark.parametrize("first", [None, NOT_OK, SELDOM], ids=["skip", "level none", "sampled out"])
async def test_what_is_left_out_has_an_end_all_the_same(first: Rule | None) -> None:
    """Else it would look like a crash. It says that it ended and how, and names nobody."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(user_id="7", instance_id="acme", message="private", note="private")
        if first is None:
            skip()
        await send(START)
        await send(END)

    rules = [*([first] if first else []), *ALL.rules]
    _, complete = await two_rows(app, policy=Policy(rules))
    row = encoded(complete)
    told = {STAGE, EXCHANGE, "audit.outcome", "audit.status_source"}

    assert {key: row["metadata"].pop(key) for key in LEFT_OUT} == LEFT_OUT
    assert row["metadata"].keys() == told
    assert (row["response_status"], row["request_method"], row["log_level"]) == (200, "GET", 1)
    assert (row["user_id"], row["request_url"], row["message"]) == (None, None, None)
    assert row["instance_id"] == "acme", "the tenant's readers find it"


async def test_left_out_without_a_received_row_leaves_no_row() -> None:
    """As ever."""
    policy = Policy([Rule(name="get", level=Level.HEADERS, methods=("GET",), received=True)])

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        skip()
        await send(START)
        await send(END)

    middleware, sink = audited(app, policy=policy)
    await drive(middleware, http_scope(method="POST"))

    assert sink.records == []


HOSTILE = {STAGE: "received", EXCHANGE: "019b8b00-4711-7000-8000-000000000000"}


@pytest.mark.parametrize("policy", [Policy(), ALL], ids=["one row", "two rows"])
async def test_handler_cannot_say_which_exchange_a_row_belongs_to(policy: Policy) -> None:
    """It may pass on what a client sent, such as the id of another's exchange."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(note="kept", **HOSTILE)
        await send(START)
        await send(END)

    middleware, sink = audited(app, policy=policy)
    await drive(middleware, http_scope())
    last = sink.records[-1]
    assert isinstance(last, LogRecord)
    metadata = metadata_of(last)

    assert metadata["note"] == "kept"
    if policy is ALL:
        pair(sink)
    else:
        assert HOSTILE.keys().isdisjoint(metadata)


async def test_the_tie_survives_a_row_that_is_cut() -> None:
    """It stands first, and what is too large is cut from the end."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(**{f"note_{number}": "x" * 900 for number in range(100)})
        await send(START)
        await send(END)

    _, complete = await two_rows(app)
    row = encoded(complete, Settings(max_row_bytes=16_384))

    assert row["metadata"][STAGE] == "complete"
    assert row["metadata"]["audit.repaired"]


class Raising:
    """Stands for a part of the capture that has a defect."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError("hunter2")


@pytest.mark.parametrize("broken", ["redactor", "proxies"])
async def test_error_while_announcing_leaves_a_bare_row(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is unharmed, and both rows are there, tied, with what is certain."""
    middleware, sink = audited(OK_ANSWER, policy=ALL)
    replace(middleware, broken, Raising())
    run = await drive(middleware, http_scope())
    received, complete = pair(sink)

    assert (run.sent, run.error) == ([START, END], None)
    for record in (received, complete):
        assert metadata_of(record)["audit.capture_error"] == "ZeroDivisionError"
    assert (received.response_time_ms, received.response_status) == (None, None)
    assert complete.response_status == 200
    assert "hunter2" not in caplog.text


async def test_error_before_an_announcement_leaves_one_row() -> None:
    """What was not announced owes nothing."""
    middleware, sink = audited(OK_ANSWER, policy=ALL)
    policy = Raising()
    vars(policy)["wants_body"] = lambda *_: None
    replace(middleware, "policy", policy)
    run = await drive(middleware, http_scope())

    assert (run.sent, run.error) == ([START, END], None)
    assert STAGE not in metadata_of(only(sink))


async def test_sink_that_raises_harms_no_request() -> None:
    """Neither at the beginning nor at the end."""

    class Broken(MemorySink):
        def submit(self, record: Any, ticket: Any = None) -> Any:
            raise ZeroDivisionError

    middleware, sink = audited(OK_ANSWER, Broken(), policy=ALL)
    run = await drive(middleware, http_scope())

    assert (run.sent, run.error) == ([START, END], None)
    assert {ZeroDivisionError} == {type(error) for error in sink.errors}


@pytest.mark.parametrize(
    ("told", "expected"), [(None, (True, False)), (True, (True, True)), (False, (False, False))]
)
async def test_received_row_makes_room_before_its_complete_row(
    told: bool | None, expected: tuple[bool, bool]
) -> None:
    """A complete row alone is no false alarm, a received row alone is; a rule may say otherwise."""
    policy = Policy([Rule(name="all", level=Level.METADATA, received=True, low_priority=told)])
    received, complete = await two_rows(OK_ANSWER, policy=policy)

    assert (received.low_priority, complete.low_priority) == expected


async def test_cancelled_request_has_its_end() -> None:
    """A server that stops cancels what is open, and that is no crash."""
    waiting = asyncio.Event()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"x", more_body=True))
        waiting.set()
        await asyncio.Event().wait()

    middleware, sink = audited(app, policy=ALL)
    task = asyncio.create_task(drive(middleware, http_scope()))
    await waiting.wait()
    assert len(sink.records) == 1
    task.cancel()
    await task
    _, complete = pair(sink)

    assert metadata_of(complete)["audit.outcome"] == "cancelled"


def replace(middleware: Any, name: str, part: Any) -> None:
    """Put another part into the capture of a middleware."""
    capture = middleware._capture
    parts = {slot: getattr(capture, slot) for slot in capture.__slots__}
    middleware._capture = type(capture)(**{**parts, name: part})
