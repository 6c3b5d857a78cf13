"""Received rows of RPCs, on both servers, over a real port: there while a stream is open."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from auditlog import Level, LogRecord, Policy, Rule
from auditlog.capture import grpc_aio, grpc_sync
from auditlog.testing import MemorySink
from trail import until
from tuples import encoded

METHOD = "/demo.Ticker/Watch"
POLICY = Policy([Rule(name="all", level=Level.METADATA, received=True)])


@contextmanager
def _threaded(sink: MemorySink) -> Iterator[int]:
    """A server whose handler sends one message and waits for its end."""

    def watch(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        ended = threading.Event()
        context.add_callback(ended.set)
        yield b"first"
        ended.wait(20)

    server = grpc.server(
        ThreadPoolExecutor(2), interceptors=[grpc_sync.AuditInterceptor(sink, policy=POLICY)]
    )
    server.add_generic_rpc_handlers((_handlers(watch),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(20)


async def _watch_forever(_request: bytes, context: Any) -> Any:

    yield b"first"
    await asyncio.Event().wait()


def _handlers(watch: Any) -> grpc.GenericRpcHandler:
    handler = grpc.unary_stream_rpc_method_handler(watch)
    return grpc.method_handlers_generic_handler("demo.Ticker", {"Watch": handler})


async def _open_and_cancel(port: int, sink: MemorySink) -> LogRecord:
    """Read one message, return the row that is there by then, and hang up."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_stream(METHOD)(b"")
        assert await call.read() == b"first"
        (received,) = sink.records
        call.cancel()
    assert isinstance(received, LogRecord)
    return received


@pytest.mark.parametrize("kind", ["aio", "threaded"])
async def test_open_stream_has_a_received_row_and_a_complete_one_at_its_end(kind: str) -> None:
    """With the full method as its target, tied by the first one's identity."""
    sink = MemorySink()
    if kind == "threaded":
        with _threaded(sink) as port:
            received = await _open_and_cancel(port, sink)
            await until(lambda: len(sink.records) == 2)
    else:
        server = grpc.aio.server(interceptors=[grpc_aio.AuditInterceptor(sink, policy=POLICY)])
        server.add_generic_rpc_handlers((_handlers(_watch_forever),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        received = await _open_and_cancel(port, sink)
        await until(lambda: len(sink.records) == 2)
        await server.stop(None)
    first, last = encoded(received), encoded(sink.records[1])

    assert (first["protocol"], first["request_url"]) == (2, METHOD)
    assert (first["response_status"], first["response_time_ms"]) == (None, None)
    assert first["metadata"]["audit.stage"] == "received"
    assert first["metadata"]["audit.exchange_id"] == first["log_id"]
    assert last["metadata"]["audit.stage"] == "complete"
    assert last["metadata"]["audit.exchange_id"] == first["log_id"]
    assert last["log_id"] > first["log_id"]
    assert last["response_status"] == grpc.StatusCode.CANCELLED.value[0]
