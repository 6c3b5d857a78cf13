"""What other interceptors, foreign tasks and clients in a hurry do to an RPC of the aio server."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from auditlog import annotate
from auditlog.capture.grpc_aio import AuditInterceptor
from auditlog.capture.rpc.aio import AioExchange
from auditlog.records import LogRecord, Outcome, Record
from auditlog.testing import MemorySink
from trail import until

UNARY, STREAM = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
CANCELLED, NOT_FOUND, DEADLINE = 1, 5, 4


class Trail(MemorySink):
    def __init__(self) -> None:
        super().__init__()
        self.arrived: asyncio.Queue[Record] = asyncio.Queue()

    def submit(self, record: Record) -> Outcome:
        outcome = super().submit(record)
        self.arrived.put_nowait(record)
        return outcome


class Service(grpc.GenericRpcHandler):
    def __init__(self, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        self.handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self.handlers.get(details.method.rpartition("/")[2])


class Other(aio.ServerInterceptor):
    """Another interceptor, installed before ours: replaces the handler's function."""

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        self.wrap = wrap

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        return handler._replace(unary_unary=self.wrap(handler.unary_unary))


class InTask(aio.ServerInterceptor):
    """Looks for the handler in a task of its own, as `wait_for` does up to Python 3.11."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        async def look() -> Any:
            return await continuation(details)

        return await asyncio.create_task(look())


@asynccontextmanager
async def serving(
    sink: Trail, *before: aio.ServerInterceptor, **handlers: Any
) -> AsyncIterator[aio.Channel]:
    ours = AuditInterceptor(sink, user_id=lambda context: context.peer()[:4])
    server = aio.server(interceptors=[*before, ours], options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Service(handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield channel
        finally:
            await server.stop(None)


async def call(channel: aio.Channel, method: str) -> Any:
    try:
        return await channel.unary_unary(f"/traps.Service/{method}")(b"x")
    except aio.AioRpcError as error:
        return error.code().value[0]


async def stream(channel: aio.Channel, method: str) -> list[bytes]:
    return [message async for message in channel.unary_stream(f"/traps.Service/{method}")(b"x")]


async def row_of(sink: Trail) -> LogRecord:
    row = await asyncio.wait_for(sink.arrived.get(), 10)
    assert isinstance(row, LogRecord)
    assert sink.arrived.empty()
    return row


def living() -> int:
    return sum(issubclass(type(each), AioExchange) for each in gc.get_objects())


def told(row: LogRecord) -> tuple[Any, ...]:
    metadata = row.metadata or {}
    return row.response_status, metadata["audit.status_source"], row.user_id


async def echo(request: bytes, _: Any) -> bytes:
    annotate(user_id="handler")
    return request


async def hang(_request: bytes, _: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


async def three(_request: bytes, _: Any) -> AsyncIterator[bytes]:
    annotate(user_id="handler")
    for _ in range(3):
        yield b"x"


def plain(request: bytes, _: Any) -> bytes:
    annotate(user_id="handler")
    return request


async def write(_request: bytes, context: Any) -> None:
    annotate(user_id="handler")
    await context.write(b"x")


async def test_handler_found_in_another_task() -> None:
    """That task ends before the handler begins; the row is that of the whole RPC."""
    sink = Trail()
    handlers = {"Echo": UNARY(echo), "Plain": UNARY(plain), "Three": STREAM(three)}
    async with serving(sink, InTask(), **handlers, Write=STREAM(write)) as channel:
        for method in ("Echo", "Plain"):
            assert await call(channel, method) == b"x"
            assert told(await row_of(sink)) == (0, "wire", "handler")
        for method, count in (("Three", 3), ("Write", 1)):
            assert await stream(channel, method) == [b"x"] * count
            assert told(await row_of(sink)) == (0, "wire", "handler")
        assert await call(channel, "Unknown") == 12
        assert told(await row_of(sink)) == (12, "wire", "ipv4")


async def test_deadline_that_another_interceptor_sets() -> None:
    """Cancels the handler, and then says so: what it says is what the client gets."""

    def limited(behaviour: Any) -> Any:
        async def run(request: bytes, context: Any) -> Any:
            try:
                return await asyncio.wait_for(behaviour(request, context), 0.05)
            except TimeoutError:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "slow")

        return run

    sink = Trail()
    async with serving(sink, Other(limited), Hang=UNARY(hang)) as channel:
        assert await call(channel, "Hang") == DEADLINE
        assert told(await row_of(sink)) == (DEADLINE, "wire", "ipv4")


async def test_error_that_another_interceptor_translates_or_swallows() -> None:
    """Neither is an UNKNOWN any more."""

    def translating(behaviour: Any) -> Any:
        async def run(request: bytes, context: Any) -> Any:
            try:
                return await behaviour(request, context)
            except KeyError:
                await context.abort(grpc.StatusCode.NOT_FOUND, "translated")
            except ValueError:
                return b"instead"

        return run

    async def missing(_request: bytes, _: Any) -> bytes:
        raise KeyError

    async def wrong(_request: bytes, _: Any) -> bytes:
        raise ValueError

    sink = Trail()
    handlers = {"Missing": UNARY(missing), "Wrong": UNARY(wrong)}
    async with serving(sink, Other(translating), **handlers) as channel:
        assert await call(channel, "Missing") == NOT_FOUND
        assert told(await row_of(sink)) == (NOT_FOUND, "wire", "ipv4")
        assert await call(channel, "Wrong") == b"instead"
        assert told(await row_of(sink)) == (0, "wire", "ipv4")


class Proxy:
    """A context of another interceptor's own."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class Stranger:
    """A context that knows nothing of its RPC."""

    def __init__(self, _: Any) -> None:
        """Forget it."""


@pytest.mark.parametrize("make", [Proxy, Stranger])
async def test_context_of_another_interceptor(make: Callable[[Any], Any]) -> None:
    """The RPC is served in any case; what a proxy lets see is recorded."""

    def wrapping(behaviour: Any) -> Any:
        async def run(request: bytes, context: Any) -> Any:
            return await behaviour(request, make(context))

        return run

    sink = Trail()
    async with serving(sink, Other(wrapping), Echo=UNARY(echo)) as channel:
        assert await call(channel, "Echo") == b"x"
        row = await row_of(sink)
    assert (row.user_id, sink.errors) == ("handler", [])
    assert row.response_status == 0 or make is Stranger


async def test_messages_written_by_a_task_of_another_origin() -> None:
    """Are counted for the RPC whose context wrote them, not for the one of the task."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def broadcast() -> None:
        while True:
            context, written = await queue.get()
            await context.write(b"from afar")
            written.set()

    async def subscribe(_request: bytes, context: Any) -> None:
        for _ in range(2):
            written = asyncio.Event()
            await queue.put((context, written))
            await written.wait()

    sink = Trail()
    task = asyncio.create_task(broadcast())
    async with serving(sink, Subscribe=STREAM(subscribe)) as channel:
        assert await stream(channel, "Subscribe") == [b"from afar"] * 2
        row = await row_of(sink)
    task.cancel()
    assert (row.metadata or {})["audit.messages_out"] == 2


async def test_client_that_leaves_before_its_request_has_come() -> None:
    """No handler runs, and still there is a row."""
    sink = Trail()
    async with serving(sink, Echo=UNARY(echo)) as channel:
        # A unary method, called without sending its one message.
        begun = channel.stream_unary("/traps.Service/Echo")()
        assert await call(channel, "Echo") == b"x"
        assert told(await row_of(sink)) == (0, "wire", "handler")
        begun.cancel()
        assert told(await row_of(sink)) == (CANCELLED, "derived", None)


async def test_client_that_leaves_while_the_server_writes() -> None:
    """The generator is not running then, and is closed; the callables were asked before."""
    closed = asyncio.Event()

    async def flood(_request: bytes, _: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.set()

    sink = Trail()
    async with serving(sink, Flood=STREAM(flood)) as channel:
        begun = channel.unary_stream("/traps.Service/Flood")(b"x")
        await begun.read()
        begun.cancel()
        assert told(await row_of(sink)) == (CANCELLED, "derived", "ipv4")
        await asyncio.wait_for(closed.wait(), 10)


async def test_exchange_ends_without_the_collector() -> None:
    """Nothing that it holds leads back to it."""
    sink = Trail()
    async with serving(sink, Echo=UNARY(echo), Three=STREAM(three)) as channel:
        gc.collect()
        before = living()
        gc.disable()
        try:
            for _ in range(20):
                await call(channel, "Echo")
                await row_of(sink)
                await stream(channel, "Three")
                await row_of(sink)
            await until(lambda: living() <= before)
        finally:
            gc.enable()


async def test_what_is_no_handler_passes_through() -> None:
    """It is for the server to refuse; the row says that nothing was seen."""
    sink, odd = Trail(), object()

    class Details:
        method = "/traps.Service/Odd"
        invocation_metadata = ()

    async def intercept(details: Any) -> None:
        async def find(_: Any) -> object:
            return odd

        assert await AuditInterceptor(sink).intercept_service(find, details) is odd

    await asyncio.create_task(intercept(Details()))
    row = await row_of(sink)
    assert told(row) == (None, "none", None)

    await intercept(odd)
    assert [type(error) for error in sink.errors] == [AttributeError]
