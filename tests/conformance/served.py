"""The application that every server serves: raw ASGI handlers by path, and a Starlette one.

A handler that meets `_gate` says that it is there and waits until a client lets it go on; what is
under `/-/` does that, and waits for the rows of a request to be written.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from auditlog import AuditLog, AuditMiddleware, Level, Outcome, Policy, Rule
from auditlog.records import Record
from auditlog.ticket import Ticket

TIMEOUT_S = 15.0
BACKGROUND_S = 0.4
Handler = Callable[[Any, Any, Any], Awaitable[None]]


class Trail(AuditLog):
    """An `AuditLog` that tells for which requests it has taken records."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.taken: dict[str, int] = defaultdict(int)
        self._news = asyncio.Event()

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        outcome = super().submit(record, ticket)
        metadata = record.metadata or {}  # type: ignore[union-attr]
        self.taken[metadata.get("audit.request_id", "")] += 1
        self._news.set()
        return outcome

    async def wait_for(self, request_id: str, count: int) -> None:
        """Return when that many of its rows are in the database."""
        while self.taken[request_id] < count:
            self._news.clear()
            await self._news.wait()
        assert await self.flush(TIMEOUT_S)


_trail = Trail(os.environ["AUDITLOG_DSN"])
_reached: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
_released: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


async def _gate(scope: Any) -> None:
    request_id = _id_of(scope)
    _reached[request_id].set()
    await _released[request_id].wait()


def _id_of(scope: Any) -> str:
    return str(dict(scope["headers"]).get(b"x-request-id", b"").decode())


def _query(scope: Any) -> dict[str, str]:
    return dict(parse_qsl((scope.get("query_string") or b"").decode("latin-1")))


async def _answer(send: Any, status: int = 200, content: bytes = b"ok", *headers: Any) -> None:
    headers = (*headers, (b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": content})


async def _upload(receive: Any) -> bytes | None:
    """The whole body; None if the client left."""
    content = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        content += message.get("body", b"")
        if not message.get("more_body"):
            return content


async def read(_scope: Any, _receive: Any, send: Any) -> None:
    await _answer(send)


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    content = await _upload(receive)
    if content is not None:
        await _answer(send, 200, content)


async def answer_status(scope: Any, _receive: Any, send: Any) -> None:
    status = int(_query(scope)["status"])
    if status in {204, 304}:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})
    else:
        await _answer(send, status)


async def cookies(_scope: Any, _receive: Any, send: Any) -> None:
    await _answer(send, 200, b"ok", (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"))


async def raise_before(_scope: Any, _receive: Any, _send: Any) -> None:
    raise RuntimeError("before")


async def raise_after_start(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("after start")


async def raise_in_body(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise RuntimeError("in body")


async def raise_after_body(_scope: Any, _receive: Any, send: Any) -> None:
    await _answer(send)
    raise RuntimeError("after body")


async def stop_in_body(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})


async def never_answer(_scope: Any, _receive: Any, _send: Any) -> None:
    pass


async def wait_for_disconnect(scope: Any, receive: Any, _send: Any) -> None:
    _reached[_id_of(scope)].set()
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer_when_told(scope: Any, _receive: Any, send: Any) -> None:
    await _gate(scope)
    await _answer(send)


async def answer_after_disconnect(scope: Any, receive: Any, send: Any) -> None:
    await wait_for_disconnect(scope, receive, send)
    await _answer(send)


async def stream(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one", b"two", b"three"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def send_path(scope: Any, _receive: Any, send: Any) -> None:
    if "http.response.pathsend" not in (scope.get("extensions") or {}):
        await _answer(send, 501)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.pathsend", "path": __file__})


async def send_trailers(scope: Any, _receive: Any, send: Any) -> None:
    if "http.response.trailers" not in (scope.get("extensions") or {}):
        await _answer(send, 501)
        return
    start = {"type": "http.response.start", "status": 200, "trailers": True}
    await send({**start, "headers": [(b"trailer", b"x-end")]})
    await send({"type": "http.response.body", "body": b"ok"})
    await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})


async def describe(scope: Any, _receive: Any, send: Any) -> None:
    """What the server tells an application about a request."""
    told = [
        scope["asgi"].get("spec_version"),
        sorted(scope.get("extensions") or {}),
        scope.get("client"),
        type(scope["headers"]).__name__,
        scope.get("raw_path"),
    ]
    await _answer(send, 200, repr(told).encode())


async def echo_frames(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    offered = scope.get("subprotocols") or [None]
    await send({"type": "websocket.accept", "subprotocol": offered[0]})
    while (message := await receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        answer = {"text": text} if text is not None else {"bytes": data}
        await send({"type": "websocket.send", **answer})


async def close_frames(scope: Any, receive: Any, send: Any) -> None:
    query = _query(scope)
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "good-bye"})
    reason = query.get("reason")
    await send({"type": "websocket.close", "code": int(query["code"]), "reason": reason})


async def refuse_frames(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1000})


async def deny_frames(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    headers = [(b"content-length", b"2")]
    await send({"type": "websocket.http.response.start", "status": 429, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def raise_before_accept(_scope: Any, receive: Any, _send: Any) -> None:
    await receive()
    raise RuntimeError("before accept")


async def raise_after_accept(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "good-bye"})
    raise RuntimeError("after accept")


async def return_before_accept(_scope: Any, receive: Any, _send: Any) -> None:
    await receive()


async def return_after_accept(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "good-bye"})


_HANDLERS: dict[str, Handler] = {
    "/read": read,
    "/echo": echo,
    "/status": answer_status,
    "/cookies": cookies,
    "/raise-before": raise_before,
    "/raise-after-start": raise_after_start,
    "/raise-in-body": raise_in_body,
    "/raise-after-body": raise_after_body,
    "/stop-in-body": stop_in_body,
    "/never": never_answer,
    "/hang": wait_for_disconnect,
    "/deaf": answer_when_told,
    "/late": answer_after_disconnect,
    "/stream": stream,
    "/pathsend": send_path,
    "/trailers": send_trailers,
    "/describe": describe,
    "/ws/echo": echo_frames,
    "/ws/close": close_frames,
    "/ws/refuse": refuse_frames,
    "/ws/deny": deny_frames,
    "/ws/raise-before": raise_before_accept,
    "/ws/raise-after": raise_after_accept,
    "/ws/return-before": return_before_accept,
    "/ws/return-after": return_after_accept,
}


async def _item(request: Request) -> Response:
    return PlainTextResponse(request.path_params["item_id"])


async def _broken(_request: Request) -> Response:
    raise RuntimeError("broken")


async def _receive_form(request: Request) -> Response:
    _reached[_id_of(request.scope)].set()
    return PlainTextResponse(str(len(await request.body())))


async def _poll(request: Request) -> Response:
    _reached[_id_of(request.scope)].set()
    while not await request.is_disconnected():  # noqa: ASYNC110  # polling is the point
        await asyncio.sleep(0.005)
    return PlainTextResponse("too late")


async def _events(_request: Request) -> Response:
    return StreamingResponse(_ticks(), media_type="text/event-stream")


async def _ticks() -> AsyncIterator[str]:
    while True:
        yield "data: tick\n\n"
        await asyncio.sleep(0.005)


async def _with_background(_request: Request) -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(asyncio.sleep, BACKGROUND_S))


async def _room(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


_starlette = Starlette(
    routes=[
        Mount(
            "/starlette",
            routes=[
                Route("/items/{item_id}", _item),
                Route("/broken", _broken),
                Route("/form", _receive_form, methods=["POST"]),
                Route("/events", _events),
                Route("/poll", _poll),
                Route("/background", _with_background),
                WebSocketRoute("/rooms/{room}", _room),
            ],
        )
    ]
)


async def _control(scope: Any, _receive: Any, send: Any) -> None:
    _, _, command, request_id, *rest = scope["path"].split("/")
    async with asyncio.timeout(TIMEOUT_S):
        if command == "reached":
            await _reached[request_id].wait()
        elif command == "release":
            _released[request_id].set()
        elif command == "wait":
            await _trail.wait_for(request_id, int(rest[0]))
    await _answer(send)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    path = scope.get("path", "")
    if scope["type"] == "lifespan" or path.startswith("/starlette"):
        handler: Handler = _starlette
    elif path.startswith("/-/"):
        handler = _control
    else:
        handler = _HANDLERS.get(path, read if scope["type"] == "http" else refuse_frames)
    await handler(scope, receive, send)


app = AuditMiddleware(
    bare,
    audit=_trail,
    policy=Policy((Rule(name="control", paths=("/-/**",), level=Level.NONE),)),
)
