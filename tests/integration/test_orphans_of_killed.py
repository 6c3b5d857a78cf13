"""A served application that is killed, or stopped: what its open requests leave in the trail."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import websockets.sync.client

from auditlog.query.orphans import find_orphans
from trail import rows

APPLICATION = """
import asyncio

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from auditlog import AuditLog, AuditMiddleware, Level, Policy, Rule


async def quick(request):
    return PlainTextResponse("done")


async def events(request):
    async def stream():
        yield "data: first\\n\\n"
        if "short" not in request.query_params:
            await asyncio.Event().wait()
    return StreamingResponse(stream(), media_type="text/event-stream")


async def socket(websocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


routes = [Route("/quick", quick), Route("/events/{n}", events), WebSocketRoute("/ws/{n}", socket)]
app = Starlette(routes=routes)
policy = Policy([Rule(name="all", level=Level.METADATA, received=True)])
app.add_middleware(AuditMiddleware, audit=AuditLog(), policy=policy)
"""
OPEN = ["/events/1", "/events/2", "/events/3", "/ws/1", "/ws/2"]


@pytest.fixture
def served(any_dsn: str, tmp_path: Path) -> Iterator[tuple[str, int, "subprocess.Popen[bytes]"]]:
    """A DSN, the port of a uvicorn that audits to it, and its process."""
    (tmp_path / "application.py").write_text(APPLICATION)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    command = f"uvicorn application:app --port {port} --no-access-log --timeout-graceful-shutdown 1"
    environment = {**os.environ, "AUDITLOG_DSN": any_dsn, "AUDITLOG_BATCH_AGE_S": "0.02"}
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _until(lambda: _answers(port))
        yield any_dsn, port, process
    finally:
        process.kill()
        process.wait(20)


def test_exactly_the_open_requests_of_a_killed_process_are_orphans(
    served: tuple[str, int, "subprocess.Popen[bytes]"],
) -> None:
    """Streams and WebSockets in the middle; those that had ended are none.

    Before the kill the same rows are there: the trail cannot tell an open one from a dead one.
    """
    dsn, port, process = served
    with _clients(port):
        _until(lambda: _open(dsn) == OPEN)
        process.kill()
        assert process.wait(20) == -signal.SIGKILL
    assert _open(dsn) == OPEN
    stages = [row["metadata"]["audit.stage"] for row in rows(dsn)]
    ended = len(["/quick", "/events/9?short=1", "/ws/9"])
    assert (stages.count("received"), stages.count("complete")) == (len(OPEN) + ended, ended)


def test_process_that_is_stopped_leaves_no_orphan(
    served: tuple[str, int, "subprocess.Popen[bytes]"],
) -> None:
    """What it cuts off has a complete row that says so."""
    dsn, port, process = served
    with _clients(port):
        _until(lambda: _open(dsn) == OPEN)
        process.terminate()
        process.wait(30)
    assert _open(dsn) == []
    outcomes = {
        row["request_url"]: row["metadata"]["audit.outcome"]
        for row in rows(dsn)
        if row["metadata"]["audit.stage"] == "complete" and row["request_url"] in OPEN
    }
    assert outcomes == dict.fromkeys(OPEN, "cancelled")


@contextmanager
def _clients(port: int) -> Iterator[None]:
    """Requests that end, and others that are left in the middle of what they get."""
    with ExitStack() as stack:
        for path in ("/quick", "/events/9?short=1"):
            assert _get(port, path, stack).read()
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/ws/9") as client:
            client.send("ended")
            assert client.recv(20) == "ended"
        for path in OPEN:
            if path.startswith("/ws"):
                url = f"ws://127.0.0.1:{port}{path}"
                connecting = websockets.sync.client.connect(url, close_timeout=0.1)
                client = stack.enter_context(connecting)
                client.send("open")
                assert client.recv(20) == "open"
            else:
                assert _get(port, path, stack).readline() == b"data: first\n"
        yield


def _get(port: int, path: str, stack: ExitStack) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    stack.callback(connection.close)
    connection.request("GET", path)
    response = connection.getresponse()
    stack.callback(response.close)
    return response


def _open(dsn: str) -> list[str]:
    """The URLs of received rows without an end; order is nobody's business here."""
    with psycopg.connect(dsn) as conn:
        found = find_orphans(
            conn, since=timedelta(days=1), older_than=timedelta(0), limit=100, tenant="default"
        )
    return sorted(str(orphan.record.request_url) for orphan in found)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
