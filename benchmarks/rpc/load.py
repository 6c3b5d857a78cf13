"""The gRPC client, in a process of its own, so that its cost is not the server's.

    python -m benchmarks.rpc.load

Reads one JSON object a line: `{"method", "port", "clients", "calls", "messages"}`. Makes so many
calls of that method in all, from so many clients with a connection each, which call again as soon
as they are answered. Prints `{"sent", "seconds"}`. Connections are kept from line to line, and
each is tried out with a call when it is new. Every answer must be the right one.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue, UInt32Value

from benchmarks.rpc.service import MESSAGE, SERVICE
from benchmarks.workload import HEADERS

_SENT_BY_PROXIES = {b"authorization", b"x-forwarded-for", b"x-request-id", b"traceparent"}
# New values for every call, as in life, would cost the client, whose clock nobody reads.
METADATA = tuple(
    (key.decode(), value.decode()) for key, value in HEADERS if key in _SENT_BY_PROXIES
)
# Else the clients would share one connection.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
TIMEOUT_S = 60.0

Call = Callable[[int], Awaitable[None]]


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
        self._get = channel.unary_unary(
            f"/{SERVICE}/Get", StringValue.SerializeToString, StringValue.FromString
        )
        # The messages themselves are nobody's concern here: they stay bytes.
        self._download = channel.unary_stream(
            f"/{SERVICE}/Download", UInt32Value.SerializeToString, None
        )
        self._upload = channel.stream_unary(f"/{SERVICE}/Upload", None, UInt32Value.FromString)

    async def get(self, _messages: int) -> None:
        """Make one unary call."""
        answer = await self._get(MESSAGE, metadata=METADATA, timeout=TIMEOUT_S)
        assert answer == MESSAGE

    async def download(self, messages: int) -> None:
        """Read a stream."""
        request = UInt32Value(value=messages)
        received = 0
        async for _ in self._download(request, metadata=METADATA, timeout=TIMEOUT_S):
            received += 1
        assert received == messages

    async def upload(self, messages: int) -> None:
        """Write a stream."""
        message = MESSAGE.SerializeToString()
        call = self._upload(metadata=METADATA, timeout=TIMEOUT_S)
        for _ in range(messages):
            await call.write(message)
        await call.done_writing()
        assert (await call).value == messages


class Clients:
    """All connections so far."""

    def __init__(self) -> None:
        self._connected: dict[int, list[Client]] = {}

    async def drive(
        self, method: str, port: int, clients: int, calls: int, messages: int
    ) -> dict[str, Any]:
        """Do what one line says."""
        connected = self._connected.setdefault(port, [])
        missing = max(0, clients - len(connected))
        for _ in range(missing):
            connected.append(Client(port))
            await connected[-1].get(0)
        left = iter(range(calls))
        gc.collect()
        started = time.perf_counter()
        await asyncio.gather(
            *(_again(getattr(client, method), messages, left) for client in connected[:clients])
        )
        return {"sent": missing + calls, "seconds": time.perf_counter() - started}


async def _again(call: Call, messages: int, left: Any) -> None:
    for _ in left:
        await call(messages)


async def _main() -> None:
    clients = Clients()
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await clients.drive(**json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
