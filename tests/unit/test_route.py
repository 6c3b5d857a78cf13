import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi import WebSocket as FastAPIWebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_driver import audited, drive, http_scope, metadata_of, only
from auditlog import AuditMiddleware, LogRecord
from auditlog.capture.web.route import route_template
from auditlog.testing import MemorySink

SECRET = "s3cr3t"


async def answer(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def template_of(app: Any, path: str, *, method: str = "GET", **options: Any) -> str | None:
    """The template in the row that one request leaves, with the middleware around all of it."""
    middleware, sink = audited(app)
    TestClient(middleware, raise_server_exceptions=False, **options).request(
        method, path, follow_redirects=False
    )
    return _template(only(sink))


def inner_template_of(app: Any, path: str, **options: Any) -> str | None:
    """Likewise, with the middleware where `add_middleware` puts it."""
    sink = MemorySink()
    app.add_middleware(AuditMiddleware, audit=sink)
    TestClient(app, raise_server_exceptions=False, **options).get(path, follow_redirects=False)
    return _template(only(sink))


def _template(record: LogRecord) -> str | None:
    template: str | None = metadata_of(record).get("http.route")
    return template


def starlette_application(static: Path) -> Starlette:
    tenants = Router(
        [Route("/users/{user_id}", answer), Mount("/deep/{x}", routes=[Route("/{y}", answer)])]
    )
    routes: list[BaseRoute] = [
        Route("/", answer),
        Route("/orders/{order_id:int}", answer),
        Route("/files/{path:path}", answer),
        Route("/slash/", answer),
        WebSocketRoute("/rooms/{room}", talk),
        Mount("/api", routes=[Route("/", answer), Route("/items/{item_id}", answer)]),
        Mount("/t/{tenant}", app=tenants),
        Mount("/n/{number:int}/x", app=tenants),
        Mount("/p/{path_:path}/end", routes=[Route("/{z}", answer)]),
        Mount("/same/{id}", routes=[Route("/{id}", answer)]),
        Mount("/shared", StaticFiles(directory=static)),
        Mount("/of/{tenant}", StaticFiles(directory=static)),
        Mount("/plain", PlainTextResponse("any ASGI application")),
        Host("{tenant}.example.org", Router([Mount("/h/{x}", routes=[Route("/{y}", answer)])])),
        Mount("", routes=[Route("/unnamed/{x}", answer)]),
    ]
    return Starlette(routes=routes)


@pytest.fixture
def starlette(tmp_path: Path) -> Starlette:
    (tmp_path / "a.css").write_text("a {}")
    return starlette_application(tmp_path)


STARLETTE: dict[str, str | None] = {
    "/": "/",
    "/orders/7": "/orders/{order_id}",
    f"/files/a/b/{SECRET}": "/files/{path}",
    "/slash/": "/slash/",
    "/slash": None,
    "/nothing": None,
    "/orders/x": None,
    "/api/": "/api/",
    "/api": None,
    "/api/items/7": "/api/items/{item_id}",
    "/api/nothing": None,
    f"/t/{SECRET}/users/7": "/t/{tenant}/users/{user_id}",
    "/t/t/users/t": "/t/{tenant}/users/{user_id}",
    "/t/users/users/users": "/t/{tenant}/users/{user_id}",
    f"/t/{SECRET}/nothing": None,
    f"/t/{SECRET}%20%C3%A9/users/7": "/t/{tenant}/users/{user_id}",
    f"/t/a/deep/{SECRET}/c": "/t/{tenant}/deep/{x}/{y}",
    "/n/007/x/users/7": "/n/{number}/x/users/{user_id}",
    f"/p/a/{SECRET}/end/c": "/p/{path_}/end/{z}",
    f"/same/{SECRET}/2": "/same/{id}/{id}",
    "/shared/a.css": "/shared/{path}",
    "/shared/nothing.css": "/shared/{path}",
    f"/of/{SECRET}/a.css": "/of/{tenant}/{path}",
    "/plain/a/b": "/plain/{path}",
    f"/unnamed/{SECRET}": "/unnamed/{x}",
}


@pytest.mark.parametrize(("path", "expected"), STARLETTE.items())
def test_template_of_a_starlette_route(
    starlette: Starlette, path: str, expected: str | None
) -> None:
    """With the prefixes of mounts, and never with a value in it."""
    assert inner_template_of(starlette, path) == expected
    assert template_of(starlette, path) == expected


@pytest.mark.parametrize("path", [path for path in STARLETTE if path != "/"])
def test_template_is_the_same_under_a_root_path_of_the_server(
    starlette: Starlette, path: str
) -> None:
    """It is no part of the template."""
    options = {"root_path": f"/{SECRET}"}

    assert template_of(starlette, f"/{SECRET}{path}", **options) == STARLETTE[path]


def test_template_of_a_method_that_is_not_allowed() -> None:
    """The route is known, and it answers 405."""
    app = Starlette(routes=[Route("/orders/{order_id}", answer, methods=["POST"])])

    assert template_of(app, "/orders/7") == "/orders/{order_id}"


def test_template_behind_a_host(starlette: Starlette) -> None:
    """The host is no part of it."""
    options = {"base_url": f"http://{SECRET}.example.org"}

    assert template_of(starlette, f"/h/{SECRET}/2", **options) == "/h/{x}/{y}"


@pytest.mark.parametrize(
    ("path", "expected"), [("/rooms/blue", "/rooms/{room}"), ("/nothing", None)]
)
def test_template_of_a_websocket(starlette: Starlette, path: str, expected: str | None) -> None:
    """The handshake is routed like a request."""
    middleware, sink = audited(starlette)
    with (
        suppress(WebSocketDisconnect),
        TestClient(middleware).websocket_connect(path) as websocket,
    ):
        websocket.receive()

    assert _template(only(sink)) == expected


def test_template_of_a_mounted_application_with_a_middleware_of_its_own() -> None:
    """It counts from the root, as the outermost application's does."""
    sink = MemorySink()
    inner = Starlette(routes=[Route("/users/{user_id}", answer)])
    inner.add_middleware(AuditMiddleware, audit=sink)
    outer = Starlette(routes=[Mount("/t/{tenant}", inner)])
    TestClient(outer).get(f"/t/{SECRET}/users/7")

    assert _template(only(sink)) == "/t/{tenant}/users/{user_id}"


def test_template_is_left_out_where_a_mount_cannot_be_followed() -> None:
    """A wrapper hides the routes of what it wraps; a value in the template would be worse."""
    inner = Starlette(routes=[Mount("/u/{user_id}", routes=[Route("/{x}", answer)])])

    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    outer = Starlette(routes=[Mount("/t/{tenant}", wrapper)])

    assert template_of(outer, f"/t/{SECRET}/u/{SECRET}/1") is None


def test_template_behind_a_dispatcher_of_the_applications_own() -> None:
    """Whoever lengthens root_path mounts, as WSGI's SCRIPT_NAME would have it."""
    inner = Starlette(routes=[Route("/items/{item_id}", answer)])

    async def dispatcher(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "root_path": "/shop"}, receive, send)

    async def in_place(scope: Any, receive: Any, send: Any) -> None:
        scope["root_path"] = "/shop"
        await inner(scope, receive, send)

    assert template_of(in_place, "/shop/items/7") == "/shop/items/{item_id}"
    # What is written into a copy of the scope, nobody outside of it can see.
    assert template_of(dispatcher, "/shop/items/7") is None


class Widget:
    """A route of a framework that nobody knows."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({}, None),
        ({"route": None}, None),
        ({"route": "/orders"}, None),
        ({"route": Widget()}, None),
        ({"route": Widget(path="/a/{b}")}, "/a/{b}"),
        ({"route": Widget(path=b"/a")}, None),
        ({"route": Widget(path=5, path_format="/a")}, "/a"),
        ({"path_template": "/litestar/{b}"}, "/litestar/{b}"),
        ({"path_template": 5}, None),
        ({"fastapi": None, "route": Widget(path="/a")}, "/a"),
        ({"fastapi": {}, "route": Widget(path="/a")}, "/a"),
        ({"route": Widget(path="/a"), "root_path": None}, "/a"),
        ({"endpoint": answer}, None),
        ({"endpoint": answer, "router": Widget()}, None),
    ],
)
def test_template_of_what_other_frameworks_leave(
    scope: dict[str, Any], expected: str | None
) -> None:
    """Nothing is taken for a template but a string."""
    assert route_template({**http_scope(), **scope}, "") == expected


async def test_route_that_breaks_costs_details_and_not_the_row() -> None:
    """Attributes of foreign objects may be properties."""

    class Broken:
        @property
        def path(self) -> str:
            raise ZeroDivisionError

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        scope["route"] = Broken()

    middleware, sink = audited(app)
    await drive(middleware, http_scope())

    assert metadata_of(only(sink))["audit.capture_error"] == "ZeroDivisionError"


def fastapi_application(static: Path, **options: Any) -> FastAPI:
    users = APIRouter(prefix="/users/{user_id}")

    @users.get("/orders/{order_id}")
    def read_order(order_id: str) -> str:
        return order_id

    @users.get("")
    def read_user(user_id: str) -> str:
        return user_id

    @users.websocket("/events")
    async def events(websocket: FastAPIWebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    version = APIRouter(prefix="/v1")
    version.include_router(users, prefix="/of/{tenant}")
    # Starlette's methods, which know no prefix of the router's own.
    version.add_route("/plain/{x}", answer)
    version.mount("/sub/{name}", Starlette(routes=[Route("/in/{y}", answer)]))

    part = FastAPI()
    part.include_router(users, prefix="/mine")

    @part.get("/direct/{z}")
    def direct(z: str) -> str:
        return z

    app = FastAPI(**options)

    @app.get("/items/{item_id:int}")
    async def item(item_id: int) -> int:
        return item_id

    app.include_router(version, prefix="/api")
    app.include_router(APIRouter(), prefix="/empty")
    app.mount("/part/{n}", part)
    app.mount("/shared", StaticFiles(directory=static))
    app.add_route("/starlette/{x}", answer)
    return app


@pytest.fixture
def fastapi(tmp_path: Path) -> FastAPI:
    (tmp_path / "a.css").write_text("a {}")
    return fastapi_application(tmp_path)


FASTAPI: dict[str, str | None] = {
    "/items/7": "/items/{item_id}",
    "/items/x": None,
    "/nothing": None,
    "/docs": "/docs",
    "/openapi.json": "/openapi.json",
    f"/starlette/{SECRET}": "/starlette/{x}",
    f"/api/v1/of/{SECRET}/users/7": "/api/v1/of/{tenant}/users/{user_id}",
    f"/api/v1/of/{SECRET}/users/7/orders/8": (
        "/api/v1/of/{tenant}/users/{user_id}/orders/{order_id}"
    ),
    f"/api/plain/{SECRET}": "/api/plain/{x}",
    f"/api/sub/{SECRET}/in/{SECRET}": "/api/sub/{name}/in/{y}",
    f"/api/sub/{SECRET}/nothing": None,
    "/api/v1/nothing": None,
    f"/part/{SECRET}/direct/7": "/part/{n}/direct/{z}",
    f"/part/{SECRET}/mine/users/7": "/part/{n}/mine/users/{user_id}",
    f"/part/{SECRET}/nothing": None,
    "/shared/a.css": "/shared/{path}",
}


@pytest.mark.parametrize(("path", "expected"), FASTAPI.items())
def test_template_of_a_fastapi_route(fastapi: FastAPI, path: str, expected: str | None) -> None:
    """With the prefixes of included routers, which the route itself no longer has."""
    assert inner_template_of(fastapi, path) == expected
    assert template_of(fastapi, path) == expected


@pytest.mark.parametrize("path", FASTAPI)
def test_template_is_the_same_under_a_root_path_of_fastapi(tmp_path: Path, path: str) -> None:
    """Given by the server or by the application, wherever the middleware stands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the argument is deprecated
        app = fastapi_application(tmp_path, root_path=f"/{SECRET}")
    (tmp_path / "a.css").write_text("a {}")

    # Without the prefix in the path, a mounted application that is routed by Starlette finds none.
    if not path.startswith(("/part", "/api/sub")):
        assert inner_template_of(app, path) == FASTAPI[path]
        assert template_of(app, path) == FASTAPI[path]
    assert template_of(app, f"/{SECRET}{path}", root_path=f"/{SECRET}") == FASTAPI[path]


def test_template_of_a_method_that_fastapi_does_not_allow(fastapi: FastAPI) -> None:
    """Also in an included router."""
    path = f"/api/v1/of/{SECRET}/users/7"

    assert template_of(fastapi, path, method="DELETE") == "/api/v1/of/{tenant}/users/{user_id}"


def test_template_of_a_websocket_of_an_included_router(fastapi: FastAPI) -> None:
    """It has the prefix too."""
    middleware, sink = audited(fastapi)
    path = f"/api/v1/of/{SECRET}/users/7/events"
    with TestClient(middleware).websocket_connect(path) as websocket:
        websocket.receive()

    assert _template(only(sink)) == "/api/v1/of/{tenant}/users/{user_id}/events"


@pytest.fixture(autouse=True)
def no_value_in_any_template(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test expects: a value of the path is never in a template."""
    templates: list[str | None] = []

    def spy(scope: Any, outer_root_path: str) -> str | None:
        templates.append(route_template(scope, outer_root_path))
        return templates[-1]

    monkeypatch.setattr("auditlog.capture.web.exchange.route_template", spy)
    yield
    assert not [template for template in templates if template and SECRET in template]
