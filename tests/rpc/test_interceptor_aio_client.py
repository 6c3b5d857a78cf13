"""The same seen by an asynchronous client, with client and server on one loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from rpc_client import Seen
from rpc_handlers import SHAPES, Handlers, handler
from rpc_interceptors import interceptor
from rpc_scene import METHOD
from rpc_servers import OPTIONS
from rpc_steps import Step, abort, drain, fail, hang, send, send_initial, set_trailing
from rpc_trail import Trail

from trail import until

BEGINNING = (drain, send_initial(("i", "1")), send("a"), set_trailing(("t", "1")))
ENDS = {
    "returns": send("b"),
    "aborts": abort(grpc.StatusCode.NOT_FOUND, "gone"),
    "raises": fail(RuntimeError),
}
KINDS = [(kind, shape) for kind, shapes in SHAPES["aio"].items() for shape in shapes]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("kind", "shape"), KINDS)
async def test_client_sees_the_same_as_from_a_bare_server(kind: str, shape: str, end: str) -> None:
    """And the row says what it saw."""
    steps = (*BEGINNING, ENDS[end])
    trail = Trail()
    async with _channel(kind, shape, steps, interceptor("aio", trail)) as audited:
        seen = await _call(audited, kind)
    async with _channel(kind, shape, steps) as bare:
        assert seen == await _call(bare, kind)
    (row,) = trail.rows()

    assert row.response_status == seen.code


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
async def test_cancelled_call_leaves_a_row(kind: str) -> None:
    """With client and server on one loop, too."""
    trail = Trail()
    shape = SHAPES["aio"][kind][0]
    began = asyncio.Event()

    def begin(_: Any) -> None:
        began.set()

    steps = (drain, begin, hang)
    async with _channel(kind, shape, steps, interceptor("aio", trail)) as channel:
        call = _begin(channel, kind)
        await began.wait()
        call.cancel()
        assert (await call.code()) is grpc.StatusCode.CANCELLED
        await until(lambda: bool(trail.rows()))
    (row,) = trail.rows()

    assert row.response_status == grpc.StatusCode.CANCELLED.value[0]


@asynccontextmanager
async def _channel(
    kind: str, shape: str, steps: Sequence[Step], *interceptors: Any
) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=interceptors, options=OPTIONS)
    server.add_generic_rpc_handlers((Handlers({METHOD: handler(kind, shape, steps)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(5)


def _begin(channel: grpc.aio.Channel, kind: str) -> Any:
    make: Any = {
        "uu": channel.unary_unary,
        "us": channel.unary_stream,
        "su": channel.stream_unary,
        "ss": channel.stream_stream,
    }[kind]
    return make(METHOD)(b"" if kind[0] == "u" else iter([b"", b""]), timeout=10)


async def _call(channel: grpc.aio.Channel, kind: str) -> Seen:
    call = _begin(channel, kind)
    messages: list[bytes] = []
    error = None
    try:
        if kind[1] == "s":
            messages.extend([message async for message in call])
        else:
            messages.append(await call)
    except grpc.RpcError as raised:
        error = type(raised).__name__
    return Seen(
        code=(await call.code()).value[0],
        details=await call.details(),
        messages=tuple(messages),
        initial=tuple(await call.initial_metadata()),
        trailing=tuple(await call.trailing_metadata()),
        error=error,
    )
