"""Many requests at once: what belongs to one never shows in another, and nothing stays behind."""

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from asgi_driver import (
    END,
    START,
    audited,
    body,
    drive,
    http_scope,
    metadata_of,
    script,
    start,
    upload,
    websocket_scope,
)
from auditlog import AuditMiddleware, Level, LogRecord, Policy, Rule, Settings, annotate
from auditlog.testing import MemorySink

COUNT = 300


def scope_of(number: int) -> dict[str, Any]:
    """Everything that can differ differs with the number."""
    return http_scope(
        method="PUT" if number % 2 else "POST",
        path=f"/{number}",
        raw_path=b"/%d" % number,
        client=(f"10.0.{number // 256}.{number % 256}", 1),
        headers=[(b"user-agent", b"agent-%d" % number), (b"x-request-id", b"id-%d" % number)],
    )


def assert_belongs_together(record: LogRecord) -> int:
    """All that is in a row belongs to the number in its path, which is returned."""
    assert record.request_url is not None
    number = int(record.request_url.rpartition("/")[2])
    metadata = metadata_of(record)
    assert record.request_headers is not None
    assert (record.user_id, record.instance_id, record.resource_owner) == (
        f"user-{number}",
        f"tenant-{number}",
        f"owner-{number}",
    )
    assert record.request_headers["user-agent"] == [f"agent-{number}"]
    assert (record.request_method, record.response_status) == (
        "PUT" if number % 2 else "POST",
        200 + number % 100,
    )
    assert (metadata["http.request.body.size"], metadata["http.response.body.size"]) == (
        number + 1,
        2 * number + 1,
    )
    assert (metadata["audit.request_id"], metadata["number"]) == (f"id-{number}", number)
    assert metadata["client.address"] == f"10.0.{number // 256}.{number % 256}"
    return number


def instance_of(scope: Any) -> str:
    return f"tenant-{scope['path'].rpartition('/')[2]}"


async def test_interleaved_requests_never_mix() -> None:
    """All in flight at once; after each of its steps a request waits until chance lets it go on."""
    chance = random.Random(7)  # noqa: S311  # chance that can be repeated
    waiting: list[asyncio.Event] = []
    everybody_in = asyncio.Event()

    async def pause() -> None:
        event = asyncio.Event()
        waiting.append(event)
        if len(waiting) == COUNT:
            everybody_in.set()
        await event.wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        await pause()
        annotate(user_id=f"user-{number}")
        await pause()
        await receive()
        await pause()
        await receive()
        annotate(number=number)
        await pause()
        await send(start(200 + number % 100))
        await pause()
        await send(body(b"x" * number, more_body=True))
        await pause()
        annotate(resource_owner=f"owner-{number}")
        await send(body(b"x" * (number + 1)))

    async def let_go() -> None:
        await everybody_in.wait()
        while waiting:
            waiting.pop(chance.randrange(len(waiting))).set()
            await asyncio.sleep(0)

    middleware, sink = audited(app, instance_id=instance_of)
    async with asyncio.TaskGroup() as tasks:
        for number in range(COUNT):
            uploads = [upload(b"y" * number, more_body=True), upload(b"y")]
            tasks.create_task(drive(middleware, scope_of(number), uploads))
        tasks.create_task(let_go())

    assert sorted(map(assert_belongs_together, sink.records)) == list(range(COUNT))  # type: ignore[arg-type]


class Between(BaseHTTPMiddleware):
    """A task, and a copy of the context, for what is inside."""

    async def dispatch(
        self, request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        await asyncio.sleep(0)
        return await call_next(request)


async def _asynchronous(request: Request) -> Response:
    number = request.path_params["number"]
    content = await request.body()
    await asyncio.sleep(0)
    _say(number)
    return _answer(number, content)


async def _with_tasks(request: Request) -> Response:
    number = request.path_params["number"]
    content = await request.body()

    async def say() -> None:
        await asyncio.sleep(0)
        await anyio.to_thread.run_sync(_say, number)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(say())
        tasks.create_task(asyncio.sleep(0))
    return _answer(number, content)


def _threaded(request: Request) -> Response:
    number = request.path_params["number"]
    _say(number)
    return _answer(number, b"y" * (number + 1))


def _say(number: int) -> None:
    annotate(user_id=f"user-{number}", resource_owner=f"owner-{number}", number=number)


def _answer(number: int, content: bytes) -> Response:
    assert len(content) == number + 1
    return PlainTextResponse("x" * (2 * number + 1), status_code=200 + number % 100)


def application(sink: MemorySink, *, between: int) -> Starlette:
    methods = ["POST", "PUT"]
    app = Starlette(
        routes=[
            Route("/async/{number:int}", _asynchronous, methods=methods),
            Route("/tasks/{number:int}", _with_tasks, methods=methods),
            Mount("/{any}", routes=[Route("/{number:int}", _asynchronous, methods=methods)]),
        ]
    )
    for _ in range(between):
        app.add_middleware(Between)
    app.add_middleware(AuditMiddleware, audit=sink, instance_id=instance_of)
    return app


async def _call(app: Any, number: int) -> None:
    prefix = ("async", "tasks", "mounted")[number % 3]
    path = f"/{prefix}/{number}"
    scope = {**scope_of(number), "path": path, "raw_path": path.encode()}
    run = await drive(app, scope, [upload(b"y" * (number + 1))])
    assert run.error is None


@pytest.mark.parametrize("between", [0, 2])
async def test_requests_to_an_application_never_mix(between: int) -> None:
    """Through Starlette, tasks, threads and BaseHTTPMiddleware."""
    sink = MemorySink()
    app = application(sink, between=between)
    async with asyncio.TaskGroup() as tasks:
        for number in range(COUNT):
            tasks.create_task(_call(app, number))

    assert sorted(map(assert_belongs_together, sink.records)) == list(range(COUNT))  # type: ignore[arg-type]


def test_requests_of_several_loops_never_mix() -> None:
    """One middleware, one log, a loop in each of four threads."""
    sink = MemorySink()
    app = application(sink, between=1)
    barrier = threading.Barrier(4)

    async def serve(first: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(first, COUNT, 4):
                tasks.create_task(_call(app, number))

    def run(first: int) -> None:
        barrier.wait()
        asyncio.run(serve(first))

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(assert_belongs_together, sink.records)) == list(range(COUNT))  # type: ignore[arg-type]


async def test_endpoints_in_threads_never_mix() -> None:
    """They run in the pool, whose threads serve one request after the other."""
    sink = MemorySink()
    app = Starlette(routes=[Route("/{number:int}", _threaded, methods=["POST", "PUT"])])
    app.add_middleware(AuditMiddleware, audit=sink)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        await asyncio.gather(*(client.post(f"/{number}") for number in range(100)))

    assert {f"/{number}": f"user-{number}" for number in range(100)} == {
        record.request_url: record.user_id for record in sink.records
    }


async def test_nested_requests_of_many_never_mix() -> None:
    """Each calls another application in process, at the same time as all the others."""

    async def inner_app(scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        annotate(user_id=f"inner-{scope['path'][1:]}")
        await asyncio.sleep(0)
        await send(START)
        await send(END)

    inner, inner_sink = audited(inner_app)

    async def outer_app(scope: Any, _receive: Any, send: Any) -> None:
        await drive(inner, scope_of(int(scope["path"][1:])))
        annotate(user_id=f"outer-{scope['path'][1:]}")
        await send(START)
        await send(END)

    outer, outer_sink = audited(outer_app)
    await asyncio.gather(*(drive(outer, scope_of(number)) for number in range(COUNT)))

    for sink, name in ((inner_sink, "inner"), (outer_sink, "outer")):
        assert sorted(f"/{number} {name}-{number}" for number in range(COUNT)) == sorted(
            f"{record.request_url} {record.user_id}" for record in sink.records
        )


class Probe:
    """Lives as long as the scope that it stands in, and so as long as an exchange that has it."""


BODIES = Policy((Rule(name="bodies", level=Level.BODY),))
ACCEPT, CLOSE = {"type": "websocket.accept"}, {"type": "websocket.close"}


async def _annotating(_scope: Any, _receive: Any, send: Any) -> None:
    annotate(user_id="7", note={"a": [1]})
    await send(START)
    await send(END)


@pytest.mark.parametrize(
    ("app", "scope", "options"),
    [
        (script(..., START, END), http_scope(), {}),
        (script(..., START, body(b"{}")), http_scope(), {"policy": BODIES}),
        (script(RuntimeError("no")), http_scope(), {}),
        (script(START, asyncio.CancelledError()), http_scope(), {}),
        (script(..., ACCEPT, CLOSE), websocket_scope(), {}),
        (_annotating, http_scope(), {"user_id": lambda scope: scope["path"]}),
        (_annotating, http_scope(), {"user_id": lambda scope: scope["nothing"]}),
        (script(START, 5, END), http_scope(), {}),
        (script(START, END), http_scope(headers=5), {}),
    ],
    ids=[
        "http",
        "bodies",
        "error",
        "cancelled",
        "websocket",
        "identity",
        "failing identity",
        "no message",
        "capture error",
    ],
)
@pytest.mark.parametrize(("durability", "rows"), [("memory", 1), ("spool", 1), ("commit", 2)])
async def test_nothing_of_a_request_stays_behind(
    app: Any, scope: dict[str, Any], options: dict[str, Any], durability: Any, rows: int
) -> None:
    """Without the garbage collector: no cycle leads through an exchange."""
    settings = Settings(echo_request_id=True, durability=durability, spool_dir="/nowhere")
    middleware, sink = audited(app, MemorySink(settings), **options)
    gc.collect()
    gc.disable()
    try:
        probe = Probe()
        gone = weakref.ref(probe)
        scope = {**scope, "probe": probe}
        del probe
        run = await drive(middleware, scope, [upload(b"{}")])
        if run.error is not None:
            # Its traceback leads to the frames, as that of any exception.
            run.error.__traceback__ = None
        del scope, run
        assert gone() is None
    finally:
        gc.enable()
    assert len(sink.records) == rows


async def test_task_that_outlives_its_request_holds_no_later_one() -> None:
    """Its copy of the context has its own request's holder, and that is all."""
    go_on = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            tasks.append(asyncio.create_task(go_on.wait()))
        await send(START)
        await send(END)

    middleware, _ = audited(app)
    await drive(middleware, http_scope(path="/first"))
    probe = Probe()
    gone = weakref.ref(probe)
    scope = http_scope(probe=probe)
    del probe
    await drive(middleware, scope)
    del scope

    assert gone() is None
    go_on.set()
    await asyncio.gather(*tasks)
