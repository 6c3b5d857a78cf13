"""RPCs of an asyncio server whose row is kept before their answer.

The last of Python's steps before the server sends is the serializer for an answer, the end of the
handler for everything else, but for `abort`: that sends by itself, so handlers are given a context
that hands the row over first. Where a row has to be waited for, that is done when the handler has
ended, and on the event loop; what a handler in a thread needs of it, it asks the loop for.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final

import grpc
import grpc.aio

from auditlog.capture.context import current
from auditlog.capture.outcomes import DERIVED, WIRE
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
from auditlog.capture.rpc.inside_aio import asynchronous, can_be_sent, is_answered
from auditlog.capture.rpc.status import SUCCESS, UNKNOWN, number_of, outcome_of
from auditlog.capture.shared import Capture
from auditlog.settings import Settings
from auditlog.ticket import Ticket

# Beyond what a commit may take: a loop that is as late as this is not going to answer a thread.
_LATENESS_S: Final = 1.0


class SpooledAio(DurableExchange, AioExchange):
    """One whose row is handed over before the client can have the whole answer."""

    __slots__ = (
        "_abort",
        "_foresees",
        "_generates",
        "_is_over",
        "_late_error",
        "_loop",
        "_progress",
        "_was_cut",
        "_yielded",
    )

    waits = False
    """Is its row to be waited for?"""
    _abort: tuple[Any, Any, Any] | None
    """What the client is told by an abort."""
    _foresees: bool
    """Is the status written down that the server is about to send?"""
    _generates: bool
    """Does the server itself write what a generator yields?"""
    _late_error: BaseException | None
    _progress: asyncio.Future[None] | None
    """Awaited for the next message to be written, or for the end."""
    _was_cut: bool
    """Was it over before the server had sent a status?"""
    _yielded: int
    """How many messages a generator in a thread has given to the server."""

    def __init__(self, capture: Capture, details: Any) -> None:
        AioExchange.__init__(self, capture, details)
        self._abort = self._late_error = None
        self._foresees = self._generates = self._is_over = self._was_cut = False
        self._loop = asyncio.get_running_loop()
        self._progress = None
        self._yielded = 0

    # What the server runs in the handler's place.

    async def _answer(self, request: Any, context: Any) -> Any:
        """Run a coroutine function, whether it returns its answer or calls `context.write`."""
        self._start(context)
        async with _Keeping(self, context) as keeping:
            keeping.response = await self._behaviour(request, AsyncContext(self, context))
        return keeping.response

    async def _converse(self, request: Any, context: Any) -> Any:
        return await self._answer(request, context)

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._start(context)
        self._generates = True
        async with _Keeping(self, context):
            responses = self._behaviour(request, AsyncContext(self, context))
            async with aclosing(responses):
                async for message in responses:
                    yield message

    def _answer_in_thread(self, request: Any, context: Any) -> Any:
        self.call_on_loop(self._start_for_thread, context)
        outer = current.get()
        current.set(self)
        try:
            with _KeepingInThread(self, context) as keeping:
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
        with _KeepingInThread(self, context):
            for message in self._behaviour(request, ThreadContext(self, context)):
                self._yielded += 1
                yield message

    async def _reject(self, _: Any, context: Any) -> None:
        self._start(context)
        async with _Keeping(self, context):
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
            return not self._finished and isinstance(error, Exception) and is_answered(error)
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
        if self._context is None or self._is_over:
            return
        # No abort: the last message of a generator in a thread may be on its way, and two sendings
        # at once are one too many. What left the handler is what leaves here, and is logged.
        self._context.set_code(WITHHELD.code)
        self._context.set_trailing_metadata(WITHHELD.trailing_metadata)
        if error is None:
            self._context.set_details(WITHHELD.details)

    async def abort(self, code: Any, details: Any, trailing_metadata: Any) -> None:
        """Hand the row over, and abort; returns only if the RPC's context was never found."""
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

    def finish_first(self) -> None:
        """Hand the row over, with the status that the server is about to send."""
        if not self._finished:
            self._release()
            self._foresees = True
            self.finish_before_end()
            self._foresees = False

    def call_on_loop(self, function: Any, *arguments: Any) -> None:
        """Have it called on the loop, from a thread: before what the thread causes there later."""
        with suppress(RuntimeError):  # the loop is closed and did not wait for the thread
            self._loop.call_soon_threadsafe(function, *arguments)

    def wait_for_writes(self) -> None:
        """Wait, in a thread, until the loop has written what the thread has yielded.

        The server has a queue between them. Without end, for a client may be slow, and so may its
        server be without us.
        """
        if self._is_behind():
            self._run_on_loop(self._all_written(), None)

    def in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it on the server's loop, and wait for it, in a thread.

        Raises:
            RuntimeError: The loop is closed.
            TimeoutError: It is stuck, or does not run any more.
        """
        self._run_on_loop(coroutine, self.recorder.settings.commit_timeout_s + _LATENESS_S)

    def _run_on_loop(self, coroutine: Coroutine[Any, Any, None], timeout_s: float | None) -> None:
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    # What becomes of it.

    def conclude(self, error: BaseException | None) -> None:
        """Write down what the server is about to send; read what it has sent, when it is over."""
        context = self._context
        aborted = self._abort is not None and context is not None and context.done()
        if context is None or not (self._foresees or aborted):
            self._was_cut = context is not None and not (context.done() or self._ending)
            self._late_error = self._error
            replaced = context is not None and self._was_replaced(context)
            AioExchange.conclude(self, error)
            if replaced:
                self.status, self.status_source = UNKNOWN, DERIVED
                self.outcome = outcome_of(UNKNOWN)
            return
        self._finished = True
        if self._abort is None:
            self._conclude_sent(context)
        else:
            self._conclude_aborted(context, *self._abort)
        GrpcExchange.conclude(self, error)
        if not self._foresees:
            self._late_error = self._error
            self.source = self._context = self._error = None

    def _was_replaced(self, context: Any) -> bool:
        """Tell whether an interceptor in front has raised, so that nobody serialized the answer."""
        is_answer = self.kind in ONE_ANSWER and not (self._ending or self._error)
        return is_answer and bool(context.done()) and context.code() is None

    def late_error(self) -> BaseException | None:
        """Return what left the handler, if the server did not ask it to."""
        return self._late_error

    def is_cut_short(self) -> bool:
        """Tell, of an RPC that is over, whether its client was gone before the status was sent."""
        return self._was_cut

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

    async def _is_durable(self, ticket: Ticket) -> bool:
        try:
            return await self.recorder.durable(ticket)
        except Exception as failure:  # noqa: BLE001  # a log of the application's own
            self.note_undecided(failure)
            return False

    def _conclude_aborted(
        self, context: Any, code: Any, details: Any, trailing_metadata: Any
    ) -> None:
        self.status, self.status_source = number_of(code, largest_int=LARGEST_INT), WIRE
        self.details = details or context.details()
        self._note_trailing(trailing_metadata or context.trailing_metadata())

    def _watch(self) -> None:
        if self._task is None:
            AioExchange._watch(self)

    def _wrapped(self, handler: Any) -> Any:
        self._watch()
        return AioExchange._wrapped(self, handler)

    def _over(self, source: Any) -> None:
        if not self._finished:
            AioExchange._over(self, source)
        elif self.said_before is not None and self._context is not None:
            self.finish(None)
        # Else it is a task of another interceptor's, which has looked for the handler.
        self._is_over = self._finished
        self._wake()

    def _is_behind(self) -> bool:
        return self.messages_out < self._yielded and not self._finished

    async def _all_written(self) -> None:
        while self._is_behind():
            self._progress = self._loop.create_future()
            await self._progress

    def _wake(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

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
        ticket = self.announce_durably()
        if ticket is not None and not await self._is_durable(ticket):
            self.note_refusal()
            self._abort = not_carried_out(self.recorder.settings.commit_timeout_s)
            self.finish_first()
            await self._abort_with(*self._abort)
            raise RuntimeError("abort returned: the context is not grpcio's")
        if self._is_over:
            # In a thread, where the end of the RPC ends nothing.
            raise asyncio.CancelledError

    async def _keep(self) -> bool:
        self.finish_first()
        return self.ticket is None or await self._is_durable(self.ticket)


def exchange_class(settings: Settings) -> type[AioExchange]:
    """Return what an RPC is to be, by `durability`."""
    if settings.durability == "commit":
        return CommittedAio
    if settings.durability == "spool":
        return SyncedAio if settings.spool_fsync == "always" else SpooledAio
    return AioExchange


class _Keeping:
    """Around a coroutine or an asynchronous generator."""

    __slots__ = ("_context", "_exchange", "response")

    def __init__(self, exchange: SpooledAio, context: Any) -> None:
        self._exchange = exchange
        self._context = context
        self.response: Any = None

    async def __aenter__(self) -> "_Keeping":
        await self._exchange.begin_durably()
        return self

    async def __aexit__(
        self, _: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._exchange.has_ended(error, self._context, self.response):
            await self._exchange.end_durably(error)


class _KeepingInThread:
    """Around what runs in a thread. What does not wait is done on the loop, before it goes on."""

    __slots__ = ("_context", "_exchange", "response")

    def __init__(self, exchange: SpooledAio, context: Any) -> None:
        self._exchange = exchange
        self._context = context
        self.response: Any = None

    def __enter__(self) -> "_KeepingInThread":
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
