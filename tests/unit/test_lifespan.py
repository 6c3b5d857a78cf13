import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_driver import Run, audited, drive, only
from auditlog import AuditMiddleware
from auditlog.testing import MemorySink

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
COMPLETE = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}
SCOPE = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


class Diary(MemorySink):
    """Writes down, with the others, what happens to the log."""

    def __init__(self, entries: list[str]) -> None:
        super().__init__()
        self.entries = entries

    async def start(self) -> None:
        self.entries.append("log starts")

    async def aclose(self) -> None:
        self.entries.append("log drains")


async def live(app: Any, sink: MemorySink, incoming: Iterable[Any] = (STARTUP, SHUTDOWN)) -> Run:
    """One lifespan, with what the server hears in the diary, if it is one."""

    def note(message: Any) -> None:
        if isinstance(sink, Diary):
            sink.entries.append(message["type"])

    middleware, _ = audited(app, sink)
    return await drive(middleware, dict(SCOPE), incoming, refuse=note)


def diarist(entries: list[str], *, fail: str = "") -> Any:
    """An application with a lifespan, which fails where it is told to."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for act in ("startup", "shutdown"):
            await receive()
            entries.append(f"application hears of {act}")
            if fail == act:
                await send({"type": f"lifespan.{act}.failed", "message": "no"})
                return
            await send({"type": f"lifespan.{act}.complete"})

    return app


async def test_log_starts_before_the_application_and_drains_after_it() -> None:
    """What happens in the application's own startup and shutdown can be recorded too."""
    entries: list[str] = []
    run = await live(diarist(entries), Diary(entries))

    assert run.sent == [COMPLETE, STOPPED]
    assert entries == [
        "log starts",
        "application hears of startup",
        "lifespan.startup.complete",
        "application hears of shutdown",
        "log drains",
        "lifespan.shutdown.complete",
    ]


async def test_log_is_drained_before_a_failed_startup_ends_the_server() -> None:
    """Servers exit at that message."""
    entries: list[str] = []
    await live(diarist(entries, fail="startup"), Diary(entries))

    assert entries[-2:] == ["log drains", "lifespan.startup.failed"]


async def test_log_is_drained_before_a_failed_shutdown() -> None:
    """Likewise."""
    entries: list[str] = []
    await live(diarist(entries, fail="shutdown"), Diary(entries))

    assert entries[-2:] == ["log drains", "lifespan.shutdown.failed"]


async def refuse(scope: Any, _receive: Any, _send: Any) -> None:
    """As Django does."""
    raise ValueError(f"can only handle HTTP, not {scope['type']}")


async def ignore(_scope: Any, _receive: Any, _send: Any) -> None:
    """As hand-written applications do."""


@pytest.mark.parametrize("app", [refuse, ignore])
async def test_application_without_a_lifespan_gets_the_log_drained(app: Any) -> None:
    """The server is told that there is a lifespan, so that it waits at the end."""
    entries: list[str] = []
    run = await live(app, Diary(entries))

    assert (run.sent, run.error) == ([COMPLETE, STOPPED], None)
    assert entries == [
        "log starts",
        "lifespan.startup.complete",
        "log drains",
        "lifespan.shutdown.complete",
    ]


class Unprintable(Exception):  # noqa: N818  # an application's name
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("error", [RuntimeError("no database"), Unprintable(), OSError()])
async def test_application_that_cannot_start_is_not_answered_for(error: Exception) -> None:
    """Its exception is no answer to the lifespan, and the server has to see it."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    run = await live(app, MemorySink())

    assert (run.sent, run.error) == ([], error)


@pytest.mark.parametrize("error", [AssertionError(), KeyError("path"), NotImplementedError()])
async def test_usual_refusals_are_answered_for(error: Exception) -> None:
    """What hand-written applications raise at a scope that they do not know."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        raise error

    run = await live(app, MemorySink())

    assert (run.sent, run.error) == ([COMPLETE, STOPPED], None)


async def test_refusal_of_the_lifespan_is_not_silent(caplog: pytest.LogCaptureFixture) -> None:
    """The exception that a server would have shown is named, at level INFO."""
    with caplog.at_level(logging.INFO, "auditlog"):
        await live(refuse, MemorySink())

    assert [each[:2] for each in caplog.record_tuples] == [("auditlog", logging.INFO)]
    assert "lifespan_answered: the application refuses the lifespan scope (ValueError)" in (
        caplog.text
    )


async def test_cancelled_lifespan_drains_the_log() -> None:
    """Whoever answers it: a server that dies sends no shutdown."""
    sink = MemorySink()
    started = asyncio.Event()

    async def send(_message: Any) -> None:
        started.set()

    incoming = iter([STARTUP])

    async def receive() -> Any:
        for message in incoming:
            return message
        return await asyncio.Event().wait()

    middleware, _ = audited(refuse, sink)
    task = asyncio.create_task(middleware(dict(SCOPE), receive, send))
    await started.wait()
    assert sink.starts == 1
    task.cancel()
    await asyncio.wait({task})

    assert (task.cancelled(), sink.starts) == (True, 0)


class Broken(MemorySink):
    """A log that can neither be started nor drained."""

    async def start(self) -> None:
        raise ZeroDivisionError("hunter2")

    aclose = start


@pytest.mark.parametrize("app", [diarist([]), refuse])
async def test_broken_log_does_not_stop_the_application(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts and stops as it would, and the log says what is wrong."""
    run = await live(app, Broken())

    assert (run.sent, run.error) == ([COMPLETE, STOPPED], None)
    assert "lifespan_failed" in caplog.text
    assert "hunter2" not in caplog.text


async def test_two_applications_share_a_log() -> None:
    """The last one drains it: starts are counted."""
    sink = MemorySink()
    first, _ = audited(diarist([]), sink)
    second, _ = audited(diarist([]), sink)
    started: list[int] = []

    def note(_message: Any) -> None:
        started.append(sink.starts)

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await first(scope, receive, send)

    await drive(both, dict(SCOPE), [STARTUP, SHUTDOWN], refuse=note)
    await drive(second, dict(SCOPE), [STARTUP, SHUTDOWN], refuse=note)

    assert started == [1, 0, 1, 0]


async def test_installed_twice_starts_and_drains_as_often() -> None:
    """Each of the two counts for itself."""
    sink = MemorySink()
    inner, _ = audited(diarist([]), sink)
    run = await live(inner, sink)

    assert (run.sent, sink.starts) == ([COMPLETE, STOPPED], 0)


def starlette_application(sink: MemorySink) -> Starlette:
    """With state that its lifespan makes and a handler uses."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"answer": "42"}

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(getattr(request.state, "answer", "none"))

    app = Starlette(routes=[Route("/", answer)], lifespan=lifespan)
    app.add_middleware(AuditMiddleware, audit=sink)
    return app


def test_state_of_the_lifespan_reaches_the_handlers() -> None:
    """The scope's `state` is the server's and the application's."""
    sink = MemorySink()
    with TestClient(starlette_application(sink)) as client:
        assert sink.starts == 1
        assert client.get("/").text == "42"

    assert sink.starts == 0
    only(sink)


async def test_application_is_recorded_where_nobody_sends_a_lifespan() -> None:
    """As under httpx's ASGITransport."""
    sink = MemorySink()
    transport = httpx.ASGITransport(app=starlette_application(sink))
    async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
        assert (await client.get("/")).text == "none"

    assert sink.starts == 0
    only(sink)
