import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_driver import END, START, audited, drive, http_scope, metadata_of, only, row_of
from auditlog import AuditMiddleware, LogLevel, LogRecord, annotate, skip
from auditlog.testing import MemorySink
from hostile import OBJECTS
from tuples import encoded


def saying(*says: Callable[[], Any]) -> Any:
    """An application that says something about its request, and answers."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for say in says:
            said = say()
            if asyncio.iscoroutine(said):
                await said
        await send(START)
        await send(END)

    return app


async def annotated(**annotations: Any) -> LogRecord:
    """The record of a request that was annotated so."""
    return await row_of(saying(lambda: annotate(**annotations)))


def test_outside_of_a_request_nothing_happens() -> None:
    """Handlers need not know whether auditing is on."""
    annotate(user_id="7", message="nobody hears this", note=1)
    skip()


async def test_annotations_become_columns_and_metadata() -> None:
    """Each in its place; what has none stands beside the library's keys."""
    row = encoded(
        await annotated(
            user_id=7,
            resource_owner="org",
            instance_id="acme",
            aggregate=("order", 42),
            event_type="order.cancelled",
            event_sequence=3,
            message="cancelled",
            level=LogLevel.DEBUG,
            reason="too late",
            tags=["a", 1],
        )
    )

    assert (row["user_id"], row["resource_owner"], row["instance_id"]) == ("7", "org", "acme")
    assert (row["aggregate_type"], row["aggregate_id"]) == ("order", "42")
    assert (row["event_type"], row["event_sequence"]) == ("order.cancelled", 3)
    assert (row["message"], row["log_level"]) == ("cancelled", 4)
    assert (row["metadata"]["reason"], row["metadata"]["tags"]) == ("too late", ["a", 1])


async def test_later_words_replace_earlier_ones() -> None:
    """Field by field, and None says nothing."""
    record = await row_of(
        saying(
            lambda: annotate(user_id="1", message="a", note=1, kept=2),
            lambda: annotate(user_id="2", message=None, note=3),
        )
    )
    metadata = metadata_of(record)

    assert (record.user_id, record.message) == ("2", "a")
    assert (metadata["note"], metadata["kept"]) == (3, 2)


async def test_what_the_library_says_cannot_be_overwritten() -> None:
    """A handler may add, but not forge."""
    annotations = {"audit.outcome": "ok?", "client.address": "10.0.0.1", "mine": 1}
    metadata = metadata_of(await annotated(**annotations))

    assert (metadata["audit.outcome"], metadata["client.address"], metadata["mine"]) == (
        "ok",
        "192.0.2.7",
        1,
    )


async def test_secrets_in_metadata_are_redacted() -> None:
    """At any depth, by their names and by their looks."""
    row = encoded(
        await annotated(
            password="hunter2",
            form={"fields": [{"api_key": "hunter2", "name": "a"}]},
            url="https://user:hunter2@example.org/?token=hunter2",
        )
    )

    assert "hunter2" not in str(row)
    assert row["metadata"]["form"]["fields"][0]["name"] == "a"


HOSTILE_FIELDS = (
    "user_id",
    "aggregate",
    "event_type",
    "message",
    "event_sequence",
    "level",
)


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("hunter2")

    __repr__ = __str__


async def test_identifier_that_cannot_be_printed_does_not_stop_the_handler() -> None:
    """Its class stands in for it; the request is not the place to find that out."""
    record = await annotated(
        user_id=Unprintable(),
        instance_id=Unprintable(),
        resource_owner=Unprintable(),
        aggregate=(Unprintable(), Unprintable()),
    )

    assert {"<Unprintable>"} == {
        record.user_id,
        record.instance_id,
        record.resource_owner,
        record.aggregate_type,
        record.aggregate_id,
    }


@pytest.mark.parametrize(
    ("aggregate", "kind"),
    [("order", "order"), (42, "42"), (("order",), "('order',)"), (("a", 1, 2), "('a', 1, 2)")],
)
async def test_aggregate_that_is_no_pair_stands_as_the_type(aggregate: Any, kind: str) -> None:
    """The request goes on, and nothing of what was said is lost."""
    record = await annotated(aggregate=aggregate)

    assert (record.aggregate_type, record.aggregate_id) == (kind, None)


@pytest.mark.parametrize("number", range(len(OBJECTS)))
async def test_hostile_metadata_costs_no_row_and_no_request(number: int) -> None:
    """Whatever they raise, endless or circular: the rest of the row stands."""
    value = OBJECTS[number]
    middleware, sink = audited(saying(lambda: annotate(good=1, note=value, inner=[{"a": value}])))
    run = await drive(middleware, http_scope())
    metadata = metadata_of(only(sink))

    assert run.error is None
    assert (metadata["good"], metadata["audit.outcome"]) == (1, "ok")
    assert "audit.capture_error" not in metadata


@pytest.mark.parametrize("field", HOSTILE_FIELDS)
@pytest.mark.parametrize("number", range(len(OBJECTS)))
async def test_hostile_fields_cost_no_row_and_no_request(field: str, number: int) -> None:
    """They are typed, and nobody checks."""
    value = OBJECTS[number]
    middleware, sink = audited(saying(lambda: annotate(**{field: value})))
    run = await drive(middleware, http_scope())

    assert run.error is None
    assert metadata_of(only(sink))["audit.outcome"] == "ok"


async def say_from_a_thread() -> None:
    await asyncio.to_thread(annotate, user_id="7")


async def say_from_the_pool_of_anyio() -> None:
    await anyio.to_thread.run_sync(lambda: annotate(user_id="7"))


async def say_from_a_task() -> None:
    async def say() -> None:
        annotate(user_id="7")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(say())


async def say_from_a_thread_of_a_task() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(say_from_a_thread())


async def say_from_an_executor_with_a_copy_of_the_context() -> None:
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: context.run(annotate, user_id="7"))


@pytest.mark.parametrize(
    "say",
    [
        say_from_a_thread,
        say_from_the_pool_of_anyio,
        say_from_a_task,
        say_from_a_thread_of_a_task,
        say_from_an_executor_with_a_copy_of_the_context,
    ],
)
async def test_annotations_reach_the_row_from_wherever_the_request_is_served(
    say: Callable[[], Awaitable[None]],
) -> None:
    """One holder is shared by all copies of the context."""
    assert (await row_of(saying(say))).user_id == "7"


async def test_threads_of_one_request_lose_no_word() -> None:
    """What they say at the same time is merged."""

    async def say_from_many_threads() -> None:
        barrier = threading.Barrier(4)  # fewer than the pool has on one core

        def say(number: int) -> None:
            barrier.wait()
            for index in range(50):
                annotate(**{f"note_{number}_{index}": index})

        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(asyncio.to_thread(say, number))

    metadata = metadata_of(await row_of(saying(say_from_many_threads)))

    assert len([key for key in metadata if key.startswith("note_")]) == 200


class Between(BaseHTTPMiddleware):
    """Runs what is inside in a task of its own, with a copy of the context."""

    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        annotate(before=1)
        response = await call_next(request)
        annotate(after=1)
        return response


def test_annotations_pass_through_base_http_middleware() -> None:
    """From both sides of it, from asynchronous and from sync endpoints."""

    async def asynchronous(_request: Request) -> Response:
        annotate(user_id="7", inside=1)
        return PlainTextResponse("ok")

    def threaded(_request: Request) -> Response:
        annotate(user_id="7", inside=1)
        return PlainTextResponse("ok")

    sink = MemorySink()
    app = Starlette(routes=[Route("/async", asynchronous), Route("/sync", threaded)])
    app.add_middleware(Between)
    app.add_middleware(Between)
    app.add_middleware(AuditMiddleware, audit=sink)
    for path in ("/async", "/sync"):
        assert TestClient(app).get(path).text == "ok"

    for record in sink.records:
        metadata = metadata_of(record)
        assert record.user_id == "7"
        assert (metadata["before"], metadata["inside"], metadata["after"]) == (1, 1, 1)
    assert len(sink.records) == 2


def test_annotations_of_dependencies_reach_the_row() -> None:
    """Of all kinds that FastAPI has, and after their yield too."""

    def sync_dependency() -> Iterator[None]:
        annotate(sync_before=1)
        yield
        annotate(sync_after=1)

    async def async_dependency() -> AsyncIterator[None]:
        annotate(async_before=1)
        yield
        annotate(async_after=1)

    def user() -> str:
        annotate(user_id="7")
        return "7"

    app = FastAPI(dependencies=[Depends(sync_dependency), Depends(async_dependency)])

    @app.get("/")
    def endpoint(user: Annotated[str, Depends(user)]) -> str:
        annotate(endpoint=1)
        return user

    sink = MemorySink()
    app.add_middleware(AuditMiddleware, audit=sink)
    assert TestClient(app).get("/").json() == "7"
    record = only(sink)

    assert record.user_id == "7"
    assert {"sync_before", "sync_after", "async_before", "async_after", "endpoint"} <= (
        metadata_of(record).keys()
    )


def test_background_task_of_the_request_may_still_speak() -> None:
    """The row is written when the application returns, and such a task is a part of it."""

    async def endpoint(_request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(annotate, user_id="7"))

    sink = MemorySink()
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(AuditMiddleware, audit=sink)
    TestClient(app).get("/")

    assert only(sink).user_id == "7"


async def test_words_after_the_end_are_harmless() -> None:
    """The row is written; a task that outlives its request changes nothing more."""
    go_on = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def straggler() -> None:
        await go_on.wait()
        annotate(user_id="too late", message="too late", note="too late")
        skip()

    record = await row_of(
        saying(lambda: tasks.append(asyncio.create_task(straggler())), lambda: annotate(note=1))
    )
    go_on.set()
    await asyncio.gather(*tasks)

    assert (record.user_id, metadata_of(record)["note"]) == (None, 1)
