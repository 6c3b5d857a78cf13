"""Long subscriptions: counted, not kept; and what becomes of those that nobody ends."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import strawberry
from ariadne import SubscriptionType, make_executable_schema
from ariadne.asgi import GraphQL as AriadneGraphQL
from ariadne.asgi.handlers import GraphQLHTTPHandler
from ariadne_app import schema as ariadne_schema
from strawberry.asgi import GraphQL as StrawberryGraphQL
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL
from strawberry_app import make_schema
from talking import MODERN

from asgi_driver import audited, drive, http_scope, metadata_of, upload, websocket_scope
from auditlog import AuditMiddleware, Level, LogRecord, Policy, Protocol, Rule
from auditlog.capture.context import current
from auditlog.capture.graphql.ariadne import AuditTransportWSHandler
from auditlog.capture.graphql.strawberry import AuditExtension
from auditlog.testing import MemorySink

MANY = 5_000
INIT = {"type": "connection_init"}


def strawberry_numbers() -> Any:
    @strawberry.type
    class Query:
        x: int = 0

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def numbers(self, to: int) -> AsyncGenerator[int, None]:
            for number in range(to):
                yield number

    return StrawberryGraphQL(
        strawberry.Schema(Query, subscription=Subscription, extensions=[AuditExtension])
    )


def ariadne_numbers() -> Any:
    subscription = SubscriptionType()

    @subscription.source("numbers")
    async def numbers(*_: Any, to: int) -> AsyncGenerator[int, None]:
        for number in range(to):
            yield number

    subscription.set_field("numbers", lambda number, *_, **__: number)
    types = "type Query { x: Int } type Subscription { numbers(to: Int!): Int! }"
    schema = make_executable_schema(types, subscription)
    return AriadneGraphQL(schema, websocket_handler=AuditTransportWSHandler())


@pytest.mark.parametrize("make", [strawberry_numbers, ariadne_numbers])
async def test_results_are_counted_and_not_kept(make: Any) -> None:
    """Ten times the results take no more memory."""
    app, peaks = make(), []
    for count in (MANY // 10, MANY // 10, MANY):
        gc.collect()
        tracemalloc.start()
        record = await _whole_stream(app, count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert metadata_of(record)["graphql.subscription.results"] == count
    assert peaks[2] < 2 * peaks[1]


async def test_ended_operations_of_a_long_connection_are_forgotten() -> None:
    """A connection of many operations holds those that run."""
    app, held = strawberry_numbers(), []

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            await send(message)
            holder = current.get()
            connection = getattr(holder, "parent", holder)
            if connection is not None and connection.operations is not None:
                held.append(len(connection.operations._running))

        await app(scope, receive, watch)

    middleware, sink = audited(watching)
    await _converse(middleware, [_subscribe(str(number), 3) for number in range(200)])
    assert len(sink.records) == 201
    assert max(held) <= 1


async def test_received_row_tells_of_a_subscription_that_runs() -> None:
    """A rule asks for it; what is known of the operation is in it."""
    rule = Rule(name="all", level=Level.HEADERS, protocols=(Protocol.GRAPHQL,), received=True)
    sink = MemorySink()
    app = AuditMiddleware(strawberry_numbers(), audit=sink, policy=Policy([rule]))
    await _converse(app, [_subscribe("1", 2)])
    stages = [
        (record.protocol, metadata_of(record)["audit.stage"])
        for record in sink.records
        if isinstance(record, LogRecord)
    ]
    assert stages.count((3, "received")) == stages.count((3, "complete")) == 1
    received = next(each for each in sink.records if each.protocol == 3)  # type: ignore[union-attr]
    assert metadata_of(received)["graphql.operation.type"] == "subscription"  # type: ignore[arg-type]


async def test_subscription_over_http_is_its_requests_row() -> None:
    """Server-sent events of Strawberry: one row, with the count of results."""
    app = StrawberryGraphQL(
        make_schema(AuditExtension), subscription_protocols=[GRAPHQL_SSE_PROTOCOL]
    )
    middleware, sink = audited(app)
    headers = [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
    scope = http_scope(method="POST", path="/graphql", raw_path=b"/graphql", headers=headers)
    await drive(middleware, scope, [upload(b'{"query": "subscription { count(to: 4) }"}')])
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    metadata = metadata_of(record)
    assert (record.protocol, metadata["audit.outcome"]) == (3, "ok")
    assert metadata["graphql.subscription.results"] == 4
    assert "audit.parent_id" not in metadata


async def test_query_over_a_socket_whose_result_no_extension_sees_has_no_row() -> None:
    """Without the extension on the HTTP handler nobody knows whether it failed."""
    app = AriadneGraphQL(
        ariadne_schema,
        http_handler=GraphQLHTTPHandler(),
        websocket_handler=AuditTransportWSHandler(),
        logger="tests.ariadne",
    )
    middleware, sink = audited(app)
    ask = {"type": "subscribe", "id": "1", "payload": {"query": "{ fail }"}}
    await _converse(middleware, [ask])
    assert [record.protocol for record in sink.records] == [1]  # type: ignore[union-attr]


def _subscribe(id: str, to: int) -> Any:  # noqa: A002
    query = f"subscription {{ numbers(to: {to}) }}"
    return {"type": "subscribe", "id": id, "payload": {"query": query}}


async def _whole_stream(app: Any, to: int) -> LogRecord:
    middleware, sink = audited(app)
    await _converse(middleware, [_subscribe("1", to)])
    (record,) = (each for each in sink.records if each.protocol == 3)  # type: ignore[union-attr]
    assert isinstance(record, LogRecord)
    return record


async def _converse(app: Any, operations: list[Any]) -> None:
    """Send one operation after the other, each when the one before is complete; then close."""
    ended: asyncio.Queue[None] = asyncio.Queue()
    events: asyncio.Queue[Any] = asyncio.Queue()

    async def client() -> None:
        for operation in operations:
            events.put_nowait(_text(operation))
            await ended.get()
        events.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def receive() -> Any:
        return await events.get()

    async def send(message: Any) -> None:
        text = message.get("text", "")
        if '"connection_ack"' in text:
            acknowledged.set()
        if '"complete"' in text or '"error"' in text:
            ended.put_nowait(None)

    acknowledged = asyncio.Event()
    events.put_nowait({"type": "websocket.connect"})
    events.put_nowait(_text(INIT))
    scope = _socket_scope()
    serving = asyncio.create_task(app(scope, receive, send))
    await acknowledged.wait()
    await client()
    await serving


def _text(message: Any) -> Any:
    return {"type": "websocket.receive", "text": json.dumps(message)}


def _socket_scope() -> Any:
    return websocket_scope(path="/graphql", raw_path=b"/graphql", subprotocols=[MODERN])
