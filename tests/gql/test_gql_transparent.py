"""Nothing that a client sees changes by the extensions, and no error of ours is one of theirs."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import ariadne_app
import pytest
from ariadne.asgi.handlers import GraphQLTransportWSHandler, GraphQLWSHandler
from graphql import GraphQLError
from in_process import post
from serving import TIMEOUT_S, Client, Service, serving
from strawberry.asgi import GraphQL as StrawberryGraphQL
from strawberry.extensions import MaskErrors, SchemaExtension
from strawberry_app import PersistedQueries, make_schema
from talking import LEGACY, MODERN, talking
from websockets.exceptions import ConnectionClosed

from asgi_driver import audited, metadata_of, only
from auditlog.capture.graphql import running
from auditlog.capture.graphql.ariadne import AuditExtension as AriadneExtension
from auditlog.capture.graphql.operation import Operation
from auditlog.capture.graphql.strawberry import AuditExtension

REQUESTS = [
    "query Hi { hello }",
    "{ fail must }",
    "{ items(count: 9) { number value } }",
    'mutation { login(user: "a", password: "a") }',
    "query Foo {",
    "{ nothing }",
    "query A { hello } query B { hello }",
    "{ __schema { types { name } } }",
    None,
    7,
    [{"query": "{ hello }"}, {"query": "{ fail }"}],
]
OPERATIONS = ["subscription { count(to: 3) }", "subscription { breakOff }", "subscription {"]


class BothPlain(ariadne_app.BothProtocols):
    """Ariadne with its own handlers."""

    modern, legacy = GraphQLTransportWSHandler, GraphQLWSHandler


def strawberry_pair() -> tuple[Any, Any]:
    bare, extended = make_schema(PersistedQueries), make_schema(AuditExtension, PersistedQueries)
    return StrawberryGraphQL(bare), StrawberryGraphQL(extended)


def ariadne_pair() -> tuple[Any, Any]:
    bare = ariadne_app.make_app(ariadne_app.Batches(), BothPlain)
    return bare, ariadne_app.make_app(ariadne_app.AuditedBatches())


def extension_pair() -> tuple[Any, Any]:
    extended = ariadne_app.Batches(extensions=[AriadneExtension])
    return ariadne_pair()[0], ariadne_app.make_app(extended)


PAIRS = [strawberry_pair, ariadne_pair, extension_pair]


@pytest.fixture(params=PAIRS, ids=lambda pair: pair.__name__)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A service without the extension, and the same with it."""
    return request.param()  # type: ignore[no-any-return]


@pytest.mark.parametrize("query", REQUESTS, ids=repr)
async def test_every_byte_of_a_response_is_the_same(pair: tuple[Any, Any], query: Any) -> None:
    """Bare, and with extension and middleware."""
    bare, extended = pair
    expected = await post(bare, query)
    run = await post(audited(extended)[0], query)
    assert run.sent == expected.sent
    assert repr(run.error) == repr(expected.error)


def test_every_message_of_a_socket_is_the_same(pair: tuple[Any, Any]) -> None:
    """Both protocols, on real servers."""
    with serving(pair[0]) as bare, serving(pair[1]) as extended:
        for subprotocol in (MODERN, LEGACY):
            for query in OPERATIONS:
                seen = [_messages(each, subprotocol, query) for each in (bare, extended)]
                assert seen[0] == seen[1]
                assert seen[0]


def test_ariadne_breaks_by_itself_when_a_stream_is_stopped() -> None:
    """Its own handler raises as well, where the stream waits: that is not of our making."""
    with serving(ariadne_pair()[0]) as service, talking(service.client(), LEGACY) as talk:
        talk.start("subscription { forever }")
        talk.next()
        talk.stop()
        assert talk.rest() == "closed"


@pytest.mark.parametrize("broken", ["ask", "note_errors", "end", "learn", "look_once"])
async def test_error_of_ours_is_reported_and_changes_nothing(
    pair: tuple[Any, Any],
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever of an operation cannot be read."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a value")

    owners = [Operation, *Operation.__subclasses__()]
    for owner in owners:
        if broken in vars(owner):
            monkeypatch.setattr(owner, broken, fail)
    bare, extended = pair
    middleware, sink = audited(extended)
    for query in ("{ hello fail }", "query Foo {"):
        expected = await post(bare, query)
        assert (await post(middleware, query)).sent == expected.sent
    assert len(sink.records) == 2
    assert "a value" not in caplog.text


async def test_begin_that_fails_leaves_a_plain_row(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is recorded as what it is on the wire."""
    monkeypatch.setattr(running, "_carried_by", lambda _: 1 / 0)
    middleware, sink = audited(pair[1])
    await post(middleware, "{ hello }")
    assert only(sink).protocol == 1
    assert "auditlog.operation_unreadable" in caplog.text


class HostileError(GraphQLError):
    """An error whose parts raise when they are looked at."""

    @property
    def extensions(self) -> Any:
        raise RuntimeError("no")

    @extensions.setter
    def extensions(self, value: Any) -> None: ...


async def test_hostile_error_costs_details_only(caplog: pytest.LogCaptureFixture) -> None:
    """The row is there, and the reason is logged."""

    class Raises(SchemaExtension):
        def on_execute(self) -> Iterator[None]:
            raise HostileError("no")
            yield

    schema = make_schema(AuditExtension, Raises)
    middleware, sink = audited(StrawberryGraphQL(schema))
    await post(middleware, "{ hello }")
    assert only(sink).protocol == 3
    assert "auditlog.operation_unreadable" in caplog.text


@pytest.mark.parametrize("order", [lambda a, b: (a, b), lambda a, b: (b, a)])
async def test_masked_errors_are_seen_as_they_were(order: Callable[[Any, Any], Any]) -> None:
    """What a client must not know, the trail may: the class, wherever the mask is listed."""
    schema = make_schema(*order(AuditExtension, MaskErrors))
    middleware, sink = audited(StrawberryGraphQL(schema))
    run = await post(middleware, "{ fail }")
    assert b"Unexpected error." in run.sent[1]["body"]
    assert metadata_of(only(sink))["graphql.errors"] == [{"path": ["fail"], "type": "ValueError"}]


def test_one_extension_for_all_operations_keeps_them_apart() -> None:
    """Strawberry warns of instances, and shares them."""
    with pytest.warns(DeprecationWarning, match="instance"):
        schema = make_schema(AuditExtension())
    with serving(StrawberryGraphQL(schema)) as service:
        clients = [service.client() for _ in range(5)]
        for number, client in enumerate(clients):
            client.post(f'query Q{number} {{ who(name: "{number}") }}')
        for number, client in enumerate(clients):
            (record,) = client.rows(1)
            assert record.user_id == str(number)
            assert metadata_of(record)["graphql.operation.name"] == f"Q{number}"


def _messages(service: Service, subprotocol: str, query: str) -> list[Any]:
    client: Client = service.client()
    messages: list[Any] = []
    with talking(client, subprotocol) as talk:
        talk.start(query)
        try:
            while not messages or messages[-1]["type"] not in {"complete", "error"}:
                messages.append(json.loads(talk.connection.recv(TIMEOUT_S)))
        except ConnectionClosed as closed:
            messages.append({"type": "error", "close": str(closed.rcvd)})
    return messages
