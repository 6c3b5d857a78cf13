"""The application that the demo serves: orders, in memory, with and without the audit trail.

`audited` and `bare` build the same application for uvicorn's `--factory`; the difference is a word
for each door: the middleware, the interceptor of gRPC, the extension of GraphQL, and the quota that
one route has. The handlers call `annotate` in both: without those it does nothing. What is under
`/-/` is for whoever runs the demo, and the policy leaves it out. gRPC is served on the same loop,
at a port that the log tells.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from auditlog import AuditLog, AuditMiddleware, Level, LogLevel, Policy, Rule, annotate
from auditlog.capture.graphql.strawberry import AuditExtension
from auditlog.capture.grpc_aio import AuditInterceptor
from auditlog.demo import graphql, rpc
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import Quota
from auditlog.quota.quotas import Quotas

POLICY = Policy(
    rules=(
        Rule(name="operations", paths=("/-/**",), level=Level.NONE),
        Rule(name="new orders with body", methods=("POST",), paths=("/orders",), level=Level.BODY),
    )
)
QUOTA = Quota("exports", limit=5, period="day", routes=("/export",), thresholds=(80, 100))
"""Runs out soon: from then on the answer is 429 where the application without a trail exports."""
ORGANISATION = "acme"
ADMINISTRATORS = frozenset({"alice"})
FLUSH_TIMEOUT_S = 10.0


def audited() -> Starlette:
    """Build the application with its trail, which goes where `AUDITLOG_DSN` says."""
    audit = AuditLog()
    app = _application(graphql.view(AuditExtension), AuditInterceptor(audit, policy=POLICY))
    # Inside: what is added first is the inner one.
    app.add_middleware(QuotaMiddleware, quotas=Quotas(audit, [QUOTA]))
    app.add_middleware(AuditMiddleware, audit=audit, policy=POLICY)
    app.add_route("/-/stats", _stats_of(audit))
    return app


def bare() -> Starlette:
    """Build the application without a trail, to measure what the trail costs."""
    return _application(graphql.view())


async def list_orders(request: Request) -> Response:
    """Read without knowing who asks."""
    return JSONResponse({"count": len(_orders(request))})


async def read_order(request: Request) -> Response:
    """Read one thing: 200 or 404."""
    return JSONResponse(_find_order(request))


async def create_order(request: Request) -> Response:
    """Write: 201, or 400 for a body that is no order."""
    user = _require_user(request)
    try:
        item = str((await request.json())["item"])
    except (ValueError, KeyError, TypeError):
        raise HTTPException(400, "send an item as JSON") from None
    number = next(request.app.state.numbers)
    annotate(
        aggregate=("order", number),
        event_type="order.created",
        message=f"{user} ordered a {item}",
    )
    return JSONResponse({"id": number, "item": item}, status_code=201)


async def cancel_order(request: Request) -> Response:
    """Write with a word of the application's own in the trail."""
    _require_user(request)
    _find_order(request)
    annotate(event_type="order.cancelled", reason=request.query_params.get("reason"))
    return Response(status_code=204)


async def delete_order(request: Request) -> Response:
    """Refuse everybody but administrators: 401, 403 or 204."""
    user = _require_user(request)
    annotate(aggregate=("order", request.path_params["order_id"]), event_type="order.deleted")
    if user not in ADMINISTRATORS:
        raise HTTPException(403, "only administrators delete orders")
    return Response(status_code=204)


async def export(request: Request) -> Response:
    """Stream an answer in pieces."""
    _require_user(request)
    annotate(event_type="orders.exported", level=LogLevel.WARN)
    return StreamingResponse(_lines(20, "1,chair\r\n"), media_type="text/csv")


async def events(_request: Request) -> Response:
    """Send server-sent events, longer than an impatient client stays."""
    return StreamingResponse(_lines(10, "data: tick\n\n", 0.02), media_type="text/event-stream")


async def slow_report(request: Request) -> Response:
    """Work until done, or until the client is gone."""
    for _ in range(10):
        if await request.is_disconnected():
            raise ClientDisconnect
        await asyncio.sleep(0.02)
    return PlainTextResponse(request.path_params["name"])


async def upload(request: Request) -> Response:
    """Take in a body of any kind."""
    return JSONResponse({"bytes": len(await request.body())})


async def read_file(request: Request) -> Response:
    """Answer for any path, whatever bytes it is made of."""
    return PlainTextResponse(str(len(request.path_params["path"])))


async def unavailable(_request: Request) -> Response:
    """Answer with a 5xx of the application's own."""
    return PlainTextResponse("try again later", status_code=503)


async def broken(_request: Request) -> Response:
    """Raise what nobody expected."""
    raise RuntimeError("a defect of the demo's application")


async def echo(websocket: WebSocket) -> None:
    """Send back each frame; refuse who does not say who he is."""
    if _user(websocket) is None:
        await websocket.close()
        return
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())


def _application(graphql_view: Any, *interceptors: Any) -> Starlette:
    @contextlib.asynccontextmanager
    async def serve_grpc(_app: Starlette) -> AsyncIterator[None]:
        async with rpc.serving(*interceptors) as port:
            # The server's own logger, for there is none that shows more.
            logging.getLogger("uvicorn.error").info("gRPC on 127.0.0.1:%d", port)
            yield

    app = Starlette(
        routes=[
            Route("/orders", list_orders),
            Route("/orders", create_order, methods=["POST"]),
            Route("/orders/{order_id:int}", read_order),
            Route("/orders/{order_id:int}", delete_order, methods=["DELETE"]),
            Route("/orders/{order_id:int}/cancel", cancel_order, methods=["POST"]),
            Route("/export", export),
            Route("/events", events),
            Route("/reports/{name}", slow_report),
            Route("/uploads", upload, methods=["POST"]),
            Route("/files/{path:path}", read_file),
            Route("/unavailable", unavailable),
            Route("/broken", broken),
            WebSocketRoute("/echo", echo),
            Route("/graphql", graphql_view),
            WebSocketRoute("/graphql", graphql_view),
        ],
        lifespan=serve_grpc,
    )
    app.state.orders = {number: {"id": number, "item": "chair"} for number in range(1, 101)}
    app.state.numbers = itertools.count(101)
    return app


def _orders(connection: HTTPConnection) -> dict[int, dict[str, Any]]:
    return cast("dict[int, dict[str, Any]]", connection.app.state.orders)


def _find_order(request: Request) -> dict[str, Any]:
    number = request.path_params["order_id"]
    annotate(aggregate=("order", number))
    order = _orders(request).get(number)
    if order is None:
        raise HTTPException(404, f"there is no order {number}")
    return order


def _user(connection: HTTPConnection) -> str | None:
    """Believe the token: this is a demo, and the trail is what it shows."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        return None
    annotate(user_id=token, resource_owner=ORGANISATION)
    return token


def _require_user(request: Request) -> str:
    user = _user(request)
    if user is None:
        raise HTTPException(401, headers={"www-authenticate": "Bearer"})
    return user


async def _lines(count: int, line: str, pause_s: float = 0.0) -> AsyncIterator[str]:
    for _ in range(count):
        yield line
        await asyncio.sleep(pause_s)


def _stats_of(audit: AuditLog) -> Any:
    async def stats(_request: Request) -> Response:
        await audit.flush(FLUSH_TIMEOUT_S)
        stats = audit.stats()
        return JSONResponse(
            {**dataclasses.asdict(stats), "pending": stats.pending, "dropped": stats.dropped}
        )

    return stats
