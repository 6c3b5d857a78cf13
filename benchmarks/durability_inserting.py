"""What people do without a library: the application commits an audit row itself, before it answers.

    python -m benchmarks.durability_inserting

The server under load, in a process of its own: one uvicorn worker, the application that all
benchmarks have, and around it a middleware that inserts into the same table, with the same indexes,
through psycopg's pool, one transaction a request. It is controlled as `serve.py` is. The database
is the one of `AUDITLOG_DSN`.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
import uuid_utils
import uvicorn
from psycopg_pool import AsyncConnectionPool

from auditlog.tables import LOGS
from benchmarks.workload import application

POOL_SIZE = 16
"""Four times the pool's default, which would be the bottleneck."""
COLUMNS = (
    "instance_id",
    "log_id",
    "protocol",
    "request_url",
    "request_method",
    "request_headers",
    "response_status",
    "response_time_ms",
    "metadata",
)
_INSERT = f"""
    INSERT INTO {LOGS.qualified_name} ({", ".join(COLUMNS)})
    VALUES ({", ".join(["%s"] * len(COLUMNS))})
"""  # noqa: S608  # constants

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class InsertingMiddleware:
    """Commits a row when the answer begins, and passes the answer on when that is done."""

    def __init__(self, app: Callable[..., Awaitable[None]], dsn: str) -> None:
        self._app = app
        self._pool = AsyncConnectionPool(dsn, min_size=POOL_SIZE, max_size=POOL_SIZE, open=False)

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._pool.open()  # does nothing when it is open
        started_ns = time.perf_counter_ns()

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._insert(_row(scope, message["status"], started_ns))
            await send(message)

        await self._app(scope, receive, send_recorded)

    async def _insert(self, row: tuple[Any, ...]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(_INSERT.encode(), row)


def main() -> None:
    """Serve."""
    app = InsertingMiddleware(application(), os.environ["AUDITLOG_DSN"])
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    threading.Thread(target=_obey, args=(server,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])
    print("{}", flush=True)


def _row(scope: Message, status: int, started_ns: int) -> tuple[Any, ...]:
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    headers.pop("authorization", None)
    return (
        "default",
        str(uuid_utils.uuid7()),
        1,
        scope["path"],
        scope["method"],
        orjson.dumps(headers).decode(),
        status,
        (time.perf_counter_ns() - started_ns) // 1_000_000,
        orjson.dumps({"client.address": scope["client"][0]}).decode(),
    )


def _obey(server: uvicorn.Server) -> None:
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    server.should_exit = True


if __name__ == "__main__":
    main()
