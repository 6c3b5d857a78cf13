"""The service under Ariadne: with the handlers, and with the extension alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import resolvers
from ariadne import (
    MutationType,
    ObjectType,
    QueryType,
    SubscriptionType,
    make_executable_schema,
    upload_scalar,
)
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLHTTPHandler, GraphQLTransportWSHandler, GraphQLWSHandler
from graphql import GraphQLError, parse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auditlog.capture.graphql.ariadne import (
    AuditExtension,
    AuditHTTPHandler,
    AuditTransportWSHandler,
    AuditWSHandler,
)

TYPES = """
    scalar Upload
    type Item { number: Int! value: Int }
    type Query {
      hello: String!
      fail: String
      must: String!
      refuse: String
      readFile: String
      echo(text: String): String
      number(value: Int!): Int!
      who(name: String!): String!
      wait(name: String!): String!
      coded(code: String!): String
      items(count: Int!): [Item!]!
    }
    type Mutation {
      login(user: String!, password: String!): Boolean!
      upload(file: Upload!, note: String!): Int!
    }
    type Subscription { count(to: Int!): Int! forever: Int! breakOff: Int! }
"""
query, mutation, subscription = QueryType(), MutationType(), SubscriptionType()
item = ObjectType("Item")
for name, resolver in {
    "hello": resolvers.hello,
    "fail": resolvers.fail,
    "must": resolvers.fail,
    "refuse": resolvers.refuse,
    "readFile": resolvers.read_file,
}.items():
    query.set_field(name, lambda *_, resolver=resolver: resolver())


@query.field("echo")
def resolve_echo(*_: Any, text: str | None = None) -> str | None:
    return resolvers.echo(text)


@query.field("number")
def resolve_number(*_: Any, value: int) -> int:
    return value


@query.field("who")
async def resolve_who(*_: Any, name: str) -> str:
    return await resolvers.who(name)


@query.field("wait")
async def resolve_wait(*_: Any, name: str) -> str:
    return await resolvers.wait(name)


@query.field("coded")
def resolve_coded(*_: Any, code: str) -> str:
    return resolvers.coded(code)


@query.field("items")
def resolve_items(*_: Any, count: int) -> list[Any]:
    return [{"number": number} for number in resolvers.items(count)]


@item.field("value")
def resolve_value(parent: Any, _: Any) -> int:
    return resolvers.item(parent["number"])


@mutation.field("login")
def resolve_login(*_: Any, user: str, password: str) -> bool:
    return user == password


@mutation.field("upload")
async def resolve_upload(*_: Any, file: Any, note: str) -> int:
    return await resolvers.upload_size(file)


@subscription.source("count")
async def source_count(*_: Any, to: int) -> AsyncIterator[int]:
    async for number in resolvers.count(to):
        yield number


@subscription.source("forever")
async def source_forever(*_: Any) -> AsyncIterator[int]:
    async for number in resolvers.forever():
        yield number


@subscription.source("breakOff")
async def source_break_off(*_: Any) -> AsyncIterator[int]:
    async for number in resolvers.break_off():
        yield number


for name in ("count", "forever", "breakOff"):
    subscription.set_field(name, lambda number, _, **__: number)

schema = make_executable_schema(TYPES, query, mutation, subscription, item, upload_scalar)
_UNKNOWN = "unknown"
_stored: dict[str, str] = {}


class Batches(GraphQLHTTPHandler):
    """Batches and persisted queries, which Ariadne leaves to its users."""

    async def graphql_http_server(self, request: Request) -> Response:
        if (await request.body()).startswith(b"["):
            data = await request.json()
            calls = [self.execute_graphql_query(request, each) for each in data]
            return JSONResponse([result for _, result in await asyncio.gather(*calls)])
        return await super().graphql_http_server(request)

    async def extract_data_from_request(self, request: Request) -> Any:
        data = await super().extract_data_from_request(request)
        asked = (data.get("extensions") or {}).get("persistedQuery")
        if asked and data.get("query"):
            _stored[asked["sha256Hash"]] = data["query"]
        elif asked:
            data["query"] = _stored.get(asked["sha256Hash"], _UNKNOWN)
        return data


class AuditedBatches(Batches, AuditHTTPHandler):
    """The same, audited."""


def parse_persisted(_context: Any, data: Any) -> Any:
    if data["query"] == _UNKNOWN:
        raise GraphQLError("unknown", extensions={"code": "PERSISTED_QUERY_NOT_FOUND"})
    return parse(data["query"])


class BothProtocols:
    """Chooses the handler by the subprotocol that the client offers, as Ariadne has one an app."""

    modern: type[GraphQLTransportWSHandler] = AuditTransportWSHandler
    legacy: type[GraphQLWSHandler] = AuditWSHandler

    def __init__(self, **options: Any) -> None:
        self._modern = GraphQL(websocket_handler=self.modern(), **options)
        self._legacy = GraphQL(websocket_handler=self.legacy(), **options)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_legacy = "graphql-ws" in scope.get("subprotocols", ())
        await (self._legacy if is_legacy else self._modern)(scope, receive, send)


def make_app(http_handler: GraphQLHTTPHandler, make: Any = BothProtocols) -> Any:
    return make(
        schema=schema,
        http_handler=http_handler,
        query_parser=parse_persisted,
        execute_get_queries=True,
        logger="tests.ariadne",
    )


graphql_app = make_app(AuditedBatches())
extension_app = make_app(Batches(extensions=[AuditExtension]))
