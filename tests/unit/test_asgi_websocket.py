import asyncio
import sys
from typing import Any

import pytest

from asgi_driver import audited, drive, metadata_of, only, row_of, script, websocket_scope
from auditlog import LogLevel, annotate
from auditlog.testing import MemorySink

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
ERROR = RuntimeError("no")
DENIAL = {"type": "websocket.http.response.start", "headers": []}
DENIAL_BODY = {"type": "websocket.http.response.body", "body": b"no"}


class WebSocketDisconnect(Exception):  # noqa: N818  # Starlette's name for it
    pass


def close(code: Any = ..., **more: Any) -> dict[str, Any]:
    """The application closes; `...` leaves the code out."""
    return {"type": "websocket.close", **({} if code is ... else {"code": code}), **more}


def left(code: Any = ..., **more: Any) -> dict[str, Any]:
    """The server says that the connection is over."""
    return {**close(code, **more), "type": "websocket.disconnect"}


# What the application does, what comes in after the connect → status, source, outcome, level,
# close code, closed by, error.type
ENDINGS: dict[str, tuple[Any, list[Any], tuple[Any, ...]]] = {
    "client closes": (
        script(..., ACCEPT, ...),
        [left(1000)],
        (101, "wire", "ok", LogLevel.INFO, 1000, "client", None),
    ),
    "client goes away": (
        script(..., ACCEPT, ...),
        [left(1001)],
        (101, "wire", "ok", LogLevel.INFO, 1001, "client", None),
    ),
    "client names no code": (
        script(..., ACCEPT, ...),
        [left(1005)],
        (101, "wire", "ok", LogLevel.INFO, 1005, "client", None),
    ),
    "server tells no code": (
        script(..., ACCEPT, ...),
        [left()],
        (101, "wire", "ok", LogLevel.INFO, 1005, "client", None),
    ),
    "server tells None": (
        script(..., ACCEPT, ...),
        [left(None)],
        (101, "wire", "ok", LogLevel.INFO, 1005, "client", None),
    ),
    "client vanishes": (
        script(..., ACCEPT, ...),
        [left(1006)],
        (101, "wire", "client_disconnect", LogLevel.WARN, 1006, "client", None),
    ),
    "client breaks the protocol": (
        script(..., ACCEPT, ...),
        [left(1002)],
        (101, "wire", "client_error", LogLevel.WARN, 1002, "client", None),
    ),
    "client has a code of its own": (
        script(..., ACCEPT, ...),
        [left(4999)],
        (101, "wire", "unknown", LogLevel.WARN, 4999, "client", None),
    ),
    "server restarts": (
        script(..., ACCEPT, ...),
        [left(1012)],
        (101, "wire", "cancelled", LogLevel.WARN, 1012, "server", None),
    ),
    "application hears by exception": (
        script(..., ACCEPT, ..., WebSocketDisconnect()),
        [left(1001)],
        (101, "wire", "ok", LogLevel.INFO, 1001, "client", None),
    ),
    "application breaks after the close": (
        script(..., ACCEPT, ..., ERROR),
        [left(1000)],
        (101, "wire", "ok", LogLevel.ERROR, 1000, "client", "RuntimeError"),
    ),
    "application closes": (
        script(..., ACCEPT, close(1000)),
        [],
        (101, "wire", "ok", LogLevel.INFO, 1000, "server", None),
    ),
    "application names no code": (
        script(..., ACCEPT, close()),
        [],
        (101, "wire", "ok", LogLevel.INFO, 1000, "server", None),
    ),
    "application forbids": (
        script(..., ACCEPT, close(1008)),
        [],
        (101, "wire", "denied", LogLevel.WARN, 1008, "server", None),
    ),
    "application wants credentials": (
        script(..., ACCEPT, close(3000)),
        [],
        (101, "wire", "denied", LogLevel.WARN, 3000, "server", None),
    ),
    "application fails in order": (
        script(..., ACCEPT, close(1011)),
        [],
        (101, "wire", "server_error", LogLevel.ERROR, 1011, "server", None),
    ),
    "both close, the application first": (
        script(..., ACCEPT, close(1000), ...),
        [left(1006)],
        (101, "wire", "ok", LogLevel.INFO, 1000, "server", None),
    ),
    "application raises": (
        script(..., ACCEPT, ERROR),
        [],
        (101, "wire", "server_error", LogLevel.ERROR, None, None, "RuntimeError"),
    ),
    "application raises a disconnect of its own": (
        script(..., ACCEPT, WebSocketDisconnect()),
        [],
        (101, "wire", "server_error", LogLevel.ERROR, None, None, "WebSocketDisconnect"),
    ),
    "application is cancelled": (
        script(..., ACCEPT, asyncio.CancelledError()),
        [],
        (101, "wire", "cancelled", LogLevel.WARN, None, None, "CancelledError"),
    ),
    "application returns": (
        script(..., ACCEPT),
        [],
        (101, "wire", "incomplete", LogLevel.ERROR, None, None, None),
    ),
    "application refuses": (
        script(..., close(1008)),
        [],
        (403, "derived", "denied", LogLevel.WARN, 1008, "server", None),
    ),
    "application refuses and listens on": (
        script(..., close(), ...),
        [left(1006)],
        (403, "derived", "denied", LogLevel.WARN, 1000, "server", None),
    ),
    "application denies with a response": (
        script(..., {**DENIAL, "status": 401}, DENIAL_BODY),
        [],
        (401, "wire", "denied", LogLevel.WARN, None, None, None),
    ),
    "application denies with a strange status": (
        script(..., {**DENIAL, "status": "429"}, DENIAL_BODY),
        [],
        (429, "wire", "client_error", LogLevel.WARN, None, None, None),
    ),
    "application denies with a broken status": (
        script(..., {**DENIAL, "status": []}, DENIAL_BODY),
        [],
        (500, "derived", "server_error", LogLevel.ERROR, None, None, None),
    ),
    "application raises before it accepts": (
        script(..., ERROR),
        [],
        (500, "derived", "server_error", LogLevel.ERROR, None, None, "RuntimeError"),
    ),
    "application never accepts": (
        script(...),
        [],
        (500, "derived", "server_error", LogLevel.ERROR, None, None, None),
    ),
    "application is cancelled before it accepts": (
        script(..., asyncio.CancelledError()),
        [],
        (None, "none", "cancelled", LogLevel.WARN, None, None, "CancelledError"),
    ),
    "client leaves before": (
        script(..., ...),
        [left(1006)],
        (None, "none", "client_disconnect", LogLevel.WARN, 1006, "client", None),
    ),
    "server restarts before": (
        script(..., ...),
        [left(1012)],
        (None, "none", "client_disconnect", LogLevel.WARN, 1012, "client", None),
    ),
}


@pytest.mark.parametrize(("app", "incoming", "expected"), ENDINGS.values(), ids=ENDINGS)
async def test_row_tells_how_the_connection_ended(
    app: Any, incoming: list[Any], expected: tuple[Any, ...]
) -> None:
    """The status is the handshake's, the outcome the close code's, or that of its lack."""
    record = await row_of(app, websocket_scope(), [CONNECT, *incoming])
    metadata = metadata_of(record)

    assert expected == (
        record.response_status,
        metadata["audit.status_source"],
        metadata["audit.outcome"],
        record.log_level,
        metadata.get("websocket.close_code"),
        metadata.get("websocket.closed_by"),
        metadata.get("error.type"),
    )


async def test_handshake_is_a_get_of_http() -> None:
    """One row per connection, of the same protocol as requests."""
    record = await row_of(script(..., ACCEPT, close()), websocket_scope(), [CONNECT])

    assert (record.request_method, record.protocol, record.request_url) == ("GET", 1, "/ws")


async def test_frames_and_bytes_are_counted_in_both_directions() -> None:
    """Text in UTF-8, as it is on the wire."""

    def received(**content: Any) -> dict[str, Any]:
        return {"type": "websocket.receive", **content}

    def sent(**content: Any) -> dict[str, Any]:
        return {"type": "websocket.send", **content}

    incoming = [received(text="hé"), received(bytes=b"1234"), received(text=None, bytes=b"")]
    outgoing = [sent(text="abc"), sent(bytes=b"\xff", text=None), sent(text="\ud800")]
    app = script(..., {**ACCEPT, "subprotocol": "chat"}, ..., ..., ..., *outgoing, close())
    metadata = metadata_of(await row_of(app, websocket_scope(), [CONNECT, *incoming]))

    assert {
        key: metadata[key]
        for key in metadata
        if key.startswith(("websocket.frames", "websocket.bytes", "websocket.sub"))
    } == {
        "websocket.frames_in": 3,
        "websocket.bytes_in": 7,
        "websocket.frames_out": 3,
        "websocket.bytes_out": 5,
        "websocket.subprotocol": "chat",
    }


async def test_refused_handshake_has_no_counters() -> None:
    """There was no WebSocket."""
    record = await row_of(script(..., close()), websocket_scope(), [CONNECT])

    assert not [key for key in metadata_of(record) if "frames" in key or "bytes" in key]


async def test_reason_is_kept_and_bounded() -> None:
    """The protocol allows 123 bytes; a server may let more pass."""
    app = script(..., ACCEPT, close(4000, reason="é" * 500))
    metadata = metadata_of(await row_of(app, websocket_scope(), [CONNECT]))

    assert metadata["websocket.close_reason"] == "é" * 128


@pytest.mark.parametrize("reason", [None, "", b"bytes", 7])
async def test_reason_that_is_none_is_left_out(reason: Any) -> None:
    """Servers send None or an empty string."""
    app = script(..., ACCEPT, ...)
    incoming = [CONNECT, left(1000, reason=reason)]
    metadata = metadata_of(await row_of(app, websocket_scope(), incoming))

    assert "websocket.close_reason" not in metadata


async def test_send_that_raises_oserror_is_a_client_that_left() -> None:
    """Uvicorn's ClientDisconnected is one."""

    def refuse(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise ConnectionResetError

    app = script(..., ACCEPT, {"type": "websocket.send", "text": "abc"})
    record = await row_of(app, websocket_scope(), [CONNECT], refuse=refuse)
    metadata = metadata_of(record)

    assert (metadata["audit.outcome"], metadata["websocket.close_code"]) == (
        "client_disconnect",
        1006,
    )
    assert metadata["websocket.frames_out"] == 0


@pytest.mark.parametrize("content", [{"text": 5}, {"bytes": 5}, {"text": [1]}, {}])
async def test_frame_that_is_none_passes_and_the_row_stands(content: dict[str, Any]) -> None:
    """The server judges it, not the middleware."""
    frame = {"type": "websocket.send", **content}
    middleware, sink = audited(script(..., ACCEPT, frame, close()))
    run = await drive(middleware, websocket_scope(), [CONNECT])

    assert (run.sent, run.error) == ([ACCEPT, frame, close()], None)
    assert metadata_of(only(sink))["websocket.frames_out"] == 1


@pytest.mark.parametrize("message", [None, 5, "websocket.accept", [], {}, {"type": None}])
async def test_message_that_is_none_passes_and_the_row_stands(message: Any) -> None:
    """In both directions."""
    middleware, sink = audited(script(..., message, ACCEPT, ..., close()))
    run = await drive(middleware, websocket_scope(), [CONNECT, message])

    assert (run.sent, run.error) == ([message, ACCEPT, close()], None)
    assert metadata_of(only(sink))["audit.outcome"] == "ok"


async def test_annotations_reach_the_row_from_within_the_connection() -> None:
    """Also after hours: the holder is the connection's."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        annotate(user_id="7", event_type="chat.joined")
        await send(close())

    record = await row_of(app, websocket_scope(), [CONNECT])

    assert (record.user_id, record.event_type) == ("7", "chat.joined")


async def test_memory_of_a_connection_does_not_grow_with_its_frames() -> None:
    """Counters, not lists: what an exchange holds after many frames is what it held after one."""
    sizes: list[int] = []

    def held(exchange: Any) -> int:
        values = [
            getattr(exchange, name)
            for kind in type(exchange).__mro__[:-1]
            for name in kind.__slots__
            if hasattr(exchange, name)
        ]
        return sum(sys.getsizeof(value) for value in values if not callable(value))

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        exchange = receive.__self__
        await receive()
        await send(ACCEPT)
        for count in (1, 10_000):
            for _ in range(count):
                await receive()
                await send({"type": "websocket.send", "bytes": b"x" * 100})
            sizes.append(held(exchange))
        await send(close())

    frames = [{"type": "websocket.receive", "text": "y" * 100}] * 10_001
    sink = MemorySink()
    middleware, _ = audited(app, sink)
    await drive(middleware, websocket_scope(), [CONNECT, *frames])

    assert metadata_of(only(sink))["websocket.frames_in"] == 10_001
    assert sizes[1] - sizes[0] < 64  # an integer may need another digit
