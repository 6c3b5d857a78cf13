"""How an RPC of an asyncio server has its row before its end, and one more if it ends otherwise.

What the server is about to send is written down by `finish_first`; what it has sent is read when it
is done with the RPC, as for every other. Threads come to the loop from here, for all that concerns
a row is done there, where nothing is done at once.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from auditlog.capture.outcomes import DERIVED, WIRE
from auditlog.capture.rpc.aio import AioExchange
from auditlog.capture.rpc.aio_ending import LARGEST_INT
from auditlog.capture.rpc.durable import ONE_ANSWER, DurableExchange
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.status import UNKNOWN, number_of, outcome_of
from auditlog.capture.shared import Capture

# Beyond what a commit may take: a loop that is as late as this is not going to answer a thread.
_LATENESS_S: Final = 1.0
_ON_LOOP: Final = (
    "the row of an RPC cannot be waited for: an interceptor runs its plain function on the event"
    " loop; put the AuditInterceptor first, or make the handler a coroutine"
)


class DurableAioEnding(DurableExchange, AioExchange):
    """The half of a `SpooledAio` that concludes."""

    __slots__ = (
        "_abort",
        "_foresees",
        "_generates",
        "_is_over",
        "_loop",
        "_progress",
        "_was_cut",
        "_yielded",
    )

    _abort: tuple[Any, Any, Any] | None
    """What the client is told by an abort."""
    _foresees: bool
    """Is the status written down that the server is about to send?"""
    _generates: bool
    """Does the server itself write what a generator yields?"""
    _progress: asyncio.Future[None] | None
    """Awaited for the next message to be written, or for the end."""
    _was_cut: bool
    """Was it over before the server had sent a status?"""
    _yielded: int
    """How many messages a generator in a thread has given to the server."""

    def __init__(self, capture: Capture, details: Any) -> None:
        AioExchange.__init__(self, capture, details)
        self._abort = None
        self._foresees = self._generates = self._is_over = self._was_cut = False
        self._loop = asyncio.get_running_loop()
        self._progress = None
        self._yielded = 0

    def finish_first(self) -> None:
        """Hand the row over, with the status that the server is about to send."""
        if not self._finished:
            self._release()
            self._foresees = True
            self.finish_before_end()
            self._foresees = False

    def conclude(self, error: BaseException | None) -> None:
        """Write down what the server is about to send; read what it has sent, when it is over."""
        context = self._context
        aborted = self._abort is not None and context is not None and context.done()
        if context is None or not (self._foresees or aborted):
            self._conclude_over(context, error)
            return
        self._finished = True
        if self._abort is None:
            self._conclude_sent(context)
        else:
            self._conclude_aborted(context, *self._abort)
        GrpcExchange.conclude(self, error)
        if not self._foresees:
            self.source = self._context = self._error = None

    def is_cut_short(self) -> bool:
        """Tell, of an RPC that is over, whether its client was gone before the status was sent."""
        return self._was_cut

    def late_error(self) -> BaseException | None:
        """Return what left the handler, if the server did not ask it to."""
        return self._error

    def call_on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have it called on the loop, from a thread: before what the thread causes there later."""
        if self._is_on_loop():
            function(*arguments)
            return
        with suppress(RuntimeError):  # the loop is closed and did not wait for the thread
            self._loop.call_soon_threadsafe(function, *arguments)

    def in_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it on the server's loop, and wait for it, in a thread.

        Raises:
            RuntimeError: The loop is closed, or it is where this is called.
            TimeoutError: It is stuck, or does not run any more.
        """
        self._run_on_loop(coroutine, self.recorder.settings.commit_timeout_s + _LATENESS_S)

    def wait_for_writes(self) -> None:
        """Wait, in a thread, until the loop has written what the thread has yielded.

        The server has a queue between them. As long as there is progress: a client may be slow, and
        so may its server be without us; an interceptor in front may let a message disappear.
        """
        if self._is_behind() and not self._is_on_loop():
            self._run_on_loop(self._all_written(), None)

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

    def _conclude_over(self, context: Any, error: BaseException | None) -> None:
        self._was_cut = context is not None and not (context.done() or self._ending)
        replaced = context is not None and self._was_replaced(context)
        AioExchange.conclude(self, error)
        if replaced:
            self.status, self.status_source = UNKNOWN, DERIVED
            self.outcome = outcome_of(UNKNOWN)

    def _was_replaced(self, context: Any) -> bool:
        """Tell whether an interceptor in front has raised, so that nobody serialized the answer."""
        is_answer = self.kind in ONE_ANSWER and not (self._ending or self._error)
        return is_answer and bool(context.done()) and context.code() is None

    def _conclude_aborted(
        self, context: Any, code: Any, details: Any, trailing_metadata: Any
    ) -> None:
        self.status, self.status_source = number_of(code, largest_int=LARGEST_INT), WIRE
        self.details = details or context.details()
        self._note_trailing(trailing_metadata or context.trailing_metadata())

    def _run_on_loop(self, coroutine: Coroutine[Any, Any, None], timeout_s: float | None) -> None:
        try:
            if self._is_on_loop():
                raise RuntimeError(_ON_LOOP)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def _is_on_loop(self) -> bool:
        """Tell whether an interceptor in front calls on the loop what the server would not."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _is_behind(self) -> bool:
        return self.messages_out < self._yielded and not self._finished

    async def _all_written(self) -> None:
        while self._is_behind():
            self._progress = self._loop.create_future()
            done, _ = await asyncio.wait({self._progress}, timeout=_LATENESS_S)
            if not done:
                return

    def _wake(self) -> None:
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)
