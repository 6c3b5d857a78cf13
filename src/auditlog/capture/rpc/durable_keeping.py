"""What is done around a handler of an asyncio server, so that its row precedes its answer."""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol


class Kept(Protocol):
    """An RPC whose row is kept before its answer."""

    @property
    def waits(self) -> bool:
        """Is its row to be waited for?"""

    async def begin_durably(self) -> None:
        """Wait for what the handler has to wait for; raises what ends an RPC that it must not."""

    def has_ended(self, error: BaseException | None, context: Any, response: Any) -> bool:
        """Note how the handler ended, and tell whether the server sends a status next."""

    async def end_durably(self, error: BaseException | None) -> None:
        """Hand the row over and wait for it; if that is in vain, withhold the answer."""

    def finish_first(self) -> None:
        """Hand the row over, with the status that the server is about to send."""

    def call_on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have it called on the loop, from a thread: before what the thread causes there later."""

    def wait_for_writes(self) -> None:
        """Wait, in a thread, until the loop has written what the thread has yielded."""

    def in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it on the server's loop, and wait for it, in a thread."""


class Keeping:
    """Around a coroutine or an asynchronous generator."""

    __slots__ = ("_context", "_exchange", "response")

    def __init__(self, exchange: Kept, context: Any) -> None:
        self._exchange = exchange
        self._context = context
        self.response: Any = None

    async def __aenter__(self) -> "Keeping":
        await self._exchange.begin_durably()
        return self

    async def __aexit__(
        self, _: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._exchange.has_ended(error, self._context, self.response):
            await self._exchange.end_durably(error)


class KeepingInThread:
    """Around what runs in a thread. What does not wait is done on the loop, before it goes on."""

    __slots__ = ("_context", "_exchange", "response")

    def __init__(self, exchange: Kept, context: Any) -> None:
        self._exchange = exchange
        self._context = context
        self.response: Any = None

    def __enter__(self) -> "KeepingInThread":
        if self._exchange.waits:
            self._exchange.in_loop(self._exchange.begin_durably())
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: TracebackType | None) -> None:
        exchange = self._exchange
        if not exchange.has_ended(error, self._context, self.response):
            return
        exchange.wait_for_writes()
        if exchange.waits:
            exchange.in_loop(exchange.end_durably(error))
        else:
            exchange.call_on_loop(exchange.finish_first)
