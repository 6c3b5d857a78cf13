"""`when_over`: what follows a request is done once, when nothing more becomes of it."""

import asyncio
from typing import Any

import pytest

from asgi_driver import END, START, drive, http_scope, script, websocket_scope
from auditlog import AuditMiddleware, Level, Policy, Rule
from auditlog.capture.context import current
from auditlog.capture.in_flight import InFlight
from durable_trail import OrderedSink

DURABILITIES = pytest.mark.parametrize("durability", ["memory", "spool", "commit"])
TOLD = "told"


def request_at_hand() -> InFlight:
    """As the audit middleware sees it."""
    holder = current.get()
    assert isinstance(holder, InFlight)
    return holder


def followed(app: Any, sink: OrderedSink, seen: list[Any]) -> Any:
    """An application whose requests are followed by a note of what became of them."""

    async def following(scope: Any, receive: Any, send: Any) -> None:
        def note(request: InFlight) -> None:
            sink.events.append(TOLD)
            seen.append((request.outcome, request.status, request.refused))

        request_at_hand().when_over(note)
        await app(scope, receive, send)

    return following


@DURABILITIES
async def test_request_is_over_when_all_is_done(durability: str) -> None:
    """After its row, its answer, and what it does in the background."""
    sink, seen = OrderedSink(durability=durability), list[Any]()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        sink.events.append("background")

    run = await sink.run(followed(app, sink, seen), http_scope())

    assert (run.sent, seen) == ([START, END], [("ok", 200, False)])
    assert sink.events.index("background") < sink.events.index(TOLD)
    assert sink.events[-1] == TOLD


@DURABILITIES
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([RuntimeError()], ("server_error", 500, False)),
        ([START], ("incomplete", 200, False)),
        ([asyncio.CancelledError()], ("cancelled", None, False)),
    ],
    ids=["raises", "stops", "cancelled"],
)
async def test_whatever_becomes_of_it(
    durability: str, steps: list[Any], expected: tuple[Any, ...]
) -> None:
    """Once, with what the row says."""
    sink, seen = OrderedSink(durability=durability), list[Any]()
    await sink.run(followed(script(*steps), sink, seen), http_scope())

    assert seen == [expected]


@DURABILITIES
async def test_websocket_is_over_when_it_is_closed(durability: str) -> None:
    """Its status is the handshake's."""
    sink, seen = OrderedSink(durability=durability), list[Any]()
    steps = ..., {"type": "websocket.accept"}, {"type": "websocket.close"}
    connect = [{"type": "websocket.connect"}]
    await sink.run(followed(script(*steps), sink, seen), websocket_scope(), connect)

    assert seen == [("ok", 101, False)]


async def test_answer_that_is_withheld_is_known_as_such() -> None:
    """The request is over once it is clear that its row is not committed."""
    sink, seen = OrderedSink(True, False, durability="commit"), list[Any]()
    run = await sink.run(followed(script(START, END), sink, seen), http_scope())

    assert run.sent[0]["status"] == 503
    assert [refused for _, _, refused in seen] == [True]


async def test_what_comes_too_late_is_done_at_once() -> None:
    """A task may outlive its request."""
    requests: list[InFlight] = []
    seen: list[Any] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        requests.append(request_at_hand())
        await send(START)
        await send(END)

    await drive(AuditMiddleware(app, audit=OrderedSink()), http_scope())
    requests[0].when_over(seen.append)

    assert seen == requests


async def test_error_is_reported_and_keeps_no_other_from_being_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the order in which they were registered; one may register another."""
    sink, seen = OrderedSink(), list[Any]()

    def broken(_: InFlight) -> None:
        raise ZeroDivisionError("s3cret")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        request = request_at_hand()
        request.when_over(lambda _: seen.append("first"))
        request.when_over(broken)
        request.when_over(lambda over: over.when_over(lambda _: seen.append("registered late")))
        request.when_over(lambda _: seen.append("last"))
        await send(START)
        await send(END)

    run = await sink.run(app, http_scope())

    assert (run.error, sink.stages()) == (None, ["row"])
    assert seen == ["first", "registered late", "last"]
    assert caplog.messages == [
        "auditlog.callback_failed: what was to follow a request raised ZeroDivisionError"
    ]


async def test_request_without_a_row_is_over_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the policy leaves it out or nothing can be told of it."""
    for broken in (False, True):
        sink, seen = OrderedSink(), list[Any]()
        policy = Policy((Rule(name="none", paths=("/**",), level=Level.NONE),))
        if broken:
            monkeypatch.setattr(Policy, "decide", None)
        await sink.run(followed(script(START, END), sink, seen), http_scope(), policy=policy)

        assert seen == [("ok", 200, False)]
