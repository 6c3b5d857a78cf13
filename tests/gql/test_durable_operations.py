"""Rows of operations that are durable before the answer, and those of WebSockets, which are not."""

from collections.abc import Iterator
from typing import Any

import pytest
from ariadne_app import graphql_app as ariadne_app
from in_process import post
from serving import Service, Trail, serving
from strawberry_app import graphql_app as strawberry_app
from talking import MODERN, talking

from asgi_driver import metadata_of
from auditlog import AuditMiddleware, LogRecord, Settings, annotate
from auditlog.ticket import Ticket
from durable_trail import DURABLE, OrderedSink, stage_of

BATCH = [{"query": '{ who(name: "ada") }'}, {"query": "{ hello }"}, {"query": "{ hello }"}]
APPS = pytest.mark.parametrize("app", [strawberry_app, ariadne_app], ids=["strawberry", "ariadne"])


def ids_of(sink: OrderedSink) -> list[Any]:
    """What the rows say of whose they are."""
    metadata = [metadata_of(each) for each in sink.records if isinstance(each, LogRecord)]
    return [each.get("audit.exchange_id") or each.get("audit.parent_id") for each in metadata]


async def run(sink: OrderedSink, app: Any, asked: Any) -> Any:
    """Send operations to an application whose server notes what it is given."""

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def note_and_send(message: Any) -> None:
            sink.passed(message)
            await send(message)

        await AuditMiddleware(app, audit=sink)(scope, receive, note_and_send)

    return await post(noting, asked)


@APPS
async def test_every_operation_of_a_batch_is_committed_before_the_answer(app: Any) -> None:
    """Under one ticket, which their request waits for once."""
    sink = OrderedSink(durability="commit")
    await run(sink, app, BATCH)

    assert sink.events == [
        "received", DURABLE, "complete", "row", "row", DURABLE, "start", "body",
    ]  # fmt: skip
    assert len({id(ticket) for ticket in sink.tickets}) == 1
    assert isinstance(sink.tickets[0], Ticket)
    assert ids_of(sink) == [sink.row("received").log_id] * 4


@APPS
async def test_every_operation_of_a_batch_is_spooled_before_the_end(app: Any) -> None:
    """One row each, once."""
    sink = OrderedSink(durability="spool")
    await run(sink, app, BATCH)

    assert [event for event in sink.events if event in {"row", "body"}] == ["row"] * 3 + ["body"]


@APPS
async def test_operations_that_cannot_be_audited_are_refused_together(app: Any) -> None:
    """The late row is the request's."""
    sink = OrderedSink(True, False, durability="commit")
    answer = await run(sink, app, BATCH)
    late = sink.row("late")

    assert answer.sent[0]["status"] == 503
    assert sink.stages() == ["received", "complete", "row", "row", "late"]
    assert (late.protocol, late.response_status) == (1, 503)
    assert metadata_of(late)["audit.exchange_id"] == sink.row("received").log_id


async def test_what_is_said_of_the_request_late_is_said_once() -> None:
    """And not of every operation again."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        await strawberry_app(scope, receive, send)
        annotate(message="late")

    sink = OrderedSink(durability="spool")
    await run(sink, around, BATCH)

    assert sink.stages() == ["row", "row", "row", "late"]
    assert sink.row("late").message == "late"


class Unwilling(Trail):
    """Waits end well for the WebSocket itself, and would not for what runs on it."""

    def __init__(self) -> None:
        super().__init__(Settings(durability="commit"))
        self.tickets: list[Ticket | None] = []
        self.waits = 0

    def submit(self, record: Any, ticket: Ticket | None = None) -> Any:
        self.tickets.append(ticket)
        return super().submit(record, ticket)

    async def durable(self, ticket: Ticket) -> bool:
        self.waits += 1
        return await super().durable(ticket)


@pytest.fixture(params=[strawberry_app, ariadne_app], ids=["strawberry", "ariadne"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(request.param, Unwilling()) as service:
        yield service


def test_operation_on_a_websocket_is_not_waited_for(service: Service) -> None:
    """Its row is submitted when it is over; the socket's received row is what is guaranteed."""
    trail, client = service.trail, service.client()
    assert isinstance(trail, Unwilling)
    with talking(client, MODERN) as talk:
        talk.start("{ hello }")
        assert talk.rest() == "complete"
        received, operation = client.rows(2)
        waits = trail.waits
    client.rows(3)

    assert (stage_of(received), received.protocol) == ("received", 1)
    assert (operation.protocol, stage_of(operation)) == (3, "row")
    assert metadata_of(operation)["audit.parent_id"] == received.log_id
    assert [ticket is None for ticket in trail.tickets[:2]] == [False, True]
    assert waits == 1
