"""What hostile clients, hostile errors and careless applications do; each was once a wrong row."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import quote

import ariadne_app
import pytest
import strawberry
from ariadne.asgi import GraphQL as AriadneGraphQL
from graphql import GraphQLError, parse
from in_process import post
from serving import Client, Service, serving
from strawberry.asgi import GraphQL as StrawberryGraphQL
from strawberry_app import make_schema
from talking import MODERN, talking
from test_subscriptions import _converse

from asgi_driver import audited, drive, http_scope, metadata_of, only
from auditlog import Level, LogRecord, Policy, Protocol, Rule
from auditlog.capture.context import current
from auditlog.capture.graphql import document
from auditlog.capture.graphql.ariadne import AuditHTTPHandler, AuditTransportWSHandler
from auditlog.capture.graphql.carried import SocketOperations
from auditlog.capture.graphql.document import MAX_TOKENS, OperationFacts, read
from auditlog.capture.graphql.strawberry import AuditExtension
from auditlog.capture.web import http

FOREVER = "subscription { forever }"
LONG = "A" * 300


@pytest.fixture(scope="module", params=["strawberry", "ariadne"])
def graphql(request: pytest.FixtureRequest) -> Iterator[Service]:
    apps = {
        "strawberry": StrawberryGraphQL(make_schema(AuditExtension)),
        "ariadne": ariadne_app.graphql_app,
    }
    with serving(apps[request.param]) as service:
        service.name = request.param
        yield service


@pytest.fixture
def client(graphql: Service) -> Client:
    return graphql.client()


def operations_of(records: list[LogRecord]) -> list[dict[str, Any]]:
    return [metadata_of(record) for record in records if record.protocol == 3]


@pytest.mark.parametrize(
    "text",
    ['"d" subscription S { a }', '""" d { """ subscription S { a }', "} } subscription S {a}"],
)
def test_nothing_before_an_operation_hides_it(text: str) -> None:
    """A description (specification of September 2025), and braces that close nothing."""
    assert read(text).operations == (OperationFacts("subscription", "S", False),)


@pytest.mark.parametrize("unit", ["}", "{a}", "a ", '""', "é"])
def test_five_megabytes_are_not_read_to_the_end(unit: str) -> None:
    """A parser refuses them at the first token, or the last that a limit allows."""
    text = unit * (5_000_000 // len(unit))
    began = time.thread_time()
    found = document._read(text)
    assert time.thread_time() - began < 1
    assert len(found.operations) <= MAX_TOKENS


def test_documents_of_many_operations_are_not_remembered() -> None:
    """They take thirty times the room of their text."""
    text = "{a}" * 5_000
    read(text)
    assert text not in document._remembered


@pytest.mark.parametrize(
    "query", [f"subscription {LONG} {{ count(to: 2) }}", '"d" subscription S { count(to: 2) }']
)
def test_no_name_and_no_description_hides_a_subscription(client: Client, query: str) -> None:
    """It has its row, of the type that it is."""
    name = LONG if LONG in query else "S"
    with talking(client, MODERN) as talk:
        payload = {"query": query, "operationName": name}
        talk._send(id="1", type="subscribe", payload=payload)
        talk.rest()
    (operation,) = operations_of(client.rows(2))
    assert operation["graphql.operation.type"] == "subscription"
    assert operation["graphql.operation.name"] == name[:255]
    assert operation["graphql.subscription.results"] == 2


async def test_persisted_subscription_has_a_row() -> None:
    """Its identifier is no document; Ariadne's parser alone knows what it stands for."""
    app = AriadneGraphQL(
        ariadne_app.schema,
        http_handler=AuditHTTPHandler(),
        websocket_handler=AuditTransportWSHandler(),
        query_parser=lambda *_: parse("subscription { count(to: 2) }"),
    )
    middleware, sink = audited(app)
    await _converse(middleware, [{"type": "subscribe", "id": "1", "payload": {"query": "p:1"}}])
    assert [record.protocol for record in sink.records] == [3, 1]  # type: ignore[union-attr]


def test_refused_subscription_is_not_ok(client: Client) -> None:
    """Without a handshake, the server closes: where there is a row, it says no other."""
    with client.socket(MODERN) as connection:
        connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": FOREVER}}))
        with pytest.raises(Exception, match="4401"):
            connection.recv(5)
    for operation in operations_of(client.rows(1)):
        assert operation["audit.outcome"] == "unknown"
        assert operation["graphql.subscription.end"] == "connection_closed"


def test_close_by_the_server_is_no_unsubscription(client: Client) -> None:
    """A second handshake breaks the protocol, and takes with it what runs."""
    with talking(client, MODERN) as talk:
        talk.start(FOREVER)
        talk.next()
        talk._send(type="connection_init")
        assert talk.rest() == "closed"
    (operation,) = operations_of(client.rows(2))
    assert operation["audit.outcome"] == "unknown"
    assert operation["graphql.subscription.end"] == "connection_closed"


def test_subscriptions_that_are_stopped_at_once_have_their_rows() -> None:
    """Ariadne cancels tasks that have not begun; nothing is held until the connection ends."""
    with serving(ariadne_app.graphql_app) as service:
        client = service.client()
        with talking(client, MODERN) as talk:
            for number in range(20):
                talk.start(FOREVER, id=str(number))
                talk.stop(str(number))
            ended = operations_of(client.rows(20))
    assert [each["audit.outcome"] for each in ended] == ["ok"] * 20


class _UnreadableCode(str):
    __slots__ = ()

    def upper(self) -> str:
        raise RuntimeError("no")


async def test_error_that_cannot_be_read_is_still_an_error() -> None:
    """And so are those behind it."""

    @strawberry.type
    class Query:
        @strawberry.field
        def odd(self) -> str | None:
            raise GraphQLError("no", extensions={"code": _UnreadableCode("FORBIDDEN")})

        @strawberry.field
        def denied(self) -> str | None:
            raise PermissionError

    middleware, sink = audited(
        StrawberryGraphQL(strawberry.Schema(Query, extensions=[AuditExtension]))
    )
    await post(middleware, "{ odd denied }")
    metadata = metadata_of(only(sink))
    assert metadata["audit.outcome"] == "server_error"
    assert [error["type"] for error in metadata["graphql.errors"]] == [
        "GraphQLError",
        "PermissionError",
    ]


@pytest.mark.parametrize(
    "query",
    [
        'mutation { login(user: "a", innocent: """hunter2""") }',
        'query ($password: String! = "hunter2") { hello }',
        'mutation { login(user: "a", password: #\n , "hunter2") }',
    ],
)
@pytest.mark.parametrize("parameter", ["query", "%71uery"])
async def test_document_in_a_url_is_not_stored(query: str, parameter: str) -> None:
    """As the body of a POST is not: it holds values under any name, or under none."""
    variables = quote('{"innocent": "hunter2"}')
    text = f"{parameter}={quote(query)}&variables={variables}&page=2".encode()
    scope = http_scope(path="/graphql", raw_path=b"/graphql", query_string=text)
    middleware, sink = audited(StrawberryGraphQL(make_schema(AuditExtension)))
    await drive(middleware, scope, [{"type": "http.request", "body": b""}])
    record = only(sink)
    assert record.protocol == 3
    assert record.request_url == f"/graphql?{parameter}=[REDACTED]&variables=[REDACTED]&page=2"


async def test_identifier_of_a_document_passes_the_redactor() -> None:
    """A client may send anything as one."""
    middleware, sink = audited(StrawberryGraphQL(make_schema(AuditExtension)))
    await post(middleware, "{ hello }", extensions={"documentId": "password=hunter2"})
    assert metadata_of(only(sink))["graphql.document.id"] == "password=[REDACTED]"


async def test_bodies_of_a_batch_are_not_read_for_each_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are stored for none; to redact them takes milliseconds."""
    asked = []
    monkeypatch.setattr(http, "describe", lambda *_: asked.append(1))
    rule = Rule(name="bodies", level=Level.BODY, protocols=(Protocol.GRAPHQL,))
    app = StrawberryGraphQL(make_schema(AuditExtension))
    middleware, sink = audited(app, policy=Policy([rule]))
    await post(middleware, [{"query": "{ hello }"}] * 5)
    assert (len(sink.records), asked) == (5, [])


@pytest.mark.parametrize("extensions", [[AuditExtension], [AuditExtension, AuditExtension]])
async def test_results_are_counted_once(extensions: list[Any]) -> None:
    """Not those of another subscription that a resolver takes, nor twice if listed twice."""

    @strawberry.type
    class Query:
        x: int = 0

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def inner(self) -> AsyncGenerator[int, None]:
            yield 1
            raise PermissionError

        @strawberry.subscription
        async def outer(self) -> AsyncGenerator[int, None]:
            results: Any = await schema.subscribe("subscription { inner }")
            async for _ in results:
                yield 0

    schema = strawberry.Schema(Query, subscription=Subscription, extensions=extensions)
    middleware, sink = audited(StrawberryGraphQL(schema))
    ask = {"type": "subscribe", "id": "1", "payload": {"query": "subscription { outer }"}}
    await _converse(middleware, [ask])
    (operation,) = operations_of(sink.records)  # type: ignore[arg-type]
    assert operation["graphql.subscription.results"] == 2
    assert operation["audit.outcome"] == "ok"


def answering(then: Callable[[], Awaitable[Any]]) -> Any:
    """An application that answers a request, or closes a WebSocket, and goes on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1000})
        await then()

    return app


async def test_what_runs_after_the_answer_is_no_operation_of_the_request() -> None:
    """A background task that executes a schema makes no batch of it, and is not held."""
    schema = make_schema(AuditExtension)
    middleware, sink = audited(answering(lambda: schema.execute("{ hello }")))
    await post(middleware, "")
    assert only(sink).protocol == 1


async def test_task_that_outlives_its_connection_is_not_held() -> None:
    """Each operation has its row when it is over, as ever."""
    schema = make_schema(AuditExtension)
    tasks: list[asyncio.Task[Any]] = []
    over = asyncio.Event()
    kept: list[Any] = []

    async def poll() -> None:
        kept.append(current.get())
        await over.wait()
        for _ in range(3):
            await schema.execute("{ hello }")

    async def spawn() -> None:
        tasks.append(asyncio.create_task(poll()))
        await asyncio.sleep(0)
        await schema.execute("{ hello }")

    middleware, sink = audited(answering(spawn))
    scope = {**http_scope(type="websocket", method=...), "subprotocols": []}
    await drive(middleware, scope, [{"type": "websocket.connect"}])
    assert len(sink.records) == 2
    over.set()
    await tasks[0]
    assert [record.protocol for record in sink.records[2:]] == [3, 3, 3]  # type: ignore[union-attr]
    assert isinstance(kept[0].operations, SocketOperations)
    assert not kept[0].operations._running
