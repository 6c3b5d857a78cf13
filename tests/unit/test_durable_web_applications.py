"""Rows that are durable before the answer, among the layers of Starlette applications."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from asgi_driver import drive, http_scope, metadata_of, upload
from auditlog import AuditMiddleware, annotate
from auditlog.capture.web.committed import UnauditedError
from durable_trail import DURABLE, OrderedSink


class Between(BaseHTTPMiddleware):
    """A task, and streams of messages, between what is outside and what is inside."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]  # Starlette's


async def plain(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def stream(_request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield "o"
        yield "k"

    return StreamingResponse(parts())


async def broken(_request: Request) -> Response:
    raise RuntimeError("broken")


async def with_task(_request: Request) -> Response:
    return PlainTextResponse("ok", background=BackgroundTask(annotate, message="mail is sent"))


ROUTES = [
    Route("/plain", plain),
    Route("/stream", stream),
    Route("/broken", broken),
    Route("/task", with_task),
]


async def get(app: Any, path: str) -> Any:
    return await drive(app, http_scope(path=path, raw_path=path.encode()), [upload()])


def built(sink: OrderedSink, *layers: Any) -> Starlette:
    """An application with middlewares, the outermost first; None stands for ours."""
    app = Starlette(routes=[*ROUTES, Mount("/mounted", routes=ROUTES)])
    for layer in reversed(layers):
        if layer is None:
            app.add_middleware(AuditMiddleware, audit=sink)
        else:
            app.add_middleware(layer)
    return app


LAYERS = pytest.mark.parametrize(
    "layers",
    [(None,), (None, Between), (Between, None), (None, Between, None), (Between, None, Between)],
    ids=["alone", "outside", "inside", "twice", "in the middle"],
)


@LAYERS
@pytest.mark.parametrize("path", ["/plain", "/stream", "/mounted/plain", "/nothing"])
async def test_answer_is_whole_and_has_its_two_rows(layers: Any, path: str) -> None:
    """Whatever lies around the middleware, and also if it is installed twice."""
    sink = OrderedSink(durability="commit")
    run = await get(built(sink, *layers), path)
    bare = await get(built(sink, *(layer for layer in layers if layer)), path)

    assert (run.sent, run.error) == (bare.sent, None)
    assert sink.events == ["received", DURABLE, "complete", DURABLE]


@LAYERS
@pytest.mark.parametrize("path", ["/plain", "/mounted/plain", "/nothing"])
async def test_answer_that_is_not_audited_is_withheld(layers: Any, path: str) -> None:
    """Its length tells when it is whole, where its end is a message of its own."""
    run = await get(built(OrderedSink(True, False, durability="commit"), *layers), path)

    assert run.error is None
    assert run.sent[0]["status"] == 503
    content = b"".join(message.get("body", b"") for message in run.sent)
    assert content.startswith(b'{"type":"about:blank"')
    assert content.endswith(b"}")


@LAYERS
async def test_stream_that_is_not_audited_is_an_error(layers: Any) -> None:
    """Its end is sent by nobody, but by a BaseHTTPMiddleware outside, which ends what breaks off.

    It does so with any error in a stream, and is documented.
    """
    run = await get(built(OrderedSink(True, False, durability="commit"), *layers), "/stream")
    ends = [message for message in run.sent if not message.get("more_body", True)]

    assert isinstance(run.error, UnauditedError)
    assert len(ends) == (layers[0] is Between)


@LAYERS
async def test_request_that_is_not_announced_is_refused(layers: Any) -> None:
    """Before anything inside runs."""
    sink = OrderedSink(False, durability="commit")
    run = await get(built(sink, *layers), "/broken")

    assert (run.sent[0]["status"], run.error) == (503, None)
    assert sink.stages() == ["received", "complete"]


@LAYERS
@pytest.mark.parametrize("audited", [True, False])
async def test_error_is_answered_when_its_row_is_durable(layers: Any, audited: bool) -> None:
    """By Starlette's outermost layer; or refused, and that layer finds an answer given."""
    run = await get(built(OrderedSink(True, audited, durability="commit"), *layers), "/broken")

    assert isinstance(run.error, RuntimeError)
    assert run.sent[0]["status"] == (500 if audited else 503)
    assert [message["type"] for message in run.sent].count("http.response.start") == 1


async def test_error_that_was_answered_inside_has_a_late_row() -> None:
    """Starlette's outermost layer answers, and raises it again to the middleware around it."""
    sink = OrderedSink(durability="spool")
    app = AuditMiddleware(Starlette(routes=ROUTES), audit=sink)
    run = await get(app, "/broken")
    row, late = sink.row("row"), sink.row("late")

    assert isinstance(run.error, RuntimeError)
    assert (row.response_status, metadata_of(row)["audit.outcome"]) == (500, "server_error")
    assert (late.response_status, metadata_of(late)["error.type"]) == (None, "RuntimeError")


@pytest.mark.parametrize("durability", ["spool", "commit"])
@LAYERS
async def test_background_task_has_a_late_row(layers: Any, durability: str) -> None:
    """It says what came after the answer."""
    sink = OrderedSink(durability=durability)
    await get(built(sink, *layers), "/task")

    assert sink.stages()[-1] == "late"
    assert sink.row("late").message == "mail is sent"
