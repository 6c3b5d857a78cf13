"""Requests and WebSockets that together fill whatever such rows can hold, without a server."""

from typing import Any

from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_driver import drive, http_scope, upload, websocket_scope
from auditlog import AuditLog, AuditMiddleware, annotate
from auditlog.quota.asgi import QuotaMiddleware
from parity_table import (
    EVERYTHING,
    LONG_PATH,
    PARENT,
    SAID,
    Broken,
    closed,
    everything,
    refusing,
)

HEADERS = [
    (b"content-type", b"application/json"),
    (b"traceparent", PARENT.encode()),
    (b"x-request-id", b"request-1"),
]


def paths(path: str) -> dict[str, Any]:
    return {"path": path, "raw_path": path.encode(), "headers": HEADERS}


def routes(*, annotated: bool) -> Starlette:
    words = SAID if annotated else {}

    async def answer(request: Request) -> Response:
        annotate(**words)
        await request.body()
        return PlainTextResponse("ok")

    async def stream(request: Request) -> Response:
        async def parts() -> Any:
            yield '{"a":'
            yield "1}"

        annotate(**words)
        await request.body()
        return StreamingResponse(parts(), media_type="application/json")

    async def fail(_request: Request) -> Response:
        annotate(**words)
        raise LookupError

    async def talk(websocket: WebSocket) -> None:
        annotate(**words)
        await websocket.accept("chat")
        await websocket.receive_text()
        await websocket.send_text("ok")
        await websocket.close(1000, "enough")

    async def break_off(websocket: WebSocket) -> None:
        annotate(**words)
        await websocket.accept()
        raise LookupError

    return Starlette(
        routes=[
            Route("/orders/{order}", stream, methods=["POST"]),
            Route("/left-out", answer),
            Route("/fails", fail),
            Route("/{path:path}", answer),
            WebSocketRoute("/talk/{room}", talk),
            WebSocketRoute("/breaks", break_off),
            WebSocketRoute("/{path:path}", talk),
        ]
    )


async def make_requests(dsn: str, *, annotated: bool) -> None:
    async with AuditLog(dsn, settings=everything()) as audit:
        app = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=EVERYTHING)
        broken = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=Broken())
        post = http_scope(method="POST", user=SimpleUser("ada"), **paths("/orders/42"))
        await drive(app, post, [upload(b'{"amount":', more_body=True), upload(b"1}")])
        await drive(app, http_scope(**paths("/fails")), [upload()])
        await drive(app, http_scope(**paths("/left-out")), [upload()])
        await drive(app, http_scope(**paths(LONG_PATH)), [upload()])
        await drive(broken, http_scope(**paths("/orders/42")), [upload()])
        limited = QuotaMiddleware(routes(annotated=annotated), quotas=closed(audit))
        limited = AuditMiddleware(limited, audit=audit, policy=EVERYTHING)
        await drive(limited, http_scope(**paths("/orders/42")), [upload()])
    async with AuditLog(dsn, settings=refusing()) as audit:
        app = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=EVERYTHING)
        await drive(app, http_scope(**paths("/orders/42")), [upload()])


async def open_websockets(dsn: str, *, annotated: bool) -> None:
    coming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
    ]
    async with AuditLog(dsn, settings=everything()) as audit:
        app = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=EVERYTHING)
        broken = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=Broken())
        proper = websocket_scope(user=SimpleUser("ada"), **paths("/talk/1"))
        await drive(app, proper, coming)
        await drive(app, websocket_scope(**paths("/breaks")), coming)
        await drive(app, websocket_scope(**paths("/left-out")), coming)
        await drive(app, websocket_scope(**paths(LONG_PATH)), coming)
        await drive(broken, websocket_scope(**paths("/talk/1")), coming)
        limited = QuotaMiddleware(routes(annotated=annotated), quotas=closed(audit))
        limited = AuditMiddleware(limited, audit=audit, policy=EVERYTHING)
        await drive(limited, websocket_scope(**paths("/talk/1")), coming)
    async with AuditLog(dsn, settings=refusing()) as audit:
        app = AuditMiddleware(routes(annotated=annotated), audit=audit, policy=EVERYTHING)
        await drive(app, websocket_scope(**paths("/talk/1")), coming)
