"""The service under all of it: methods that do next to nothing, for both kinds of server.

The messages are protobuf's own `StringValue`, so that they are parsed and serialised as in life.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
from google.protobuf.wrappers_pb2 import StringValue, UInt32Value

from benchmarks.rpc.contestants import AIO

SERVICE = "bench.v1.Echo"
MESSAGE = StringValue(value="x" * 100)
_PARSE, _PARSE_COUNT = StringValue.FromString, UInt32Value.FromString
_SERIALIZE, _SERIALIZE_COUNT = StringValue.SerializeToString, UInt32Value.SerializeToString


def service(kind: str) -> grpc.GenericRpcHandler:
    """Build the service for a kind of server."""
    return grpc.method_handlers_generic_handler(SERVICE, handlers(kind))


def handlers(kind: str) -> dict[str, grpc.RpcMethodHandler]:
    """Build its methods."""
    echo: Any = _AioEcho() if kind == AIO else _ThreadedEcho()
    return {
        "Get": grpc.unary_unary_rpc_method_handler(echo.get, _PARSE, _SERIALIZE),
        "Download": grpc.unary_stream_rpc_method_handler(echo.download, _PARSE_COUNT, _SERIALIZE),
        "Upload": grpc.stream_unary_rpc_method_handler(echo.upload, _PARSE, _SERIALIZE_COUNT),
    }


class _AioEcho:
    async def get(self, request: StringValue, _context: Any) -> StringValue:
        return request

    async def download(self, request: UInt32Value, _context: Any) -> AsyncIterator[StringValue]:
        for _ in range(request.value):
            yield MESSAGE

    async def upload(self, requests: AsyncIterator[StringValue], _context: Any) -> UInt32Value:
        count = 0
        async for _ in requests:
            count += 1
        return UInt32Value(value=count)


class _ThreadedEcho:
    def get(self, request: StringValue, _context: Any) -> StringValue:
        return request

    def download(self, request: UInt32Value, _context: Any) -> Iterator[StringValue]:
        return itertools.repeat(MESSAGE, request.value)

    def upload(self, requests: Iterator[StringValue], _context: Any) -> UInt32Value:
        return UInt32Value(value=sum(1 for _ in requests))
