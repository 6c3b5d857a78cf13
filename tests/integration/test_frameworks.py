"""Each framework with the middleware as its users install it, and rows in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import django
import httpx
import litestar
import psycopg
import pytest
import quart
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import StreamingResponse as FastAPIStreamingResponse
from psycopg.rows import dict_row
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from auditlog import AuditLog, AuditMiddleware, annotate

PARTS = (b"one", b"two", b"three")


async def _parts() -> AsyncIterator[bytes]:
    for part in PARTS:
        yield part
        await asyncio.sleep(0)


def starlette_application(audit: AuditLog) -> Any:
    async def read(request: Request) -> Response:
        annotate(user_id="7", aggregate=("item", request.path_params["item_id"]))
        return PlainTextResponse("ok")

    def threaded(_request: Request) -> Response:
        annotate(user_id="7")
        return PlainTextResponse("ok")

    async def write(request: Request) -> Response:
        return PlainTextResponse(await request.body(), status_code=201)

    async def stream(_request: Request) -> Response:
        return StreamingResponse(_parts())

    async def denied(_request: Request) -> Response:
        raise StarletteHTTPException(403)

    async def broken(_request: Request) -> Response:
        raise ZeroDivisionError

    app = Starlette(
        routes=[
            Route("/items/{item_id}", read),
            Route("/threaded", threaded),
            Route("/write", write, methods=["POST"]),
            Route("/stream", stream),
            Route("/denied", denied),
            Route("/broken", broken),
        ]
    )
    app.add_middleware(AuditMiddleware, audit=audit)
    return app


def fastapi_application(audit: AuditLog) -> Any:
    router = APIRouter()

    @router.get("/{item_id}")
    async def read(item_id: str) -> str:
        annotate(user_id="7", aggregate=("item", item_id))
        return item_id

    app = FastAPI()
    app.include_router(router, prefix="/items")

    @app.get("/threaded")
    def threaded() -> str:
        annotate(user_id="7")
        return "ok"

    @app.post("/write", status_code=201)
    async def write(request: Request) -> Response:
        return PlainTextResponse(await request.body(), status_code=201)

    @app.get("/stream")
    async def stream() -> FastAPIStreamingResponse:
        return FastAPIStreamingResponse(_parts())

    @app.get("/denied")
    async def denied() -> None:
        raise HTTPException(403)

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    app.add_middleware(AuditMiddleware, audit=audit)
    return app


def litestar_application(audit: AuditLog) -> Any:
    @litestar.get("/items/{item_id:str}")
    async def read(request: litestar.Request[Any, Any, Any]) -> str:
        annotate(user_id="7", aggregate=("item", request.path_params["item_id"]))
        return "ok"

    @litestar.get("/threaded", sync_to_thread=True)
    def threaded() -> str:
        annotate(user_id="7")
        return "ok"

    @litestar.post("/write")
    async def write(request: litestar.Request[Any, Any, Any]) -> bytes:
        return await request.body()

    @litestar.get("/stream")
    async def stream() -> litestar.response.Stream:
        return litestar.response.Stream(_parts)

    @litestar.get("/denied")
    async def denied() -> None:
        raise litestar.exceptions.PermissionDeniedException

    @litestar.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    app = litestar.Litestar([read, threaded, write, stream, denied, broken])
    return AuditMiddleware(app, audit=audit)  # type: ignore[arg-type]


def quart_application(audit: AuditLog) -> Any:
    app = quart.Quart("test_frameworks")

    @app.get("/items/<item_id>")
    async def read(item_id: str) -> str:
        annotate(user_id="7", aggregate=("item", item_id))
        return item_id

    @app.get("/threaded")
    def threaded() -> str:
        annotate(user_id="7")
        return "ok"

    @app.post("/write")
    async def write() -> tuple[bytes, int]:
        return await quart.request.get_data(), 201

    @app.get("/stream")
    async def stream() -> AsyncIterator[bytes]:
        return _parts()

    @app.get("/denied")
    async def denied() -> None:
        quart.abort(403)

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    app.asgi_app = AuditMiddleware(app.asgi_app, audit=audit)  # type: ignore[assignment, arg-type]
    return app


async def django_read(_request: HttpRequest, item_id: str) -> HttpResponse:
    annotate(user_id="7", aggregate=("item", item_id))
    return HttpResponse("ok")


def django_threaded(_request: HttpRequest) -> HttpResponse:
    annotate(user_id="7")
    return HttpResponse("ok")


async def django_write(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, status=201)


async def django_stream(_request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(_parts())


def django_denied(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=403)


def django_broken(_request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


urlpatterns = [
    path("items/<item_id>", django_read),
    path("threaded", django_threaded),
    path("write", django_write),
    path("stream", django_stream),
    path("denied", django_denied),
    path("broken", django_broken),
]


def django_application(audit: AuditLog) -> Any:
    if not django_settings.configured:
        django_settings.configure(
            ROOT_URLCONF=__name__,
            SECRET_KEY="bait",
            ALLOWED_HOSTS=["*"],
            LOGGING_CONFIG=None,
            USE_TZ=True,
        )
        django.setup()
    return AuditMiddleware(get_asgi_application(), audit=audit)


APPLICATIONS: dict[str, Callable[[AuditLog], Any]] = {
    "starlette": starlette_application,
    "fastapi": fastapi_application,
    "litestar": litestar_application,
    "quart": quart_application,
    "django": django_application,
}
# Quart and Django keep the route to themselves, Quart and Litestar answer where others let the
# exception go on; what passes the middleware is what a row can tell.
ROUTES = {
    "starlette": "/items/{item_id}",
    "fastapi": "/items/{item_id}",
    "litestar": "/items/{item_id}",
}
RAISED_THROUGH = {"starlette", "fastapi"}


@pytest.mark.parametrize("name", APPLICATIONS)
async def test_requests_become_rows(name: str, any_dsn: str) -> None:
    """Status, sizes, route where it is told, annotations from tasks and threads."""
    async with _living(APPLICATIONS[name](AuditLog(any_dsn))) as client:
        assert (await client.get("/items/42")).status_code == 200
        assert (await client.get("/threaded")).status_code == 200
        assert (await client.post("/write", content=b"12345")).content == b"12345"
        assert (await client.get("/stream")).content == b"".join(PARTS)
        assert (await client.get("/denied")).status_code == 403
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.get("/broken")).status_code == 500
    rows = await _rows(any_dsn)

    assert {url: row["response_status"] for url, row in rows.items()} == {
        "/items/42": 200,
        "/threaded": 200,
        "/write": 201,
        "/stream": 200,
        "/denied": 403,
        "/nothing": 404,
        "/broken": 500,
    }
    item, written = rows["/items/42"], rows["/write"]["metadata"]
    assert (item["user_id"], item["aggregate_type"], item["aggregate_id"]) == ("7", "item", "42")
    assert item["metadata"].get("http.route") == ROUTES.get(name)
    assert rows["/threaded"]["user_id"] == "7"
    assert (written["http.request.body.size"], written["http.response.body.size"]) == (5, 5)
    assert rows["/stream"]["metadata"]["http.response.body.size"] == 11
    assert rows["/denied"]["metadata"]["audit.outcome"] == "denied"
    assert "http.route" not in rows["/nothing"]["metadata"]
    broken = rows["/broken"]["metadata"]
    assert broken["audit.outcome"] == "server_error"
    assert broken.get("error.type") == ("ZeroDivisionError" if name in RAISED_THROUGH else None)
    assert broken["audit.status_source"] == ("derived" if name in RAISED_THROUGH else "wire")


@pytest.mark.parametrize("name", APPLICATIONS)
async def test_rows_are_written_without_a_lifespan(name: str, any_dsn: str) -> None:
    """As on serverless platforms and under httpx's ASGITransport: the writer starts by itself."""
    audit = AuditLog(any_dsn)
    app = APPLICATIONS[name](audit)
    async with _client(app) as client:
        await client.get("/items/42")
    assert await audit.flush(20)
    rows = await _rows(any_dsn)
    await audit.aclose()

    assert rows["/items/42"]["user_id"] == "7"


@asynccontextmanager
async def _living(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application within its lifespan, as a server has it."""
    incoming: asyncio.Queue[Any] = asyncio.Queue()
    outgoing: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(app(scope, incoming.get, outgoing.put))
    for act in ("startup", "shutdown"):
        await incoming.put({"type": f"lifespan.{act}"})
        answer = await outgoing.get()
        assert answer["type"] == f"lifespan.{act}.complete", answer
        if act == "startup":
            async with _client(app) as client:
                yield client
    await task


def _client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


async def _rows(dsn: str) -> dict[str, dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        with psycopg.connect(dsn, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM logstore.logs").fetchall()

    return {row["request_url"]: row for row in await anyio.to_thread.run_sync(read)}
