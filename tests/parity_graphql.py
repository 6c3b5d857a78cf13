"""GraphQL operations that together fill whatever their rows can hold, without a server."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import strawberry
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.schema.config import StrawberryConfig
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL

from asgi_driver import drive, http_scope, upload, websocket_scope
from auditlog import AuditLog, AuditMiddleware, annotate
from auditlog.capture.graphql.strawberry import AuditExtension
from parity_table import EVERYTHING, LONG_PATH, SAID, Broken, everything
from parity_web import paths

QUERY = "query Q($name: String!) { hello(name: $name) }"
COUNT = "subscription { count }"
STREAMED = (b"accept", b"text/event-stream")


def routes(*, annotated: bool) -> Starlette:
    app: Any = GraphQL(
        make_schema(SAID if annotated else {}),
        subscription_protocols=[GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL],
    )
    return Starlette(routes=[Route("/{path:path}", app), WebSocketRoute("/{path:path}", app)])


def make_schema(words: dict[str, Any]) -> strawberry.Schema:
    @strawberry.type
    class Query:
        @strawberry.field
        def hello(self, name: str) -> str:
            annotate(**words)
            return name

        @strawberry.field
        def fail(self) -> str | None:
            annotate(**words)
            raise LookupError

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        async def count(self) -> AsyncGenerator[int, None]:
            annotate(**words)
            yield 1

    batches = StrawberryConfig(batching_config={"max_operations": 10})
    return strawberry.Schema(
        Query, subscription=Subscription, extensions=[AuditExtension], config=batches
    )


async def run_operations(dsn: str, *, annotated: bool) -> None:
    async with AuditLog(dsn, settings=everything()) as audit:
        app = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=EVERYTHING)
        broken = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=Broken())
        await ask(app, QUERY, variables={"name": "ada"}, operationName="Q")
        await ask(app, [{"query": QUERY, "variables": {"name": "ada"}}, {"query": "{ fail }"}])
        await ask(app, f"{{ {' '.join(f'f{number}: fail' for number in range(11))} }}")
        await ask(app, '{ hello(name: "") }', extensions={"persistedQuery": {"sha256Hash": "abc"}})
        await ask(app, COUNT, STREAMED)
        await ask(app, '{ hello(name: "") }', path=LONG_PATH)
        await ask(app, '{ hello(name: "") }', path="/left-out")
        await ask(broken, '{ hello(name: "") }')
        await subscribe(app, "/graphql")


async def ask(
    app: Any, query: Any, *headers: tuple[bytes, bytes], path: str = "/graphql", **more: Any
) -> None:
    asked = query if isinstance(query, list) else {"query": query, **more}
    scope = http_scope(method="POST", user=SimpleUser("ada"), **paths(path))
    scope["headers"] = [*scope["headers"], *headers]
    await drive(app, scope, [upload(json.dumps(asked).encode())])


async def subscribe(app: Any, path: str) -> None:
    """Run a subscription to its end, over graphql-transport-ws."""
    operation = {"id": "1", "type": "subscribe", "payload": {"query": COUNT}}
    scope = websocket_scope(
        subprotocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL], user=SimpleUser("ada"), **paths(path)
    )
    await converse(
        app,
        scope,
        [
            {"type": "websocket.connect"},
            text(type="connection_init"),
            "connection_ack",
            text(**operation),
            "complete",
            {"type": "websocket.disconnect", "code": 1000},
        ],
    )


def text(**message: Any) -> dict[str, str]:
    return {"type": "websocket.receive", "text": json.dumps(message)}


async def converse(app: Any, scope: Any, steps: Iterable[Any]) -> None:
    """Let messages come in; for a type that stands among them, wait until such a one was sent."""
    sent: asyncio.Queue[Any] = asyncio.Queue()
    script = iter(steps)

    async def receive() -> Any:
        for step in script:
            if isinstance(step, dict):
                return step
            while json.loads((await sent.get()).get("text") or "{}").get("type") != step:
                pass
        raise AssertionError("nothing more comes")

    await app(scope, receive, sent.put)
