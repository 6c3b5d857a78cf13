"""Operations on a WebSocket: one row each, beside that of the connection, behind a real server."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from gql_scenario import CLIENT_ERROR, OK, SERVER_ERROR, Expected, row, seen
from services import ARIADNE, EXTENSION
from serving import Client, Service
from talking import LEGACY, MODERN, Talk, talking

from asgi_driver import metadata_of
from auditlog import LogRecord

COUNT = "subscription Count($to: Int!) { count(to: $to) }"
FOREVER = "subscription { forever }"
ERROR = "GraphQLError"


@dataclass(frozen=True)
class Case:
    """An operation, what ends it, and what its row says."""

    name: str
    query: str
    act: Callable[[Talk], Any]
    expected: Expected
    variables: tuple[tuple[str, Any], ...] = ()


def on_socket(outcome: str, query: str, /, **expected: Any) -> Expected:
    expected = {"type": "subscription", **expected}
    return row(outcome, query=query, method="GET", status=101, **expected)


def ended(results: int, end: str) -> dict[str, Any]:
    return {"graphql.subscription.results": results, "graphql.subscription.end": end}


def case(
    title: str, query: str, act: Callable[[Talk], Any], outcome: str, /, **expected: Any
) -> Case:
    variables = tuple(expected.pop("variables", {}).items())
    return Case(title, query, act, on_socket(outcome, query, **expected), variables)


def cut(talk: Talk) -> None:
    talk.next()
    talk.connection.socket.shutdown(socket.SHUT_RDWR)


CASES = [
    case(
        "complete",
        COUNT,
        Talk.rest,
        OK,
        name="Count",
        variables={"to": 3},
        **ended(3, "complete"),
    ),
    case("client closes", FOREVER, Talk.next, "client_disconnect", **ended(1, "connection_closed")),
    case("client is gone", FOREVER, cut, "client_disconnect", **ended(1, "connection_closed")),
    case(
        "source fails",
        "subscription { breakOff }",
        Talk.rest,
        SERVER_ERROR,
        errors=[{"type": "RuntimeError"}],
        error__type="RuntimeError",
        **ended(2, "error"),
    ),
    case(
        "invalid",
        "subscription { nothing }",
        Talk.rest,
        CLIENT_ERROR,
        errors=[{"type": ERROR}],
        error__type=ERROR,
        **ended(0, "error"),
    ),
    case(
        "syntax error",
        "subscription {",
        Talk.rest,
        CLIENT_ERROR,
        errors=[{"type": "GraphQLSyntaxError"}],
        error__type="GraphQLSyntaxError",
        **ended(0, "error"),
    ),
    case(
        "variable that does not fit",
        COUNT,
        Talk.rest,
        CLIENT_ERROR,
        name="Count",
        variables={"to": "x"},
        errors=[{"type": ERROR}],
        error__type=ERROR,
        **ended(0, "error"),
    ),
]
QUERIES = [
    case("query", 'query Who { who(name: "ada") }', Talk.next, OK, name="Who", type="query"),
    case(
        "resolver fails",
        "{ fail }",
        Talk.next,
        SERVER_ERROR,
        type="query",
        errors=[{"path": ["fail"], "type": "ValueError"}],
        error__type="ValueError",
    ),
    case(
        "query with a syntax error",
        "query Foo {",
        Talk.rest,
        CLIENT_ERROR,
        type="query",
        name="Foo",
        errors=[{"type": "GraphQLSyntaxError"}],
        error__type="GraphQLSyntaxError",
    ),
]


def run(client: Client, subprotocol: str, case: Case) -> tuple[LogRecord, LogRecord]:
    """Return the operation's row and the connection's."""
    with talking(client, subprotocol) as talk:
        talk.start(case.query, **dict(case.variables))
        case.act(talk)
    records = client.rows(2)
    assert len(records) == 2
    operation, connection = sorted(records, key=lambda record: -record.protocol)
    return operation, connection


@pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])
@pytest.mark.parametrize("case", [*CASES, *QUERIES], ids=lambda each: each.name)
def test_operation_has_a_row_when_it_is_over(
    service: Service, client: Client, case: Case, subprotocol: str
) -> None:
    """The table, over both protocols, beside the connection's row, which is its parent."""
    if case in QUERIES and subprotocol == LEGACY and service.name.startswith("strawberry"):
        pytest.skip("Strawberry runs nothing but subscriptions over graphql-ws")
    operation, connection = run(client, subprotocol, case)
    assert seen(operation) == case.expected
    assert (connection.protocol, connection.response_status) == (1, 101)
    assert connection.log_id is not None
    assert metadata_of(operation)["audit.parent_id"] == connection.log_id
    assert "websocket.frames_in" not in metadata_of(operation)


@pytest.mark.parametrize("subprotocol", [MODERN, LEGACY])
def test_client_that_unsubscribes_ends_a_subscription_well(
    service: Service, client: Client, subprotocol: str
) -> None:
    """Its row is there before the connection ends."""
    if subprotocol == LEGACY and service.name in {ARIADNE, EXTENSION}:
        pytest.skip("Ariadne breaks the connection: see the next test")
    with talking(client, subprotocol) as talk:
        talk.start(FOREVER)
        talk.next()
        talk.stop()
        (operation,) = client.rows(1)
    assert seen(operation) == on_socket(OK, FOREVER, **ended(1, "unsubscribed"))


def test_ariadne_breaks_when_a_client_stops_a_stream_that_waits(
    service: Service, client: Client
) -> None:
    """It closes a generator that runs, which raises: the row tells of the broken connection."""
    if service.name not in {ARIADNE, EXTENSION}:
        pytest.skip("of Ariadne alone")
    with talking(client, LEGACY) as talk:
        talk.start(FOREVER)
        talk.next()
        talk.stop()
        talk.rest()
    operation, connection = sorted(client.rows(2), key=lambda record: -record.protocol)
    assert metadata_of(connection)["error.type"] == "RuntimeError"
    assert metadata_of(connection)["audit.outcome"] == SERVER_ERROR
    assert metadata_of(operation)["audit.outcome"] == SERVER_ERROR
    assert metadata_of(operation)["graphql.subscription.end"] == "connection_closed"


def test_operations_of_one_connection_do_not_mix(client: Client) -> None:
    """Three run at once, and end in another order than they began."""
    with talking(client, MODERN) as talk:
        talk.start(FOREVER, id="first")
        talk.next()
        talk.start(COUNT, id="second", to=2)
        talk.rest()
        talk.start('{ who(name: "ada") }', id="third")
        talk.rest()
        second, third = client.rows(2)
    assert (second.event_type, metadata_of(second)["to"], second.user_id) == ("counted", 2, None)
    assert (third.event_type, third.user_id) == ("ada.seen", "ada")
    first, connection = client.rows(4)[2:]
    assert (first.event_type, first.user_id) == (None, None)
    assert (connection.event_type, connection.user_id, connection.protocol) == (None, None, 1)
