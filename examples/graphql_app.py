r"""A GraphQL API by Strawberry with an audit trail: one row in PostgreSQL for every operation.

Run it, with a PostgreSQL of its own that keeps its data in ./trail:

    pip install 'auditlog-postgres[cli,embedded]' strawberry-graphql starlette 'uvicorn[standard]'
    AUDITLOG_DSN=embedded:./trail uvicorn examples.graphql_app:app

    curl -H 'content-type: application/json' -H 'authorization: Bearer alice' \
        -d '{"query": "mutation { payInvoice(number: 42) { number } }"}' \
        http://127.0.0.1:8000/graphql
    auditlog tail --dsn embedded:./trail

With a PostgreSQL that you have: AUDITLOG_DSN=postgresql://..., after `auditlog migrate`.
"""

import asyncio
from collections.abc import AsyncIterator

import strawberry
from graphql import GraphQLError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute
from strawberry.asgi import GraphQL

from auditlog import AuditLog, AuditMiddleware, annotate
from auditlog.capture.graphql.strawberry import AuditExtension

paid = {13}


@strawberry.type
class Invoice:
    number: int
    paid: bool


@strawberry.type
class Query:
    @strawberry.field
    def invoice(self, number: int) -> Invoice:
        """The operation's name and type, its errors and the time it took are stored by itself."""
        return Invoice(number=number, paid=number in paid)


@strawberry.type
class Mutation:
    @strawberry.mutation
    def pay_invoice(self, info: strawberry.Info, number: int) -> Invoice:
        """What only the application knows, it says: who did it, to what, and what it means."""
        user = info.context["request"].headers.get("authorization", "").removeprefix("Bearer ")
        if not user:
            # The answer is an HTTP 200 all the same. The row says `denied`, by this code.
            raise GraphQLError("who are you?", extensions={"code": "UNAUTHENTICATED"})
        annotate(user_id=user, aggregate=("invoice", number), event_type="invoice.paid")
        if number in paid:
            raise GraphQLError("paid already", extensions={"code": "BAD_USER_INPUT"})
        paid.add(number)
        return Invoice(number=number, paid=True)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def reminders(self, count: int) -> AsyncIterator[int]:
        """A row at its end, with the number of results; its WebSocket has one of its own."""
        for number in range(count):
            yield number
            await asyncio.sleep(0)


# The whole set-up: an extension of the schema, and the middleware around the application.
schema = strawberry.Schema(Query, Mutation, Subscription, extensions=[AuditExtension])
graphql = GraphQL(schema)
app = Starlette(
    routes=[Route("/graphql", graphql), WebSocketRoute("/graphql", graphql)],
    # AuditLog() writes to where AUDITLOG_DSN says.
    middleware=[Middleware(AuditMiddleware, audit=AuditLog())],
)
