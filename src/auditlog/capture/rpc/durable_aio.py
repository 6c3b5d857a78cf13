"""RPCs of an asyncio server whose row is kept before their answer.

The last of Python's steps before the server sends is the serializer for an answer, the end of the
handler for everything else, but for `abort`: that sends by itself, so handlers are given a context
that hands the row over first. Where a row has to be waited for, that is done when the handler has
ended, and on the event loop; what a handler in a thread needs of it, it asks the loop for.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, Final

import grpc
import grpc.aio

from auditlog.capture.context import current
from auditlog.capture.rpc.aio import AioExchange
from auditlog.capture.rpc.aio_ending import LARGEST_INT
from auditlog.capture.rpc.durable import (
    ONE_ANSWER,
    ONE_REQUEST,
    WITHHELD,
    not_carried_out,
)
from auditlog.capture.rpc.durable_aio_ending import DurableAioEnding
from auditlog.capture.rpc.durable_contexts import AsyncContext, ThreadContext
from auditlog.capture.rpc.durable_keeping import Keeping, KeepingInThread
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.inside_aio import asynchronous, can_be_sent, is_answered
from auditlog.capture.rpc.status import SUCCESS, number_of
from auditlog.settings import Settings
from auditlog.ticket import Ticket

# The class that grpcio's own functions make: other interceptors rely on its being a named tuple.
_Handler: Final[Any] = type(grpc.unary_unary_rpc_method_handler(lambda request, _: request))
_UNKNOWN_CONTEXT: Final = "the answer is withheld, by an error: the context is not grpcio's"


class SpooledAio(DurableAioEnding):
    """One whose row is handed over before the client can have the whole answer."""

    __slots__ = ()

    waits = False
    """Is its row to be waited for?"""

    # What the server runs in the handler's place.

    async def _answer(self, request: Any, context: Any) -> Any:
        """Run a coroutine function, whether it returns its answer or calls `context.write`."""
        self._start(context)
        async with Keeping(self, context) as keeping:
            keeping.response = await self._behaviour(request, AsyncContext(self, context))
        return keeping.response

    async def _converse(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._start(context)
        self._generates = True
        async with Keeping(self, context):
            responses = self._behaviour(request, AsyncContext(self, context))
            async with aclosing(responses):
                async for message in responses:
                    yield message

    def _answer_in_thread(self, request: Any, context: Any) -> Any:
        self.call_on_loop(self._start_for_thread, context)
        outer = current.get()
        current.set(self)
        try:
            with KeepingInThread(self, context) as keeping:
                keeping.response = self._behaviour(request, ThreadContext(self, context))
            return keeping.response
        finally:
            current.set(outer)

    def _generate_in_thread(self, request: Any, context: Any) -> Any:
        """Call the function in the thread, too: there may be something to wait for before."""
        self._start(context)
        self._generates = True
        return self._consumed(self._responses_of(request, context), context)

    def _responses_of(self, request: Any, context: Any) -> Iterator[Any]:
        with KeepingInThread(self, context):
            for message in self._behaviour(request, ThreadContext(self, context)):
                self._yielded += 1
                yield message

    async def _reject(self, _: Any, context: Any) -> None:
        self._start(context)
        async with Keeping(self, context):
            await self.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())

    def deserialize(self, data: bytes) -> Any:
        """Stand in for the handler's deserializer: if it fails, no handler may run."""
        try:
            return GrpcExchange.deserialize(self, data)
        except BaseException:
            if self.kind in ONE_REQUEST:
                self._finish_once()
            raise

    def serialize(self, message: Any) -> Any:
        """Stand in for the handler's serializer, after which nothing of Python's may come."""
        if self._finished:
            self._forget_weight()
        try:
            return GrpcExchange.serialize(self, message)
        finally:
            if self.kind in ONE_ANSWER or (self._generates and self.failed):
                self._ending = True
                self._release()
                self._finish_once()
            self._wake()

    # What is done when a handler begins and ends.

    async def begin_durably(self) -> None:
        """Wait for what the handler has to wait for; raises what ends an RPC that it must not."""

    def has_ended(self, error: BaseException | None, context: Any, response: Any) -> bool:
        """Note how the handler ended, and tell whether the server sends a status next."""
        if isinstance(error, GeneratorExit):
            return False
        if error is not None:
            self._note(error, context)
            answers = isinstance(error, Exception) and is_answered(error, context)
            return answers and not self._finished
        self._forget_error()
        if self._finished:
            return False
        if self.kind in ONE_ANSWER and self._succeeds(context):
            if not self.waits:
                return False
            self._weigh(response)
        self._note_return(context)
        return True

    async def end_durably(self, error: BaseException | None) -> None:
        """Hand the row over and wait for it; if that is in vain, withhold the answer."""
        if self._finished or await self._keep():
            return
        self.note_refusal()
        if self._is_over:
            return
        if self._context is None:
            raise RuntimeError(_UNKNOWN_CONTEXT) from error
        # No abort: the last message of a generator in a thread may be on its way, and two sendings
        # at once are one too many. What left the handler is what leaves here, and is logged.
        self._context.set_code(WITHHELD.code)
        self._context.set_trailing_metadata(WITHHELD.trailing_metadata)
        if error is None:
            self._context.set_details(WITHHELD.details)

    async def abort(self, code: Any, details: Any, trailing_metadata: Any) -> None:
        """Hand the row over, and abort; returns only if the RPC's context was never found.

        Raises:
            RuntimeError: Likewise, but the client must not have that status.
        """
        if self._finished or not can_be_sent(code, details, trailing_metadata):
            # What the server makes of it is to be seen.
            await self._abort_with(code, details, trailing_metadata)
            return
        self._abort = code, details, trailing_metadata
        if not await self._keep():
            self.note_refusal()
            self._abort = WITHHELD
        try:
            await self._abort_with(*self._abort)
        except grpc.aio.AbortError:
            raise
        except BaseException:
            # Something else is sent instead, or nothing.
            self._abort = None
            raise

    # Parts of the above.

    def _unwatched(self, handler: Any) -> Any:
        """Let it run, once there is a row; how it ends is not known."""
        self._finish_once()
        return handler

    async def _keep(self) -> bool:
        """Hand the row over; tell whether the client may have the status that is in it."""
        self.finish_first()
        return True

    async def _abort_with(self, code: Any, details: Any, trailing_metadata: Any) -> None:
        if self._is_over:
            # The server has let go of the call: to touch it may end the process.
            raise asyncio.CancelledError
        if self._context is not None:
            await self._context.abort(code, details, trailing_metadata)
        if self.refused:
            raise RuntimeError(_UNKNOWN_CONTEXT)

    async def _is_durable(self, ticket: Ticket) -> bool:
        try:
            return await self.recorder.durable(ticket)
        except Exception as failure:  # noqa: BLE001  # a log of the application's own
            self.note_undecided(failure)
            return False

    def _succeeds(self, context: Any) -> bool:
        """Tell whether the server is going to serialize what the handler has returned."""
        try:
            code = asynchronous(context).code()
        except Exception as failure:  # noqa: BLE001  # not the server's own context, perhaps
            self.note_unreadable(failure)
            return True
        return code is None or number_of(code, largest_int=LARGEST_INT) == SUCCESS

    def _weigh(self, message: Any) -> None:
        """Find out whether it can be serialized, and its size. The server does it again."""
        if isinstance(message, str):
            # As the server does, whatever the serializer.
            message = message.encode("utf-8", "surrogatepass")
        with suppress(Exception):  # it is noted, and the server comes upon it, too
            GrpcExchange.serialize(self, message)

    def _forget_weight(self) -> None:
        self.messages_out = self.bytes_out = 0
        self._responses = None


class SyncedAio(SpooledAio):
    """One whose row is on the disk by then, or has had its time."""

    __slots__ = ()
    waits = True

    def in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it on the server's loop, and wait for it, in a thread, if that can be."""
        with suppress(TimeoutError, RuntimeError):
            SpooledAio.in_loop(self, coroutine)

    async def _keep(self) -> bool:
        if not self._finished:
            self.ticket = ticket = Ticket()
            self.finish_first()
            await self._is_durable(ticket)
        return True


class CommittedAio(SpooledAio):
    """One that nobody serves and nobody answers before its rows are committed."""

    __slots__ = ()
    waits = True

    def announce(self) -> None:
        """Leave it to `begin_durably`."""

    async def begin_durably(self) -> None:
        """Let the handler wait until it is certain that the RPC has a row."""
        if self._is_over:
            raise asyncio.CancelledError
        if self.refused:
            await self._decline()
        if self.exchange_id is not None:
            return  # an interceptor in front tries again
        ticket = self.announce_durably()
        if ticket is not None and not await self._is_durable(ticket):
            await self._decline()
        if self._is_over:
            # In a thread, where the end of the RPC ends nothing.
            raise asyncio.CancelledError

    def _unwatched(self, handler: Any) -> Any:
        if self.is_exempt():
            return SpooledAio._unwatched(self, handler)
        return _Handler(True, True, None, None, None, None, None, self._decline_unwatched)

    async def _decline_unwatched(self, _: Any, context: Any) -> None:
        self._start(context)
        await self._decline()

    async def _decline(self) -> None:
        """Refuse what must not be carried out; raises."""
        self.note_refusal()
        self._abort = not_carried_out(self.recorder.settings.commit_timeout_s)
        self.finish_first()
        await self._abort_with(*self._abort)

    async def _keep(self) -> bool:
        self.finish_first()
        return self.ticket is None or await self._is_durable(self.ticket)


def refusing(settings: Settings) -> Any:
    """Return a handler for an RPC of which nothing can be told, where none is served without."""
    refusal = not_carried_out(settings.commit_timeout_s)

    async def refuse(_: Any, context: Any) -> None:
        await context.abort(*refusal)

    return _Handler(True, True, None, None, None, None, None, refuse)


def exchange_class(settings: Settings) -> type[AioExchange]:
    """Return what an RPC is to be, by `durability`."""
    if settings.durability == "commit":
        return CommittedAio
    if settings.durability == "spool":
        return SyncedAio if settings.spool_fsync == "always" else SpooledAio
    return AioExchange
