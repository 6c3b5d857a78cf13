"""Drives an ASGI application without a server: messages go in, what happens comes out."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from auditlog import AuditMiddleware, LogRecord
from auditlog.testing import MemorySink
from tuples import encoded

START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b""}


@dataclass
class Run:
    """What came of one call of an application."""

    sent: list[Any] = field(default_factory=list)
    error: BaseException | None = None


def http_scope(**changes: Any) -> dict[str, Any]:
    """The scope of a plain GET, as uvicorn makes it; a value of `...` leaves the key out."""
    return _changed(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/orders/42",
            "raw_path": b"/orders/42",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"example.org")],
            "client": ("192.0.2.7", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        },
        changes,
    )


def websocket_scope(**changes: Any) -> dict[str, Any]:
    """The scope of a WebSocket's handshake."""
    scope = http_scope(type="websocket", scheme="ws", path="/ws", raw_path=b"/ws", method=...)
    return _changed({**scope, "subprotocols": []}, changes)


async def drive(
    app: Any, scope: Mapping[str, Any], incoming: Iterable[Any] = (), *, refuse: Any = None
) -> Run:
    """Call an application; after the last message that is coming in, `receive` waits for ever.

    Args:
        app: The application.
        scope: Given as it is.
        incoming: Messages in their order; an exception among them is raised.
        refuse: Called with every message sent, before it counts; may raise.
    """
    run = Run()
    messages = iter(incoming)

    async def receive() -> Any:
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            return message
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        if refuse is not None:
            refuse(message)
        run.sent.append(message)

    try:
        await app(scope, receive, send)
    except BaseException as error:  # noqa: BLE001  # CancelledError and SystemExit too
        run.error = error
    return run


def audited(app: Any, sink: MemorySink | None = None, **options: Any) -> tuple[Any, MemorySink]:
    """An application with the middleware around it, and where the records go."""
    sink = sink or MemorySink()
    return AuditMiddleware(app, audit=sink, **options), sink


async def row_of(
    app: Any,
    scope: Mapping[str, Any] | None = None,
    incoming: Iterable[Any] = (),
    *,
    sink: MemorySink | None = None,
    refuse: Any = None,
    **options: Any,
) -> LogRecord:
    """The one record that one call leaves."""
    middleware, sink = audited(app, sink, **options)
    await drive(middleware, http_scope() if scope is None else scope, incoming, refuse=refuse)
    return only(sink)


def only(sink: MemorySink) -> LogRecord:
    """The one record there is; it can be stored, and nothing went wrong on the way."""
    assert sink.errors == []
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    encoded(record)
    return record


def metadata_of(record: LogRecord) -> dict[str, Any]:
    """The metadata as they are stored."""
    metadata = encoded(record)["metadata"]
    assert isinstance(metadata, dict)
    return metadata


def script(*steps: Any) -> Any:
    """An application that sends each dict, raises each exception, and receives for each `...`."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            if step is ...:
                await receive()
            elif isinstance(step, BaseException):
                raise step
            else:
                await send(step)

    return app


def start(status: Any = 200, **more: Any) -> dict[str, Any]:
    """The start of a response."""
    return {"type": "http.response.start", "status": status, "headers": [], **more}


def body(content: Any = b"", **more: Any) -> dict[str, Any]:
    """A part of a response's body."""
    return {"type": "http.response.body", "body": content, **more}


def upload(content: bytes = b"", *, more_body: bool = False) -> dict[str, Any]:
    """A part of a request's body."""
    return {"type": "http.request", "body": content, "more_body": more_body}


def _changed(scope: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**scope, **changes}.items() if value is not ...}
