"""What comes after the row: a row of its own, that names the request's and repeats little of it."""

import asyncio
from typing import Any

import pytest

from asgi_driver import END, START, body, http_scope, metadata_of, script, websocket_scope
from auditlog import Level, LogRecord, Policy, Rule, annotate, skip
from auditlog.capture.graphql import running
from durable_trail import OrderedSink
from tuples import encoded

STAGE, EXCHANGE = "audit.stage", "audit.exchange_id"
SECRET = {"password": "hunter2"}


async def late_of(app: Any, **options: Any) -> tuple[OrderedSink, LogRecord]:
    """The sink and the late row of a request whose answer was whole before."""
    sink = OrderedSink(durability="spool")
    await sink.run(app, http_scope(query_string=b"token=hunter2"), **options)
    assert sink.stages() == ["row", "late"]
    return sink, sink.row("late")


async def test_what_a_background_task_says_has_a_row_of_its_own() -> None:
    """Only what is news; who and where are told in either."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(user_id="7", instance_id="acme", aggregate=("order", 1), message="m", early=[1])
        await send(START)
        await send(END)
        annotate(event_type="mail.sent", event_sequence=3, late=SECRET, early=[1])

    sink, late = await late_of(app)
    first, row = encoded(sink.row("row")), encoded(late)

    assert row["metadata"] == {
        STAGE: "late",
        EXCHANGE: first["log_id"],
        "audit.outcome": "ok",
        "audit.status_source": "none",
        "client.address": "192.0.2.7",
        "network.peer.address": "192.0.2.7",
        "late": {"password": "[REDACTED]"},
    }
    assert (row["user_id"], row["instance_id"], row["request_method"]) == ("7", "acme", "GET")
    assert row["request_url"] == "/orders/42?token=[REDACTED]"
    assert (row["event_type"], row["event_sequence"]) == ("mail.sent", 3)
    assert (row["message"], row["aggregate_type"], row["aggregate_id"]) == (None, None, None)
    assert (row["response_status"], row["response_time_ms"]) == (None, None)
    assert (row["request_headers"], row["log_level"], late.low_priority) == (None, 1, True)
    assert row["log_id"] > first["log_id"]
    assert row["occurrence_date"] == first["occurrence_date"]
    assert {"late", STAGE} & first["metadata"].keys() == set()


async def test_half_of_an_aggregate_is_not_told() -> None:
    """The same type, another identifier: both are in the row; and a new tenant, user and level."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(aggregate=("order", 1), instance_id="a")
        await send(START)
        await send(END)
        annotate(aggregate=("order", 2), instance_id="b", user_id="8", resource_owner="o", level=2)
        annotate(message="token=hunter2")

    _, late = await late_of(app)

    assert (late.aggregate_type, late.aggregate_id) == ("order", "2")
    assert (late.instance_id, late.user_id, late.resource_owner) == ("b", "8", "o")
    assert (late.log_level, late.message) == (2, "token=[REDACTED]")


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [(RuntimeError("hunter2"), "server_error", 3), (asyncio.CancelledError(), "cancelled", 2)],
    ids=["raises", "is cancelled"],
)
async def test_error_that_comes_late_is_told(
    error: BaseException, outcome: str, level: int
) -> None:
    """The client was served; the row says ok, and this one what came after."""
    sink, late = await late_of(script(START, END, error))
    first, metadata = metadata_of(sink.row("row")), metadata_of(late)

    assert (first["audit.outcome"], "error.type" in first) == ("ok", False)
    assert metadata["audit.outcome"] == outcome
    assert metadata["error.type"] == type(error).__name__
    assert (late.log_level, late.low_priority) == (level, False)
    assert "hunter2" not in str(metadata)


async def test_nothing_new_is_no_row() -> None:
    """What is said once more, and values that compare themselves in ways of their own."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = None  # type: ignore[assignment]  # not needed

    odd = Odd()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(user_id="7", note=["a"], odd=odd)
        await send(START)
        await send(END)
        annotate(user_id="7", note=["a"], odd=odd)

    sink = OrderedSink(durability="spool")
    await sink.run(app, http_scope())

    assert sink.stages() == ["row"]


@pytest.mark.parametrize("late", [True, False])
async def test_skip_leaves_the_late_row_out_and_unsays_nothing(late: bool) -> None:
    """Said before the row is made, it leaves both out."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if not late:
            skip()
        await send(START)
        await send(END)
        annotate(note="late")
        skip()

    sink = OrderedSink(durability="spool")
    await sink.run(app, http_scope())

    assert sink.stages() == (["row"] if late else [])


async def test_policy_is_asked_again() -> None:
    """A health check that is answered has no row; that it failed thereafter has one."""
    scope = http_scope(path="/healthz", raw_path=b"/healthz")
    sink = OrderedSink(durability="spool")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        annotate(note="late")

    await sink.run(app, scope)
    assert sink.stages() == []
    await sink.run(script(START, END, RuntimeError()), scope)
    assert sink.stages() == ["late"]


async def test_late_row_refers_to_the_received_row_where_there_is_one() -> None:
    """The exchange's id is one for all three, whatever the handler says it is."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(END)
        annotate(**{STAGE: "complete", EXCHANGE: "x", "audit.refused": True, "note": 1})

    sink = OrderedSink(durability="spool")
    policy = Policy([Rule(name="all", level=Level.HEADERS, received=True)])
    await sink.run(app, http_scope(), policy=policy)
    metadata = metadata_of(sink.row("late"))

    assert sink.stages() == ["received", "complete", "late"]
    assert metadata[EXCHANGE] == sink.row("received").log_id
    assert (metadata["audit.rule"], metadata["note"]) == ("all", 1)
    assert "audit.refused" not in metadata


async def test_handler_cannot_say_that_it_was_refused() -> None:
    """It may pass on what a client sent."""
    sink = OrderedSink(durability="spool")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        annotate(**{"audit.refused": True})
        await send(START)
        await send(END)

    await sink.run(app, http_scope())

    assert "audit.refused" not in metadata_of(sink.row("row"))


async def test_error_of_the_capture_is_counted_and_harms_nothing() -> None:
    """A late row that cannot be made is a lost one."""
    sink = OrderedSink(durability="spool")

    class Broken(Policy):
        asked = 0

        def decide(self, *facts: Any) -> Any:
            self.asked += 1
            if self.asked > 1:
                raise ZeroDivisionError
            return super().decide(*facts)

    error = RuntimeError()
    with pytest.raises(AssertionError):  # errors are not empty
        await sink.run(script(START, END, error), http_scope(), policy=Broken())

    assert [type(error) for error in sink.errors] == [ZeroDivisionError]
    assert sink.stages() == ["row"]


async def test_operations_of_a_request_are_not_submitted_twice() -> None:
    """They have their rows before the answer; what comes late is said of the request."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for query in ("{ a }", "{ b }"):
            operation = running.begin(query, None, None, None)
            assert operation is not None
            running.end(operation, None)
        await send(START)
        await send(body(b"{}"))
        annotate(note="late")

    sink = OrderedSink(durability="spool")
    await sink.run(app, http_scope(method="POST"))
    first = sink.records[0]
    assert isinstance(first, LogRecord)

    assert sink.events == ["start", "row", "row", "body", "late"]
    assert [record.protocol for record in sink.records] == [3, 3, 1]  # type: ignore[union-attr]
    assert metadata_of(sink.row("late"))[EXCHANGE] == first.log_id


async def test_operation_that_cannot_be_read_ends_what_was_received() -> None:
    """A received row without an end looks like a crash."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        operation = running.begin("{ a }", None, None, None)
        assert operation is not None
        operation.look = lambda: 1 / 0  # type: ignore[assignment,return-value]  # broken
        running.leave(operation)
        await send(START)
        await send(body(b"{}"))

    sink = OrderedSink(durability="commit")
    await sink.run(app, http_scope(method="POST"))
    complete = metadata_of(sink.row("complete"))

    assert sink.stages() == ["received", "complete"]
    assert complete[EXCHANGE] == sink.row("received").log_id
    assert complete["audit.capture_error"] == "ZeroDivisionError"


async def test_operation_after_the_close_of_its_websocket_has_its_row() -> None:
    """Begun by a task of the connection when that has its own already."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        operation = running.begin("{ a }", None, None, None)
        assert operation is not None
        running.end(operation, None)

    sink = OrderedSink(durability="spool")
    await sink.run(app, websocket_scope())

    assert [record.protocol for record in sink.records] == [1, 3]  # type: ignore[union-attr]
