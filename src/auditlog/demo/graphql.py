"""The GraphQL door of the demo's application: the same orders, by Strawberry.

`view` makes the ASGI application for HTTP and WebSocket. What a resolver says with `annotate` goes
into the row of its operation.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.asgi import GraphQL
from strawberry.schema.config import StrawberryConfig

from auditlog import annotate


@strawberry.type
class Order:
    """One of a hundred."""

    id: int
    item: str


@strawberry.type
class Query:
    """What can be read."""

    @strawberry.field
    def order(self, id: int) -> Order | None:  # noqa: A002  # the argument of the schema  # the argument's name in the schema
        """Read one thing: an order, or null."""
        annotate(aggregate=("order", id))
        return Order(id=id, item="chair") if id <= 100 else None  # noqa: PLR2004  # there is no order above

    @strawberry.field
    def secret(self) -> str:
        """Refuse everybody."""
        raise GraphQLError("not for you", extensions={"code": "FORBIDDEN"})

    @strawberry.field
    def broken(self) -> str:
        """Raise what nobody expected."""
        raise RuntimeError("a defect of the demo's application")


@strawberry.type
class Mutation:
    """What can be done."""

    @strawberry.mutation
    def cancel_order(self, info: strawberry.Info, id: int) -> Order:  # noqa: A002
        """Write, for those who say who they are."""
        header = info.context["request"].headers.get("authorization", "")
        user = header.removeprefix("Bearer ")
        if not user:
            raise GraphQLError("who are you?", extensions={"code": "UNAUTHENTICATED"})
        annotate(
            user_id=user,
            resource_owner="acme",
            aggregate=("order", id),
            event_type="order.cancelled",
        )
        return Order(id=id, item="chair")


@strawberry.type
class Subscription:
    """What can be watched."""

    @strawberry.subscription
    async def ticks(self, count: int) -> AsyncIterator[int]:
        """Send numbers."""
        for number in range(count):
            yield number
            await asyncio.sleep(0.01)


def view(*extensions: Any) -> GraphQL[Any, Any]:
    """Make the application, with extensions of the schema."""
    schema = strawberry.Schema(
        Query,
        Mutation,
        Subscription,
        extensions=list(extensions),
        config=StrawberryConfig(batching_config={"max_operations": 10}),
    )
    return GraphQL(schema, graphql_ide=None)
