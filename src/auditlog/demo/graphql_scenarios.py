"""What GraphQL clients do to the demo's application, over HTTP and over WebSocket."""

import json
from typing import Any

from auditlog.demo.compare import GRAPHQL, HTTP
from auditlog.demo.scenario import Clients, Perform, Scenario

PATH = "/graphql"
_JSON = ("content-type", b"application/json")
_ALICE = ("authorization", b"Bearer alice")
_READ: dict[str, Any] = {
    "query": "query Read($id: Int!) { order(id: $id) { id item } }",
    "variables": {"id": 42},
    "operationName": "Read",
}
_CANCEL = {"query": "mutation Cancel { cancelOrder(id: 42) { id } }"}
_REFUSED, _BROKEN = {"query": "{ secret }"}, {"query": "{ order(id: 1) { id } broken }"}
_NO_FIELD, _NO_SYNTAX = {"query": "{ nothing }"}, {"query": "{ order("}


def _post(body: Any, *headers: tuple[str, bytes]) -> Perform:
    content = json.dumps(body).encode()
    return lambda clients: clients.http.request(
        "POST", PATH, headers=(_JSON, *headers), body=content
    )


async def _subscribe(clients: Clients) -> int:
    return await clients.http.subscribe(PATH, "subscription { ticks(count: 5) }", results=5)


async def _leave_a_subscription(clients: Clients) -> int:
    query = "subscription Endless { ticks(count: 100000) }"
    return await clients.http.subscribe(PATH, query, results=2, stay=False)


GRAPHQL_SCENARIOS = (
    Scenario("GraphQL read", 15, _post(_READ), (GRAPHQL,)),
    Scenario("GraphQL exception", 2, _post(_BROKEN), (GRAPHQL,)),
    Scenario("GraphQL no such field", 2, _post(_NO_FIELD), (GRAPHQL,)),
    Scenario("GraphQL no syntax", 1, _post(_NO_SYNTAX), (GRAPHQL,)),
    Scenario("GraphQL unauthenticated", 2, _post(_CANCEL), (GRAPHQL,)),
    Scenario("GraphQL batch", 2, _post([_READ, _REFUSED, _READ]), (GRAPHQL,) * 3),
    Scenario("GraphQL left subscription", 1, _leave_a_subscription, (HTTP, GRAPHQL)),
    Scenario("GraphQL subscription", 2, _subscribe, (HTTP, GRAPHQL)),
    Scenario("GraphQL forbidden", 2, _post(_REFUSED), (GRAPHQL,)),
    Scenario("GraphQL mutation", 5, _post(_CANCEL, _ALICE), (GRAPHQL,)),
)
