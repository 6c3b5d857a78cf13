"""RPCs of an asyncio server whose row is kept before their answer.

The last of Python's steps before the server sends is the serializer for an answer, the end of the
handler for everything else, but for `abort`: that sends by itself, so handlers are given a context
that hands the row over first. Where a row has to be waited for, that is done when the handler has
ended, and in the event loop; what a handler in a thread needs of it, it asks the loop for.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, Final

import grpc
import grpc.aio

from auditlog.capture.outcomes import WIRE
from auditlog.capture.rpc.aio import AioExchange
from auditlog.capture.rpc.aio_ending import LARGEST_INT
from auditlog.capture.rpc.durable import (
    ONE_ANSWER,
    ONE_REQUEST,
    WITHHELD,
    DurableExchange,
    not_carried_out,
)
from auditlog.capture.rpc.durable_contexts import AsyncContext, ThreadContext
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.inside_aio import asynchronous
from auditlog.capture.rpc.status import SUCCESS, number_of
from auditlog.capture.shared import Capture
from auditlog.settings import Settings
from auditlog.ticket import Ticket

# Beyond what a commit may take: a loop that is as late as this is not going to answer a thread.
_LATENESS_S: Final = 1.0


class SpooledAio(DurableExchange, AioExchange):
    """One whose row is handed over before the client can have the whole answer."""

    __slots__ = ("_abort", "_foresees", "_generates", "_is_over", "_was_cut")

    waits = False
    """Is its row to be waited for?"""
    _abort: tuple[Any, Any, Any] | None
    """What the client is told by an abort."""
    _foresees: bool
    """Is the status written down that the server is about to send?"""
    _generates: bool
    """Does the server itself write what a generator yields?"""

    def __init__(self, capture: Capture, details: Any) -> None:
        AioExchange.__init__(self, capture, details)
        self._abort = None
        self._foresees = self._generates = self._is_over = self._was_cut = False

    # What the server runs in the handler's place.

    async def _answer(self, request: Any, context: Any) -> Any:
        """Run a coroutine function, whether it returns an answer or calls `context.write`."""
        self._start(context)
        async with _Keeping(self, context) as keeping:
            keeping.response = await self._behaviour(request, AsyncContext(self, context))
        return keeping.response

    _converse = _answer

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._start(context)
        self._generates = True
        async with _Keeping(self, context):
            responses = self._behaviour(request, AsyncContext(self, context))
            async with aclosing(responses):
                async for message in responses:
                    yield message

    def _answer_in_thread(self, request: Any, context: Any) -> Any:
        with _KeepingInThread(self, context) as keeping:
            keeping.response = AioExchange._answer_in_thread(self, request, context)
        return keeping.response

    def _generate_in_thread(self, request: Any, context: Any) -> Any:
        """Call the function in the thread, too: before, there may be something to wait for."""
        self._start(context)
        self._generates = True
        return self._consumed(self._kept(request, context), context)

    def _kept(self, request: Any, context: Any) -> Iterator[Any]:
        with _KeepingInThread(self, context):
            yield from self._behaviour(request, ThreadContext(self, context))

    async def _reject(self, _: Any, context: Any) -> None:
        self._start(context)
        async with _Keeping(self, context):
            await AsyncContext(self, context).abort(*_NOT_FOUND)
