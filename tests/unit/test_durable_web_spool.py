"""`durability="spool"`: the row is made before the client can have its whole answer."""

import asyncio
from typing import Any

import pytest

from asgi_driver import END, START, body, http_scope, metadata_of, script, start, websocket_scope
from auditlog import Level, Policy, Rule
from auditlog.ticket import Ticket
from durable_trail import DURABLE, ROOM, OrderedSink

TRAILERS = {"http.response.trailers": {}}
EMPTY = (b"content-length", b"0")
THREE = (b"Content-Length", b"3")
PATH = {"type": "http.response.pathsend", "path": "/etc/hostname"}
COPY = {"type": "http.response.zerocopysend", "file": 3, "count": 5}
TRAILER = {"type": "http.response.trailers", "headers": []}
HINT = {"type": "http.response.early_hint", "links": []}
ACCEPT, CLOSE = {"type": "websocket.accept"}, {"type": "websocket.close", "code": 1000}
DENIAL = {"type": "websocket.http.response.start", "status": 429, "headers": []}
DENIED = {"type": "websocket.http.response.body", "body": b"no"}


class Lazy:
    """As a generator of headers, but for every test."""

    def __iter__(self) -> Any:
        return iter([EMPTY])


# The scope, what is sent, and how many messages go before the row.
LAST: dict[str, tuple[dict[str, Any], list[Any], int]] = {
    "plain": (http_scope(), [START, END], 1),
    "hint first": (http_scope(), [HINT, START, END], 2),
    "streamed": (http_scope(), [START, body(b"a", more_body=True), END], 2),
    "first chunk empty": (http_scope(), [START, body(b"", more_body=True), END], 2),
    "chunk that fills it": (
        http_scope(),
        [start(headers=[THREE]), body(b"ab", more_body=True), body(b"c", more_body=True), END],
        2,
    ),
    "length in a tuple": (http_scope(), [start(headers=(EMPTY,)), END], 0),
    "length that nobody reads": (
        http_scope(),
        [start(headers=[(b"content-length", b"x")]), END],
        1,
    ),
    "headers that a look may use up": (http_scope(), [start(headers=Lazy()), END], 1),
    "without a body": (http_scope(), [start(headers=[EMPTY]), END], 0),
    "no content": (http_scope(), [start(204), END], 0),
    "not modified": (http_scope(), [start(304, headers=[THREE]), END], 0),
    "head": (http_scope(method="HEAD"), [start(headers=[THREE]), body(b"abc")], 0),
    "trailers": (http_scope(extensions=TRAILERS), [start(trailers=True), END, TRAILER], 2),
    "trailers nobody knows": (http_scope(), [start(trailers=True), END, TRAILER], 1),
    "more trailers": (
        http_scope(extensions=TRAILERS),
        [start(trailers=True), END, {**TRAILER, "more_trailers": True}, TRAILER],
        3,
    ),
    "trailers after its length": (
        http_scope(extensions=TRAILERS),
        [start(trailers=True, headers=[THREE]), body(b"abc", more_body=True), END, TRAILER],
        1,
    ),
    "head with trailers": (
        http_scope(method="HEAD", extensions=TRAILERS),
        [start(trailers=True), END, TRAILER],
        0,
    ),
    "file that fills it": (
        http_scope(),
        [start(headers=[THREE]), *[{**COPY, "count": 1, "more_body": True}] * 3, END],
        3,
    ),
    "file of any size": (
        http_scope(),
        [
            start(headers=[THREE]),
            {"type": COPY["type"], "file": 3, "more_body": True},
            END,
        ],
        1,
    ),
    "file by its path": (http_scope(), [START, PATH], 1),
    "file by its number": (http_scope(), [START, {**COPY, "more_body": True}, COPY], 2),
    "websocket": (websocket_scope(), [ACCEPT, CLOSE], 1),
    "websocket refused": (websocket_scope(), [CLOSE], 0),
    "websocket denied": (websocket_scope(), [DENIAL, DENIED], 1),
}


def spool(**settings: Any) -> OrderedSink:
    return OrderedSink(durability="spool", **settings)


@pytest.mark.parametrize(("scope", "messages", "before"), LAST.values(), ids=LAST)
async def test_row_is_made_before_the_last_message_is_passed(
    scope: dict[str, Any], messages: list[Any], before: int
) -> None:
    """With it the client can have its whole answer; the messages are the application's own."""
    sink = spool()
    run = await sink.run(script(*messages), scope)

    assert sink.events.index("row") == before
    assert [id(message) for message in run.sent] == [id(message) for message in messages]
    assert (run.error, sink.events.count("row"), len(sink.records)) == (None, 1, 1)


async def test_row_is_the_one_of_a_whole_answer() -> None:
    """Status, sizes and outcome, as if the last message had been sent."""
    sink = spool()
    await sink.run(script(start(201), body(b"ab", more_body=True), body(b"c")), http_scope())
    row = sink.row("row")
    metadata = metadata_of(row)

    assert (row.response_status, row.log_id is not None, row.low_priority) == (201, True, True)
    assert metadata["audit.outcome"] == "ok"
    assert metadata["audit.status_source"] == "wire"
    assert metadata["http.response.body.size"] == 3
    assert "audit.stage" not in metadata


@pytest.mark.parametrize("answer", [True, False])
async def test_fsync_always_is_waited_for_and_never_refuses(answer: bool) -> None:
    """The row is waited for before the last message; the request goes on either way."""
    sink = OrderedSink(answer, durability="spool", spool_fsync="always")
    run = await sink.run(script(START, END), http_scope())

    assert sink.events == ["start", "row", DURABLE, "body"]
    assert run.sent == [START, END]
    assert isinstance(sink.tickets[0], Ticket)


@pytest.mark.parametrize(
    ("steps", "outcome", "events"),
    [
        ([START, body(b"a", more_body=True)], "incomplete", ["start", "body", "row"]),
        ([START, RuntimeError()], "server_error", ["start", "row"]),
        ([RuntimeError()], "server_error", ["row"]),
        ([START, asyncio.CancelledError()], "cancelled", ["start", "row"]),
        ([], "server_error", ["row"]),
    ],
    ids=["no end", "raises", "raises at once", "cancelled", "nothing"],
)
async def test_answer_without_an_end_has_its_row_at_the_end(
    steps: list[Any], outcome: str, events: list[str]
) -> None:
    """As in memory mode."""
    sink = spool()
    run = await sink.run(script(*steps), http_scope())

    assert sink.events == events
    assert metadata_of(sink.row("row"))["audit.outcome"] == outcome
    assert run.error is next((step for step in steps if isinstance(step, BaseException)), None)


@pytest.mark.parametrize("held", [True, False], ids=["head sent", "nothing sent"])
@pytest.mark.parametrize("error", [RuntimeError(), None])
async def test_fsync_always_is_waited_for_where_others_answer(
    error: Exception | None, held: bool
) -> None:
    """An outer layer or the server: its answer is one that is on the disk as well."""
    steps = [*([START] if held else []), *([] if error is None else [error])]
    sink = spool(spool_fsync="always")
    run = await sink.run(script(*steps), http_scope())

    assert sink.events[-2:] == ["row", DURABLE]
    assert sink.stages() == ["row"]
    assert run.error is error


async def test_head_request_stays_one_whatever_the_application_makes_of_it() -> None:
    """Its client has the whole answer with the head."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        scope["method"] = "GET"
        await send(START)
        await send(END)

    sink = spool()
    await sink.run(app, http_scope(method="HEAD"))

    assert sink.events == ["row", "start", "body"]


async def test_received_row_is_made_first_where_a_rule_asks_for_it() -> None:
    """And the complete row before the end."""
    sink = spool()
    policy = Policy([Rule(name="all", level=Level.HEADERS, received=True)])
    await sink.run(script(START, END), http_scope(), policy=policy)

    assert sink.events == ["received", "start", "complete", "body"]


async def test_what_is_left_out_leaves_no_row() -> None:
    """The health check of the default policy."""
    sink = spool()
    await sink.run(script(START, END), http_scope(path="/healthz", raw_path=b"/healthz"))

    assert sink.records == []


async def test_client_that_left_before_the_end_is_told_as_such() -> None:
    """The application heard of it."""
    sink = spool()
    run = await sink.run(script(START, ..., END), http_scope(), [{"type": "http.disconnect"}])

    assert metadata_of(sink.row("row"))["audit.outcome"] == "client_disconnect"
    assert run.sent == [START, END]


async def test_client_that_is_gone_at_the_last_message_makes_no_second_row() -> None:
    """The row says ok, which is documented; what frameworks raise then is no fault of theirs."""

    class ClientDisconnect(Exception):  # noqa: N818  # as Starlette calls it
        pass

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        try:
            await send(END)
        except OSError:
            raise ClientDisconnect from None

    class Gone(OrderedSink):
        def passed(self, message: Any) -> None:
            super().passed(message)
            if message is END:
                raise OSError("gone")

    sink = Gone(durability="spool")
    run = await sink.run(app, http_scope())

    assert isinstance(run.error, ClientDisconnect)
    assert (sink.stages(), run.sent) == (["row"], [START])


@pytest.mark.parametrize("durability", ["memory", "spool", "commit"])
async def test_room_is_waited_for_before_the_application_runs(durability: str) -> None:
    """Under `on_overflow="block"`, whatever the durability; not for a health check."""
    sink = OrderedSink(durability=durability, on_overflow="block")
    await sink.run(script(START, END), http_scope())
    assert sink.events[0] == ROOM

    sink.events.clear()
    await sink.run(script(START, END), http_scope(path="/healthz", raw_path=b"/healthz"))
    assert ROOM not in sink.events


async def test_room_is_not_asked_for_where_rows_are_dropped() -> None:
    """The default."""
    sink = OrderedSink()
    await sink.run(script(START, END), http_scope())

    assert sink.events == ["start", "body", "row"]


async def test_cancelled_wait_for_room_leaves_a_row() -> None:
    """The client gave up, or the server stops."""

    class Full(OrderedSink):
        async def room(self) -> None:
            raise asyncio.CancelledError

    sink = Full(on_overflow="block")
    run = await sink.run(script(START, END), http_scope())

    assert isinstance(run.error, asyncio.CancelledError)
    assert metadata_of(sink.row("row"))["audit.outcome"] == "cancelled"
