"""What a handler under test does, step by step; every step works on both servers.

A step is called with the RPC as its handler sees it (`Call`). What it returns is awaited where the
handler is a coroutine. `Send` is a step that handlers take apart themselves, for only they can
yield.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
import shop_pb2

from auditlog import annotate, skip

ARRIVED: "defaultdict[str, threading.Event]" = defaultdict(threading.Event)
"""By the request's id: its handler has come to the step `arrive`."""
OVER: "defaultdict[str, threading.Event]" = defaultdict(threading.Event)
"""By the request's id: its client has seen the end."""
HANG_S = 20.0

Step: TypeAlias = "Callable[[Call], Any] | Send"


class Call(Protocol):
    """One RPC as its handler sees it."""

    context: Any
    received: int

    def read(self) -> Any:
        """Take one message; of a single request, nothing more."""

    def drain(self) -> Any:
        """Take all messages that the client sends."""

    def hang(self) -> Any:
        """Wait until the RPC is over."""

    def wait_for(self, event: threading.Event) -> Any:
        """Wait for the test."""

    def nested(self, step: Step, depth: int) -> Any:
        """Take a step from some function calls further in."""


@dataclass(frozen=True)
class Send:
    """Send a message: in a stream, one more; else the last one is the answer."""

    message: Any


@dataclass(frozen=True)
class Caught:
    """Take a step inside the handler's own `try`, and go on."""

    step: Step


def send(text: str) -> Send:
    return Send(note(text))


def note(text: str, number: int = 0) -> Any:
    return shop_pb2.Note(text=text, number=number)


def read(call: Call) -> Any:
    return call.read()


def drain(call: Call) -> Any:
    return call.drain()


def hang(call: Call) -> Any:
    return call.hang()


def arrive(call: Call) -> None:
    """Tell the test that the handler has come here."""
    ARRIVED[request_id_of(call.context)].set()


def abort(
    code: Any, details: str = "", trailing: Iterable[tuple[str, Any]] = ()
) -> Callable[[Call], Any]:
    def step(call: Call) -> Any:
        if trailing:
            call.context.set_trailing_metadata(tuple(trailing))
        return call.context.abort(code, details)

    return step


def abort_with_trailing_argument(
    code: Any, details: str, trailing: tuple[tuple[str, Any], ...]
) -> Callable[[Call], Any]:
    """The third argument, which only the asynchronous server has."""
    return lambda call: call.context.abort(code, details, trailing)


def abort_with_status(status: Any) -> Callable[[Call], Any]:
    return lambda call: call.context.abort_with_status(status)


def nested(step: Step) -> Callable[[Call], Any]:
    return lambda call: call.nested(step, 5)


def set_code(code: Any) -> Callable[[Call], Any]:
    return lambda call: call.context.set_code(code)


def set_details(details: str) -> Callable[[Call], Any]:
    return lambda call: call.context.set_details(details)


def set_trailing(*pairs: tuple[str, Any]) -> Callable[[Call], Any]:
    return lambda call: call.context.set_trailing_metadata(pairs)


def send_initial(*pairs: tuple[str, Any]) -> Callable[[Call], Any]:
    return lambda call: call.context.send_initial_metadata(pairs)


def fail(error: Callable[[], BaseException]) -> Callable[[Call], Any]:
    def step(call: Call) -> Any:
        raise error()

    return step


def cancel(call: Call) -> Any:
    """The handler ends its own RPC, as only the threaded server's context offers."""
    return call.context.cancel()


def say(**words: Any) -> Callable[[Call], Any]:
    return lambda _: annotate(**words)


def say_skip(_: Call) -> None:
    skip()


def request_id_of(context: Any) -> str:
    metadata = dict(context.invocation_metadata() or ())
    return str(metadata.get("x-request-id"))


class AsyncCall:
    """Of a handler that is a coroutine or an asynchronous generator."""

    def __init__(self, request: Any, context: Any, *, reads: bool) -> None:
        self.context = context
        self.received = 0
        self._messages = aiter(request) if hasattr(request, "__aiter__") else None
        self._reads = reads

    async def read(self) -> None:
        if self._reads:
            self.received += await self.context.read() is not grpc.aio.EOF
        elif self._messages is not None:
            self.received += await anext(self._messages, None) is not None

    async def drain(self) -> None:
        before = -1
        while before < self.received:
            before = self.received
            await self.read()

    async def hang(self) -> None:
        await asyncio.wait_for(asyncio.Event().wait(), HANG_S)

    async def wait_for(self, event: threading.Event) -> None:
        while not event.is_set():  # noqa: ASYNC110  # a loop cannot wait for a thread's event
            await asyncio.sleep(0.005)

    async def nested(self, step: Step, depth: int) -> None:
        if depth:
            await self.nested(step, depth - 1)
        else:
            await step(self)  # type: ignore[operator]


class SyncCall:
    """Of a handler that runs in a thread."""

    def __init__(self, request: Any, context: Any) -> None:
        self.context = context
        self.received = 0
        self._messages = request if hasattr(request, "__next__") else None

    def read(self) -> None:
        if self._messages is not None:
            self.received += next(self._messages, None) is not None

    def drain(self) -> None:
        before = -1
        while before < self.received:
            before = self.received
            self.read()

    def hang(self) -> None:
        over = OVER[request_id_of(self.context)]
        self.context.add_callback(over.set)
        # In a thread of the asynchronous server no callback comes, but for the client's own end.
        assert over.wait(HANG_S)

    def wait_for(self, event: threading.Event) -> None:
        assert event.wait(HANG_S)

    def nested(self, step: Step, depth: int) -> None:
        if depth:
            self.nested(step, depth - 1)
        else:
            step(self)  # type: ignore[operator]
