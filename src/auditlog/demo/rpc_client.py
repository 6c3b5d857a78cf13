"""A gRPC client for the demo: takes a call to its end, or leaves when it has had enough."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

TIMEOUT_S = 20.0
SERVICE = "demo.v1.Orders"

Message: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RpcClient:
    """One call's worth of a client; it returns the number of the status that it saw.

    Args:
        channel: A `grpc.aio.Channel` to a server on the loopback interface.
        request_id: Sent as `x-request-id`.
    """

    channel: Any
    request_id: str

    async def ask(
        self,
        method: str,
        message: Message | bytes,
        *,
        user: str | None = None,
        patience_s: float = TIMEOUT_S,
    ) -> int:
        """Send one message, take one answer; bytes go as they are, `patience_s` as the deadline."""
        call = self.channel.unary_unary(_path(method), _dump, json.loads)
        return await _status(call(message, metadata=self._metadata(user), timeout=patience_s))

    async def upload(self, method: str, messages: Iterable[Message]) -> int:
        """Send a stream, take one answer."""
        call = self.channel.stream_unary(_path(method), _dump, json.loads)
        return await _status(call(iter(messages), metadata=self._metadata(), timeout=TIMEOUT_S))

    async def download(self, method: str, message: Message) -> int:
        """Send one message, take a stream."""
        call = self.channel.unary_stream(_path(method), _dump, json.loads)
        return await _read_all(call(message, metadata=self._metadata(), timeout=TIMEOUT_S))

    async def talk(self, method: str, messages: Iterable[Message]) -> int:
        """Send messages, and wait for the answer to each."""
        call = self.channel.stream_stream(_path(method), _dump, json.loads)(
            metadata=self._metadata(), timeout=TIMEOUT_S
        )
        for message in messages:
            await call.write(message)
            await call.read()
        await call.done_writing()
        return await _read_all(call)

    async def leave_in_the_stream(self, method: str, message: Message) -> None:
        """Send one message, take the first of a stream, and cancel."""
        call = self.channel.unary_stream(_path(method), _dump, json.loads)(
            message, metadata=self._metadata(), timeout=TIMEOUT_S
        )
        await call.read()
        call.cancel()

    def _metadata(self, user: str | None = None) -> tuple[tuple[str, str], ...]:
        pairs = (("x-request-id", self.request_id),)
        return pairs if user is None else (*pairs, ("authorization", f"Bearer {user}"))


async def _read_all(call: Any) -> int:
    # Of the extra `demo`: without it the other commands must load all the same.
    import grpc.aio  # noqa: PLC0415  # an extra: imported where it is used

    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.RpcError:
        pass  # told by the status
    return await _status(call)


async def _status(call: Any) -> int:
    code = await call.code()
    number: int = code.value[0]
    return number


def _path(method: str) -> str:
    """A method of the demo's service; what begins with a slash goes as it is."""
    return method if method.startswith("/") else f"/{SERVICE}/{method}"


def _dump(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()
