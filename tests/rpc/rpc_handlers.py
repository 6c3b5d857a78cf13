"""Steps → handlers, in every shape that a server knows.

A kind is what goes to and fro (`uu` one and one, `us` one and many, `su`, `ss`), a shape how the
handler is written.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
import shop_pb2
from rpc_steps import AsyncCall, Caught, Send, Step, SyncCall, note

SHAPES = {
    "aio": {
        "uu": ("return", "sync"),
        "us": ("generator", "write", "sync"),
        "su": ("iterator", "read", "sync"),
        "ss": ("generator", "read-write", "sync"),
    },
    "threaded": {
        "uu": ("sync",),
        "us": ("sync", "iterator"),
        "su": ("sync",),
        "ss": ("sync", "iterator"),
    },
}
_MAKERS = {
    "uu": grpc.unary_unary_rpc_method_handler,
    "us": grpc.unary_stream_rpc_method_handler,
    "su": grpc.stream_unary_rpc_method_handler,
    "ss": grpc.stream_stream_rpc_method_handler,
}
Behaviour = Callable[[Any, Any], Any]


class Handlers(grpc.GenericRpcHandler):
    """All methods of one service, by name."""

    def __init__(self, methods: dict[str, grpc.RpcMethodHandler]) -> None:
        self.methods = methods

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self.methods.get(details.method)


def handler(
    kind: str,
    shape: str,
    steps: Sequence[Step],
    *,
    serializer: Any = shop_pb2.Note.SerializeToString,
    deserializer: Any = shop_pb2.Note.FromString,
) -> grpc.RpcMethodHandler:
    behaviour = _behaviour(kind, shape, steps)
    return _MAKERS[kind](behaviour, deserializer, serializer)


def make_handler(kind: str, behaviour: Any, *, raw: bool = False) -> grpc.RpcMethodHandler:
    """Any behaviour; `raw` without protobuf."""
    if raw:
        return _MAKERS[kind](behaviour)
    return _MAKERS[kind](behaviour, shop_pb2.Note.FromString, shop_pb2.Note.SerializeToString)


def _behaviour(kind: str, shape: str, steps: Sequence[Step]) -> Behaviour:
    streams = kind[1] == "s"
    if shape == "sync":
        return _thread_generator(steps) if streams else _thread_function(steps)
    if shape == "iterator" and streams:
        generator = _thread_generator(steps)
        return lambda request, context: _Iterator(generator(request, context))
    if shape == "generator":
        return _generator(steps)
    return _coroutine(steps, streams=streams, reads=shape.startswith("read"))


def _coroutine(steps: Sequence[Step], *, streams: bool, reads: bool) -> Behaviour:
    async def behaviour(request: Any, context: Any) -> Any:
        call = AsyncCall(request, context, reads=reads)
        answer = note("")
        for step in steps:
            if not isinstance(step, Send):
                await _take(step, call)
            elif streams:
                await context.write(step.message)
            else:
                answer = step.message
        return None if streams else answer

    return behaviour


def _generator(steps: Sequence[Step]) -> Behaviour:
    async def behaviour(request: Any, context: Any) -> AsyncIterator[Any]:
        call = AsyncCall(request, context, reads=False)
        for step in steps:
            if isinstance(step, Send):
                yield step.message
            else:
                await _take(step, call)

    return behaviour


def _thread_function(steps: Sequence[Step]) -> Behaviour:
    def behaviour(request: Any, context: Any) -> Any:
        call = SyncCall(request, context)
        answer = note("")
        for step in steps:
            if isinstance(step, Send):
                answer = step.message
            else:
                _take_in_thread(step, call)
        return answer

    return behaviour


def _thread_generator(steps: Sequence[Step]) -> Behaviour:
    def behaviour(request: Any, context: Any) -> Iterator[Any]:
        call = SyncCall(request, context)
        for step in steps:
            if isinstance(step, Send):
                yield step.message
            else:
                _take_in_thread(step, call)

    return behaviour


async def _take(step: Any, call: AsyncCall) -> None:
    if isinstance(step, Caught):
        with suppress(Exception):  # what careless applications do
            await _take(step.step, call)
        return
    result = step(call)
    if inspect.isawaitable(result):
        await result


def _take_in_thread(step: Any, call: SyncCall) -> None:
    if isinstance(step, Caught):
        with suppress(Exception):
            _take_in_thread(step.step, call)
        return
    step(call)


class _Iterator:
    """An iterator that is no generator."""

    def __init__(self, messages: Iterator[Any]) -> None:
        self._messages = messages

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._messages)
