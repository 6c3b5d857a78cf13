"""uvicorn in a thread of this process, so that the records are at hand as soon as they are made."""

import asyncio
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
import websockets.sync.client

from auditlog import AuditMiddleware, LogRecord, Outcome, Settings
from auditlog.records import Record
from auditlog.testing import MemorySink
from auditlog.ticket import Ticket

TIMEOUT_S = 15.0
_numbers = itertools.count(1)


class Trail(MemorySink):
    """A sink that can be waited on."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._news = threading.Condition()

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        with self._news:
            outcome = super().submit(record, ticket)
            self._news.notify_all()
        return outcome

    def of(self, request_id: str, count: int) -> list[LogRecord]:
        """Wait until a request has that many rows, and return them in the order they began."""
        found: list[LogRecord] = []

        def are_there() -> bool:
            found[:] = [
                record
                for record in self.records
                if isinstance(record, LogRecord)
                and (record.metadata or {}).get("audit.request_id") == request_id
            ]
            return len(found) >= count

        with self._news:
            assert self._news.wait_for(are_there, TIMEOUT_S), f"{len(found)} rows, not {count}"
        return found


class Client:
    """A client with a request id of its own."""

    def __init__(self, port: int, trail: Trail) -> None:
        self.trail = trail
        self.request_id = f"graphql-{next(_numbers)}"
        self._port = port
        self._headers = {"x-request-id": self.request_id}

    def http(self, method: str, path: str = "/graphql", **options: Any) -> httpx.Response:
        """Send a request to the endpoint."""
        options.setdefault("headers", {}).update(self._headers)
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            return client.request(method, f"http://127.0.0.1:{self._port}{path}", **options)

    def post(
        self, query: Any, variables: Any = None, path: str = "/graphql", **more: Any
    ) -> httpx.Response:
        """Send one operation."""
        return self.http("POST", path, json={"query": query, "variables": variables, **more})

    @contextmanager
    def socket(self, subprotocol: str) -> Iterator[Any]:
        """Open a WebSocket and shake hands."""
        with websockets.sync.client.connect(
            f"ws://127.0.0.1:{self._port}/graphql",
            subprotocols=[subprotocol],  # type: ignore[list-item]  # a NewType of str
            additional_headers=self._headers,
            compression=None,
            open_timeout=TIMEOUT_S,
            close_timeout=1,
            proxy=None,
        ) as connection:
            yield connection

    def rows(self, count: int) -> list[LogRecord]:
        """Wait for the rows of what this client has sent."""
        return self.trail.of(self.request_id, count)


class Service:
    """An application that is served."""

    name: str = ""

    def __init__(self, port: int, trail: Trail, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self.trail = trail
        self.loop = loop

    def client(self) -> Client:
        return Client(self._port, self.trail)


@contextmanager
def serving(app: Any, trail: Trail | None = None, **options: Any) -> Iterator[Service]:
    """Serve an application, with the middleware around it."""
    trail = trail or Trail()
    audited = AuditMiddleware(app, audit=trail, **options)
    config = uvicorn.Config(
        audited, ws="wsproto", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert server.up.wait(TIMEOUT_S)
        try:
            yield Service(listener.getsockname()[1], trail, server.loop)
        finally:
            server.should_exit = True
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


class _Server(uvicorn.Server):
    loop: asyncio.AbstractEventLoop

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.up.set()
