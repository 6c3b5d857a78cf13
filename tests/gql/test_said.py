"""What handlers say is said of their own operation, however it is run; and of none outside."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import resolvers
import strawberry
from ariadne import QueryType, make_executable_schema
from ariadne.asgi import GraphQL as AriadneGraphQL
from ariadne_app import AuditedBatches, graphql_app
from in_process import post
from strawberry.asgi import GraphQL as StrawberryGraphQL
from strawberry.dataloader import DataLoader
from strawberry_app import graphql_app as strawberry_app
from strawberry_app import make_schema

from asgi_driver import audited, metadata_of, only
from auditlog import AuditMiddleware, annotate, skip
from auditlog.capture.context import current
from auditlog.capture.graphql.strawberry import AuditExtension
from auditlog.testing import MemorySink


@pytest.fixture(params=[strawberry_app, graphql_app], ids=["strawberry", "ariadne"])
def app(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield request.param
    assert current.get() is None


async def test_operations_that_take_turns_do_not_mix(app: Any) -> None:
    """Twenty batches of ten at once, each of which waits in the middle."""
    middleware, sink = audited(app)
    names = [[f"{batch}-{index}" for index in range(10)] for batch in range(20)]
    await asyncio.gather(
        *[
            post(middleware, [{"query": f'{{ who(name: "{name}") }}'} for name in batch])
            for batch in names
        ]
    )
    said = {(each.user_id, each.aggregate_id, each.event_type) for each in sink.records}
    assert said == {(name, name, f"{name}.seen") for batch in names for name in batch}
    assert len(sink.records) == 200


async def test_what_is_said_around_an_operation_is_said_of_each(app: Any) -> None:
    """By a middleware, before and after; what a resolver says wins."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        annotate(user_id="early", resource_owner="org", note="early")
        await app(scope, receive, send)
        annotate(message="late")

    middleware, sink = audited(around)
    await post(middleware, [{"query": '{ who(name: "ada") }'}, {"query": "{ hello }"}])
    said = [(each.user_id, each.resource_owner, each.message) for each in sink.records]
    assert said == [("ada", "org", "late"), ("early", "org", "late")]
    assert [metadata_of(each)["note"] for each in sink.records] == ["early", "early"]  # type: ignore[arg-type]


async def test_single_operation_keeps_the_id_that_was_given_to_its_request(app: Any) -> None:
    """Who asks for it, before, within or after, is told the same."""
    told = []

    async def around(scope: Any, receive: Any, send: Any) -> None:
        holder = current.get()
        assert holder is not None
        await app(scope, receive, send)
        told.append(holder.row_id())

    middleware, sink = audited(around)
    await post(middleware, "{ hello }")
    assert [only(sink).log_id] == told


async def test_skipped_operation_leaves_no_row(app: Any) -> None:
    """Said around it, it holds for all."""

    async def skipping(scope: Any, receive: Any, send: Any) -> None:
        skip()
        await app(scope, receive, send)

    middleware, sink = audited(skipping)
    await post(middleware, [{"query": "{ hello }"}] * 2)
    assert sink.records == []


async def test_resolver_can_leave_its_own_operation_out() -> None:
    """The others of the batch stay."""

    @strawberry.type
    class Query:
        @strawberry.field
        def quiet(self) -> int:
            skip()
            return 1

        @strawberry.field
        def loud(self) -> int:
            return 2

    config = strawberry.schema.config.StrawberryConfig(batching_config={"max_operations": 5})
    schema = strawberry.Schema(Query, extensions=[AuditExtension], config=config)
    middleware, sink = audited(StrawberryGraphQL(schema))
    await post(middleware, [{"query": "{ quiet }"}, {"query": "{ loud }"}])
    assert metadata_of(only(sink))["graphql.batch.index"] == 1


async def test_data_loader_speaks_for_the_operation_that_asked_first() -> None:
    """It runs in a task that is made by the first load."""

    async def load(keys: list[int]) -> list[int]:
        annotate(loaded=keys)
        return keys

    @strawberry.type
    class Query:
        @strawberry.field
        async def loaded(self, info: strawberry.Info, key: int) -> int:
            loader = info.context.setdefault("loader", DataLoader(load))
            return int(await loader.load(key))

    schema = strawberry.Schema(Query, extensions=[AuditExtension])
    middleware, sink = audited(StrawberryGraphQL(schema))
    await post(middleware, "{ a: loaded(key: 1) b: loaded(key: 2) }")
    assert metadata_of(only(sink))["loaded"] == [1, 2]


async def test_nothing_happens_outside_an_audited_request(app: Any) -> None:
    """Without the middleware, and in a script."""
    run = await post(app, '{ who(name: "ada") }')
    assert run.error is None
    result = await make_schema(AuditExtension).execute("{ hello }")
    assert (result.errors, result.data) == (None, {"hello": "world"})


async def test_operation_within_an_operation_is_none_of_the_clients(app: Any) -> None:
    """What a resolver executes by itself has no row, and its errors are the resolver's affair."""
    inner = make_schema(AuditExtension)
    query = QueryType()

    @query.field("outer")
    async def outer(*_: Any) -> str:
        failed = await inner.execute("{ fail }")
        annotate(inner=len(failed.errors or ()))
        return "fine"

    schema = make_executable_schema("type Query { outer: String }", query)
    middleware, sink = audited(AriadneGraphQL(schema, http_handler=AuditedBatches()))
    await post(middleware, "{ outer }")
    metadata = metadata_of(only(sink))
    assert (metadata["inner"], metadata["audit.outcome"]) == (1, "ok")


async def test_schema_that_a_handler_executes_makes_its_request_graphql() -> None:
    """A handler of its own, without the library's view."""
    schema = make_schema(AuditExtension)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.to_thread(schema.execute_sync, "{ hello }")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    middleware, sink = audited(app)
    await post(middleware, "")
    assert only(sink).protocol == 3


async def test_client_that_leaves_takes_its_operation_with_it() -> None:
    """The operation has not ended, and has its row all the same."""
    schema = make_schema(AuditExtension)
    app = StrawberryGraphQL(schema)
    middleware = AuditMiddleware(app, audit=(sink := MemorySink()))
    task = asyncio.create_task(post(middleware, '{ wait(name: "left") }'))
    await resolvers.reached["left"].wait()
    task.cancel()
    await asyncio.wait([task])
    record = only(sink)
    assert (record.protocol, metadata_of(record)["audit.outcome"]) == (3, "cancelled")


async def test_received_row_of_a_request_is_completed_by_its_operation(app: Any) -> None:
    """The rows of a received request are one exchange's."""
    from auditlog import Level, Policy, Protocol, Rule  # noqa: PLC0415

    rule = Rule(name="all", level=Level.HEADERS, protocols=(Protocol.GRAPHQL,), received=True)
    middleware, sink = audited(app, policy=Policy([rule]))
    await post(middleware, "{ hello }")
    received, complete = map(metadata_of, sink.records)  # type: ignore[arg-type]
    assert (received["audit.stage"], complete["audit.stage"]) == ("received", "complete")
    assert received["audit.exchange_id"] == complete["audit.exchange_id"]
    assert complete["graphql.operation.type"] == "query"


async def test_what_refers_to_an_operation_refers_to_its_row() -> None:
    """The id that events within a resolver are given, in a batch and alone."""

    @strawberry.type
    class Query:
        @strawberry.field
        def row(self) -> str:
            holder = current.get()
            assert holder is not None
            return holder.row_id()

    config = strawberry.schema.config.StrawberryConfig(batching_config={"max_operations": 5})
    schema = strawberry.Schema(Query, extensions=[AuditExtension], config=config)
    for count in (1, 3):
        middleware, sink = audited(StrawberryGraphQL(schema))
        run = await post(middleware, [{"query": "{ row }"}] * count)
        told = [answer["data"]["row"] for answer in json.loads(run.sent[1]["body"])]
        assert told == [record.log_id for record in sink.records]
        assert len(set(told)) == count
