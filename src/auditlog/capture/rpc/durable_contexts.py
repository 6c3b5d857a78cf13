"""Contexts that handlers of an asyncio server are given, where their row is to precede an abort.

`abort` sends the status by itself, before anybody else hears of it. Everything but that is the
server's own context, which says it.
"""

from collections.abc import Coroutine
from typing import Any, Protocol


class Aborting(Protocol):
    """An RPC that wants to know of its abort first."""

    async def abort(self, code: Any, details: Any, trailing_metadata: Any) -> None:
        """Hand the row over, and abort; returns only if the RPC's context was never found."""

    def wait_for_writes(self) -> None:
        """Wait, in a thread, until what it has yielded is written."""

    def in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run on the server's loop, and wait for it, in a thread."""


class _Context:
    __slots__ = ("_context", "_exchange")

    def __init__(self, exchange: Aborting, context: Any) -> None:
        self._exchange = exchange
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class AsyncContext(_Context):
    """Of a coroutine or an asynchronous generator."""

    __slots__ = ()

    async def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> None:
        """Raise the server's `AbortError`, once the row is where it has to be."""
        await self._exchange.abort(code, details, trailing_metadata)
        await self._context.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> None:
        """Do the same, with a `grpc.Status`."""
        await self.abort(status.code, status.details, status.trailing_metadata)


class ThreadContext(_Context):
    """Of a plain function, which the server runs in a thread."""

    __slots__ = ()

    def abort(self, code: Any, details: Any = "", trailing_metadata: Any = ()) -> None:
        """Raise the server's `AbortError`, once the row is where it has to be."""
        # As for the status of a generator's end: two sendings at once are one too many.
        self._exchange.wait_for_writes()
        self._exchange.in_loop(self._exchange.abort(code, details, trailing_metadata))
        self._context.abort(code, details, trailing_metadata)
