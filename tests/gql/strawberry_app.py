"""The service under Strawberry: `graphql_app`, `router`, and the schema."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import resolvers
import strawberry
from fastapi import FastAPI
from graphql import GraphQLError
from strawberry.asgi import GraphQL
from strawberry.extensions import SchemaExtension
from strawberry.fastapi import GraphQLRouter
from strawberry.file_uploads import Upload
from strawberry.permission import BasePermission
from strawberry.schema.config import StrawberryConfig

from auditlog.capture.graphql.strawberry import AuditExtension


class Never(BasePermission):
    message = "No."

    def has_permission(self, source: Any, info: Any, **kwargs: Any) -> bool:
        return False


@strawberry.type
class Item:
    number: int

    @strawberry.field
    def value(self) -> int | None:
        return resolvers.item(self.number)


@strawberry.type
class Query:
    hello: str = strawberry.field(resolver=resolvers.hello)
    fail: str | None = strawberry.field(resolver=resolvers.fail)
    must: str = strawberry.field(resolver=resolvers.fail)
    refuse: str | None = strawberry.field(resolver=resolvers.refuse)
    readFile: str | None = strawberry.field(resolver=resolvers.read_file)  # noqa: N815  # the schema's
    guarded: str | None = strawberry.field(resolver=resolvers.hello, permission_classes=[Never])

    @strawberry.field
    def echo(self, text: str | None = None) -> str | None:
        return resolvers.echo(text)

    @strawberry.field
    def number(self, value: int) -> int:
        return value

    @strawberry.field
    async def who(self, name: str) -> str:
        return await resolvers.who(name)

    @strawberry.field
    async def wait(self, name: str) -> str:
        return await resolvers.wait(name)

    @strawberry.field
    def coded(self, code: str) -> str | None:
        return resolvers.coded(code)

    @strawberry.field
    def items(self, count: int) -> list[Item]:
        return [Item(number=number) for number in resolvers.items(count)]


@strawberry.type
class Mutation:
    @strawberry.mutation
    def login(self, user: str, password: str) -> bool:
        return user == password

    @strawberry.mutation
    async def upload(self, file: Upload, note: str) -> int:
        return await resolvers.upload_size(file)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int) -> AsyncGenerator[int, None]:
        async for number in resolvers.count(to):
            yield number

    @strawberry.subscription
    async def forever(self) -> AsyncGenerator[int, None]:
        async for number in resolvers.forever():
            yield number

    @strawberry.subscription
    async def breakOff(self) -> AsyncGenerator[int, None]:  # noqa: N802  # the schema's
        async for number in resolvers.break_off():
            yield number


class PersistedQueries(SchemaExtension):
    """Apollo's automatic persisted queries."""

    stored: dict[str, str] = {}  # noqa: RUF012  # shared by all operations, as a store is

    def on_operation(self) -> Iterator[None]:
        context = self.execution_context
        asked = (context.operation_extensions or {}).get("persistedQuery")
        if asked and context.query:
            self.stored[asked["sha256Hash"]] = context.query
        elif asked:
            context.query = self.stored.get(asked["sha256Hash"])
            if context.query is None:
                raise GraphQLError("unknown", extensions={"code": "PERSISTED_QUERY_NOT_FOUND"})
        yield


def make_schema(*extensions: Any) -> strawberry.Schema:
    return strawberry.Schema(
        Query,
        Mutation,
        Subscription,
        extensions=list(extensions),
        config=StrawberryConfig(auto_camel_case=False, batching_config={"max_operations": 10}),
    )


schema = make_schema(AuditExtension, PersistedQueries)
graphql_app = GraphQL(schema, multipart_uploads_enabled=True)
fastapi_app = FastAPI()
for prefix in ("/graphql", "/bodies", "/quiet"):
    fastapi_app.include_router(GraphQLRouter(schema, multipart_uploads_enabled=True), prefix=prefix)
