"""Routers, errors, tasks, WebSockets and lifespans, with the middleware and without."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

Install = Callable[..., TestClient]


def test_mounts_hosts_and_routers(install: Install) -> None:
    """What a handler sees of root_path, path and parameters."""

    async def where(request: Request) -> Response:
        scope = request.scope
        return JSONResponse([scope["root_path"], scope["path"], request.path_params])

    part = Router([Route("/x/{b}", where, name="x")])
    client = install(
        Starlette(
            routes=[
                Host("api.example.org", part),
                Mount("/m/{a}", part, name="m"),
                Mount("/n", routes=[Mount("/o", part)]),
            ]
        )
    )

    assert client.get("/m/1/x/2").json() == ["/m/1", "/m/1/x/2", {"a": "1", "b": "2"}]
    assert client.get("/n/o/x/2").json() == ["/n/o", "/n/o/x/2", {"b": "2"}]
    assert client.get("/x/3", headers={"host": "api.example.org"}).json()[0] == ""
    assert client.get("/m/1/nothing").status_code == 404


def test_exception_handlers(install: Install) -> None:
    """By class and by status, and for what nobody expected."""

    class Own(Exception):  # noqa: N818  # an application's name
        pass

    async def on_own(_request: Request, error: Exception) -> Response:
        return JSONResponse({"own": str(error)}, status_code=418)

    async def on_404(request: Request, _error: Exception) -> Response:
        return HTMLResponse(f"no {request.url.path}", status_code=404)

    async def on_500(_request: Request, error: Exception) -> Response:
        return PlainTextResponse(type(error).__name__, status_code=500)

    async def own(_request: Request) -> Response:
        raise Own("mine")

    async def teapot(_request: Request) -> Response:
        raise HTTPException(418, "tea", headers={"x-a": "1"})

    async def broken(_request: Request) -> Response:
        raise ZeroDivisionError

    client = install(
        Starlette(
            routes=[Route("/own", own), Route("/tea", teapot), Route("/broken", broken)],
            exception_handlers={Own: on_own, 404: on_404, 500: on_500},
        ),
        raise_server_exceptions=False,
    )

    assert client.get("/own").json() == {"own": "mine"}
    assert (client.get("/tea").text, client.get("/tea").headers["x-a"]) == ("tea", "1")
    assert client.get("/nothing").text == "no /nothing"
    broken_answer = client.get("/broken")
    assert (broken_answer.status_code, broken_answer.text) == (500, "ZeroDivisionError")


def test_page_of_the_debugger(install: Install) -> None:
    """It has the traceback."""

    async def broken(_request: Request) -> Response:
        raise ZeroDivisionError("shown")

    client = install(
        Starlette(routes=[Route("/", broken)], debug=True), raise_server_exceptions=False
    )
    answer = client.get("/", headers={"accept": "text/html"})

    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.text


def test_exception_reaches_the_server(install: Install) -> None:
    """It is the same object."""
    error = ZeroDivisionError("the very object")

    async def broken(_request: Request) -> Response:
        raise error

    client = install(Starlette(routes=[Route("/", broken)]))
    with pytest.raises(ZeroDivisionError) as raised:
        client.get("/")

    assert raised.value is error


def test_background_tasks(install: Install) -> None:
    """They run after the response, in their order."""
    done: list[str] = []

    async def asynchronous(name: str) -> None:
        done.append(name)

    async def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks()
        tasks.add_task(asynchronous, "first")
        tasks.add_task(done.append, "second")
        task: BackgroundTask = (
            tasks if "many" in request.query_params else BackgroundTask(done.append, "one")
        )
        return PlainTextResponse("ok", background=task)

    client = install(Starlette(routes=[Route("/", endpoint)]))

    assert (client.get("/").text, client.get("/?many").text) == ("ok", "ok")
    assert done == ["one", "first", "second"]


def test_classes_as_endpoints(install: Install) -> None:
    """Methods that are there and that are not."""

    class Resource(HTTPEndpoint):
        async def get(self, _request: Request) -> Response:
            return PlainTextResponse("got")

        def delete(self, _request: Request) -> Response:
            return Response(status_code=204)

    client = install(Starlette(routes=[Route("/", Resource)]))

    assert (client.get("/").text, client.delete("/").status_code) == ("got", 204)
    assert client.put("/").status_code == 405
    assert client.head("/").text == ""


def test_websocket(install: Install) -> None:
    """A subprotocol, texts in and JSON out."""

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept(subprotocol=websocket.scope["subprotocols"][0])
        async for text in websocket.iter_text():
            await websocket.send_json({"echo": text})
        await websocket.close()

    client = install(Starlette(routes=[WebSocketRoute("/", echo)]))
    with client.websocket_connect("/", subprotocols=["a", "b"]) as websocket:
        websocket.send_text("1")
        websocket.send_text("é")
        assert [websocket.receive_json(), websocket.receive_json()] == [
            {"echo": "1"},
            {"echo": "é"},
        ]
        assert websocket.accepted_subprotocol == "a"


def test_websocket_endpoints_that_refuse_close_and_raise(install: Install) -> None:
    """And one that answers bytes."""

    class Bytes(WebSocketEndpoint):
        encoding = "bytes"

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_bytes(data + b"!")

    async def refuse(websocket: WebSocket) -> None:
        await websocket.close(4001, "no")

    async def deny(websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({"no": 1}, status_code=401))

    async def broken(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ZeroDivisionError

    client = install(
        Starlette(
            routes=[
                WebSocketRoute("/bytes", Bytes),
                WebSocketRoute("/refuse", refuse),
                WebSocketRoute("/deny", deny),
                WebSocketRoute("/broken", broken),
            ]
        )
    )
    with client.websocket_connect("/bytes") as websocket:
        websocket.send_bytes(b"a")
        assert websocket.receive_bytes() == b"a!"
    for path in ("/refuse", "/deny", "/nothing"):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
            pass
    with pytest.raises(ZeroDivisionError), client.websocket_connect("/broken"):
        pass


def test_lifespan_and_its_state(install: Install) -> None:
    """Up, seen by handlers, down."""
    entries: list[str] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, list[str]]]:
        entries.append("up")
        yield {"entries": entries}
        entries.append("down")

    async def endpoint(request: Request) -> Response:
        return JSONResponse(request.state.entries)

    with install(Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)) as client:
        assert client.get("/").json() == ["up"]
    assert entries == ["up", "down"]


def test_lifespan_that_fails(install: Install) -> None:
    """The application does not start, for its own reason."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        raise ZeroDivisionError("cannot start")
        yield

    with (
        pytest.raises(ZeroDivisionError, match="cannot start"),
        install(Starlette(lifespan=lifespan)),
    ):
        pass
