"""What the interceptors add to a call and to each message of a stream, in CPU time, in process.

Measured: inside one RPC of a real server, and with its context, the interceptor is asked for its
handlers, and these are called as the server would call them: messages are parsed, go through the
handler and are serialised, but never sent. Over the wire a message costs 50 to 80 µs of CPU time
that differ by 5 from one round to the next (2026-11-25), in which a tenth of a microsecond cannot
be seen. A stream's own share is in there, divided by its messages. The same call again and again
finds its code and data in the processor's caches, which a call to a busy server does not: see
`served` for that. Every contestant has a process of its own.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
from google.protobuf.wrappers_pb2 import UInt32Value

from benchmarks.isolated import Turn, isolated
from benchmarks.report import Aim, Row, Table
from benchmarks.rounds import interleave, interval, judge
from benchmarks.rounds import run as run_on_loop
from benchmarks.rpc.contestants import AIO, BARE, COMPETITORS, OURS, THREADED, contestants, make
from benchmarks.rpc.load import METADATA, TIMEOUT_S
from benchmarks.rpc.service import MESSAGE, SERVICE, handlers
from benchmarks.unshipped import Unshipped

AIM_CALL_US, AIM_TIMES, AIM_MESSAGE_US = 12.0, 8.0, 0.5
CALL, DOWNLOAD, UPLOAD = "Get", "Download", "Upload"
OTEL = COMPETITORS[0].name
_UNARY = "aio, a unary call"
_CASES = {
    _UNARY: (AIO, CALL),
    "aio, a message out": (AIO, DOWNLOAD),
    "aio, a message in": (AIO, UPLOAD),
    "threaded, a message out": (THREADED, DOWNLOAD),
    "threaded, a message in": (THREADED, UPLOAD),
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    calls: int
    """In one turn; fewer than a queue holds."""
    messages: int
    """Of one stream."""
    rounds: int


FULL = Sizes(calls=500, messages=10_000, rounds=30)
QUICK = Sizes(calls=100, messages=500, rounds=2)


def run(sizes: Sizes) -> list[Table]:
    """Measure, and return the table."""
    return [run_on_loop(_run(sizes))]


async def _run(sizes: Sizes) -> Table:
    micros = {}
    for title, (kind, method) in _CASES.items():
        names = contestants(kind)
        count = sizes.calls if method == CALL else sizes.messages
        with isolated(partial(contestant, kind, method, count), names) as turns:
            found = await interleave(f"grpc, {title}", turns, sizes.rounds)
        micros[title] = {name: [each * 1e6 for each in found[name]] for name in names}
    return _table(micros, sizes)


@asynccontextmanager
async def contestant(kind: str, method: str, count: int, name: str) -> AsyncIterator[Turn]:
    """Make a contestant, in a process of its own; whoever saw not every call fails in the end."""
    turns, calls = 0, count if method == CALL else 1
    async with Unshipped() as audit:
        interceptor, seen = make(kind, name, audit)
        driven = _Driven(interceptor, kind, method, count)
        serve = _serve_aio if kind == AIO else _serve_threaded
        async with serve(driven) as port:

            async def turn() -> float:
                nonlocal turns
                turns += 1
                gc.collect()
                took = await asyncio.to_thread(_call, port) / count
                # A row may come a little later than the answer, and the loop stops between turns.
                while name == OURS and seen() < turns * calls:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(0)
                await audit.flush()
                return took

            yield turn
    assert name not in {OURS, OTEL} or seen() == turns * calls, (name, seen(), turns, calls)


class _Driven:
    """Drives the intercepted handlers from within an RPC, and says how long it took."""

    def __init__(self, interceptor: Any, kind: str, method: str, count: int) -> None:
        self._interceptor = interceptor
        self._handler = handlers(kind)[method]
        self._method = method
        self._count = count

    async def run_aio(self, _request: bytes, context: Any) -> bytes:
        """Do it as `grpc.aio.server` does."""
        details, raw = self._details(context), MESSAGE.SerializeToString()
        started = time.thread_time()
        if self._method == CALL:
            for _ in range(self._count):
                handler = await self._resolve_async(details)
                request = handler.request_deserializer(raw)
                handler.response_serializer(await handler.unary_unary(request, context))
        elif self._method == DOWNLOAD:
            handler = await self._resolve_async(details)
            serialize = handler.response_serializer
            async for message in handler.unary_stream(self._request(), context):
                serialize(message)
        else:
            handler = await self._resolve_async(details)
            requests = _feed_async(handler.request_deserializer, raw, self._count)
            await handler.stream_unary(requests, context)
        return repr(time.thread_time() - started).encode()

    def run_threaded(self, _request: bytes, context: Any) -> bytes:
        """Do it as `grpc.server` does."""
        details, raw = self._details(context), MESSAGE.SerializeToString()
        started = time.thread_time()
        handler = self._resolve(details)
        if self._method == DOWNLOAD:
            serialize = handler.response_serializer
            for message in handler.unary_stream(self._request(), context):
                serialize(message)
        else:
            requests = _feed(handler.request_deserializer, raw, self._count)
            handler.stream_unary(requests, context)
        return repr(time.thread_time() - started).encode()

    def _request(self) -> UInt32Value:
        return UInt32Value(value=self._count)

    def _details(self, context: Any) -> SimpleNamespace:
        metadata = context.invocation_metadata()
        return SimpleNamespace(method=f"/{SERVICE}/{self._method}", invocation_metadata=metadata)

    async def _resolve_async(self, details: object) -> Any:
        if self._interceptor is None:
            return self._handler
        return await self._interceptor.intercept_service(self._continue_async, details)

    def _resolve(self, details: object) -> Any:
        if self._interceptor is None:
            return self._handler
        return self._interceptor.intercept_service(self._continue, details)

    def _continue(self, _details: object) -> grpc.RpcMethodHandler:
        return self._handler

    async def _continue_async(self, _details: object) -> grpc.RpcMethodHandler:
        return self._handler


@asynccontextmanager
async def _serve_aio(driven: _Driven) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_service(driven.run_aio),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


@asynccontextmanager
async def _serve_threaded(driven: _Driven) -> AsyncIterator[int]:
    pool = ThreadPoolExecutor(1)
    server = grpc.server(pool)
    server.add_generic_rpc_handlers((_service(driven.run_threaded),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    await asyncio.to_thread(server.stop(None).wait)
    # The last thread may still be on its way out of the last call.
    pool.shutdown()


def _service(behaviour: Callable[[bytes, Any], Any]) -> grpc.GenericRpcHandler:
    method = grpc.unary_unary_rpc_method_handler(behaviour)
    return grpc.method_handlers_generic_handler("bench.v1.Driven", {"Run": method})


def _call(port: int) -> float:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/bench.v1.Driven/Run")
        return float(call(b"", metadata=METADATA, timeout=TIMEOUT_S))


async def _feed_async(
    parse: Callable[[bytes], Any], raw: bytes, messages: int
) -> AsyncIterator[Any]:
    for _ in range(messages):
        yield parse(raw)


def _feed(parse: Callable[[bytes], Any], raw: bytes, messages: int) -> Iterator[Any]:
    for _ in range(messages):
        yield parse(raw)


def _table(micros: dict[str, dict[str, list[float]]], sizes: Sizes) -> Table:
    more = {
        title: {name: _differences(figures[name], figures[BARE]) for name in figures}
        for title, figures in micros.items()
    }

    def row(name: str) -> Row:
        if name == BARE:
            alone = (statistics.median(figures[BARE]) for figures in micros.values())
            return Row(name, tuple(f"{figure:.2f} in all" for figure in alone))
        cells = tuple(
            f"{statistics.median(each[name]):+.2f}" if name in each else "not to be had"
            for each in more.values()
        )
        return Row(name, cells, _aims(name, more))

    names = [BARE, OURS, *(each.name for each in COMPETITORS)]
    note = (
        f"Streams of {sizes.messages:,} messages, of which none is sent: parsed or serialised, and"
        " passed through the handler; `out` is what the server sends."
    )
    title = "gRPC in process: CPU time, µs added"
    return Table(title, tuple(micros), [row(name) for name in names], (note,))


def _aims(name: str, more: dict[str, dict[str, list[float]]]) -> tuple[Aim, ...]:
    unary = more[_UNARY]
    if name == OTEL and {OURS, OTEL} <= set(unary):
        times = statistics.median(unary[OTEL]) / statistics.median(unary[OURS])
        return (Aim(f"≥ {AIM_TIMES:g} × ours a call", times >= AIM_TIMES),)
    if name != OURS:
        return ()
    call = judge(interval(unary[OURS]), at_most=AIM_CALL_US) if OURS in unary else None
    messages = [
        judge(interval(figures[OURS]), at_most=AIM_MESSAGE_US)
        for title, figures in more.items()
        if title != _UNARY and OURS in figures
    ]
    # The worst of them: no, or else unclear, or else yes.
    worst = False if False in messages else None if None in messages else True
    return (
        Aim(f"≤ {AIM_CALL_US:g} µs a call", call),
        Aim(f"≤ {AIM_MESSAGE_US:g} µs a message, each", worst),
    )


def _differences(figures: list[float], of: list[float]) -> list[float]:
    return [a - b for a, b in zip(figures, of, strict=True)]
