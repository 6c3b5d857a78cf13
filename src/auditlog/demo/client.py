"""An HTTP client on bare streams: it sends any bytes, and hangs up whenever it likes.

One connection per request, so that a request is either wholly sent or known to have failed; no
library would send the hostile ones. It reads as much of an answer as the demo needs: the status.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

TIMEOUT_S = 20.0

Headers: TypeAlias = Iterable[tuple[str, bytes]]
Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Client:
    """One request's worth of a client.

    Args:
        port: Of a server on the loopback interface.
        request_id: Sent as `x-request-id`.
    """

    port: int
    request_id: str

    async def request(
        self, method: str, target: str, *, headers: Headers = (), body: bytes = b""
    ) -> int:
        """Send a request, read the whole answer, and return its status."""
        async with self._connection() as (reader, writer):
            writer.write(self._head(method, target, headers, len(body)) + body)
            async with asyncio.timeout(TIMEOUT_S):
                return _status(await reader.read())

    async def hang_up(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        missing: int = 0,
        after: bytes | None = None,
    ) -> None:
        """Send a request and leave early.

        Args:
            method: The method.
            target: Path and query.
            body: What is sent of the body.
            missing: How many bytes of the body are announced and never sent.
            after: Leave when the answer has brought this; None leaves without an answer.
        """
        async with self._connection() as (reader, writer):
            writer.write(self._head(method, target, (), len(body) + missing) + body)
            await writer.drain()
            if after is not None:
                async with asyncio.timeout(TIMEOUT_S):
                    await reader.readuntil(after)

    async def echo(self, path: str, frames: Iterable[str], *, user: str | None) -> int:
        """Open a WebSocket, exchange frames, close it; return the status of the handshake."""
        # Of the extra `demo`: without it the other commands must load all the same.
        import websockets  # noqa: PLC0415  # an extra: imported where it is used

        headers = {"x-request-id": self.request_id}
        if user is not None:
            headers["authorization"] = f"Bearer {user}"
        url = f"ws://127.0.0.1:{self.port}{path}"
        try:
            async with websockets.connect(
                url, additional_headers=headers, open_timeout=TIMEOUT_S, compression=None
            ) as socket:
                for frame in frames:
                    await socket.send(frame)
                    await asyncio.wait_for(socket.recv(), TIMEOUT_S)
        except websockets.InvalidStatus as refusal:
            return refusal.response.status_code
        return 101

    async def subscribe(self, path: str, query: str, *, results: int, stay: bool = True) -> int:
        """Run a subscription over a WebSocket; return the status of the handshake.

        Args:
            path: Where GraphQL is served.
            query: The subscription.
            results: How many to wait for.
            stay: Wait for its end; else the connection is closed while it runs.
        """
        import websockets  # noqa: PLC0415  # an extra: imported where it is used

        async with websockets.connect(
            f"ws://127.0.0.1:{self.port}{path}",
            additional_headers={"x-request-id": self.request_id},
            subprotocols=[websockets.Subprotocol("graphql-transport-ws")],
            open_timeout=TIMEOUT_S,
        ) as socket:
            await socket.send('{"type": "connection_init"}')
            await socket.recv()
            payload = {"query": query}
            await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
            for _ in range(results + stay):
                await asyncio.wait_for(socket.recv(), TIMEOUT_S)
        return 101

    async def vanish(self, path: str, *, user: str) -> int:
        """Open a WebSocket and cut the connection without a closing frame."""
        async with self._connection() as (reader, writer):
            headers = (
                ("authorization", b"Bearer " + user.encode()),
                ("upgrade", b"websocket"),
                ("sec-websocket-version", b"13"),
                ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            )
            writer.write(self._head("GET", path, headers, 0, connection="Upgrade"))
            async with asyncio.timeout(TIMEOUT_S):
                return _status(await reader.readuntil(b"\r\n\r\n"))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Stream]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    def _head(
        self, method: str, target: str, headers: Headers, length: int, connection: str = "close"
    ) -> bytes:
        lines = [
            f"{method} {target} HTTP/1.1".encode("ascii"),
            b"host: 127.0.0.1",
            b"user-agent: auditlog-demo",
            f"connection: {connection}".encode("ascii"),
            f"x-request-id: {self.request_id}".encode("ascii"),
            *(name.encode("ascii") + b": " + value for name, value in headers),
        ]
        if length:
            lines.append(b"content-length: %d" % length)
        return b"\r\n".join(lines) + b"\r\n\r\n"


def _status(answer: bytes) -> int:
    if not answer.startswith(b"HTTP/1.1 "):
        raise ConnectionError(f"the server sent no HTTP answer but {answer[:20]!r}")
    return int(answer[9:12])
