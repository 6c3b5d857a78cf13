"""`durability="commit"`: no audit, no answer.

A received row is committed before the application runs, the complete row before the client can have
its whole answer. Until then the head of the answer is held back, so that what cannot be audited is
refused with 503; an answer whose head had to go before its end is broken off instead. The client of
a WebSocket is told by the close code 1013.
"""

import asyncio
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Final

from auditlog.capture.late import differs
from auditlog.capture.outcomes import DERIVED
from auditlog.capture.web.asgi_types import ASGIApp, Message, Scope
from auditlog.capture.web.ending import STARTS
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.capture.web.refusal import ANSWER_WITHHELD, NOT_CARRIED_OUT, retry_after
from auditlog.capture.web.spooled import SpooledAnswer
from auditlog.errors import UnauditedError

MAX_HOLD_S: Final = 0.1
"""How long the head of an answer waits for its body. An event stream may have none for an hour,
and its client waits for the head; other applications have the body ready within milliseconds."""
_INTERNAL_ERROR: Final = 500


async def serve_committed(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
    """Call the application once its received row is committed; refuse the request otherwise."""
    ticket = exchange.announce_durably()
    if ticket is None:
        await app(scope, exchange.receive, exchange.outgoing())
        return
    answer = CommittedAnswer(exchange)
    if not await exchange.recorder.durable(ticket):
        await answer.refuse()
        return
    try:
        await app(scope, exchange.receive, answer.send)
    except Exception as error:
        # What left the application is what leaves here.
        with suppress(Exception):
            await answer.end(error)
        raise
    else:
        await answer.end(None)
    finally:
        answer.close()


class CommittedAnswer(SpooledAnswer):
    """One answer, held back until it is audited."""

    __slots__ = ("_context", "_copy", "_has_begun", "_releasing", "_timer")

    def __init__(self, exchange: AsgiExchange) -> None:
        SpooledAnswer.__init__(self, exchange)
        self._has_begun = False
        """Has the client the head of an answer?"""
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._context: Context | None = None
        self._copy: Message | None = None
        """The head that is held back, as it was."""

    async def refuse(self) -> None:
        """Answer for an application that does not run. The row tells of it later."""
        exchange = self._exchange
        exchange.refused, exchange.ticket = True, None
        await self._send_refusal(NOT_CARRIED_OUT, retry_after(exchange.recorder.settings))

    async def end(self, error: Exception | None) -> None:
        """Wait for the row of an application that did not end its answer, before others do that.

        Raises:
            OSError: of the server, for a message that was held back.
        """
        with suppress(UnauditedError):
            await SpooledAnswer.end(self, error)

    def close(self) -> None:
        """Send nothing more by itself."""
        self._stop_timer()
        releasing = self._releasing
        # Of one that failed, nobody is left who could be told.
        if releasing is not None and not releasing.cancel() and not releasing.cancelled():
            releasing.exception()

    async def _pass(self, message: Message) -> None:
        if self._held or self._has_begun or not _is_start(message):
            await self._release()
            await self._forward(message)
        else:
            await self._hold(message)
            self._copy = _copied(self._held[0])
            self._context = copy_context()
            # Not in that one: a timer that is cancelled keeps its context until it would be due.
            self._timer = asyncio.get_running_loop().call_later(
                MAX_HOLD_S, self._release_soon, context=Context()
            )

    async def _conclude(self, error: Exception | None) -> None:
        self._stop_timer()
        # Also if the wait is cancelled: whatever the application sends then is not audited.
        self._after = self._break_off
        exchange = self._exchange
        exchange.finish_before_end(error)
        if exchange.ticket is None or await exchange.recorder.durable(exchange.ticket):
            self._after = self._server
            await self._release()
        else:
            await self._withhold(error)

    async def _withhold(self, error: Exception | None) -> None:
        """Let the client have no whole answer."""
        exchange = self._exchange
        exchange.refused = True
        if self._has_begun:
            failure = UnauditedError("the answer is broken off: its row is not committed in time")
            # What left the application breaks it off as well.
            exchange.finish(error or failure)
            raise failure
        self._after = _swallow
        try:
            await self._send_refusal(ANSWER_WITHHELD, None)
        finally:
            exchange.finish(None)

    async def _send_refusal(self, detail: str, retry_after_s: int | None) -> None:
        # A client that is gone needs none.
        with suppress(OSError):
            for message in self._exchange.refusal(detail, retry_after_s):
                await self._forward(message)

    async def _break_off(self, _message: Message) -> None:
        exchange = self._exchange
        exchange.refused = True
        if not self._has_begun:
            # The server answers for an application that does not.
            exchange.status, exchange.status_source = _INTERNAL_ERROR, DERIVED
        raise UnauditedError("the answer is broken off: its row is not committed")

    async def _release(self) -> None:
        self._stop_timer()
        if self._releasing is not None:
            releasing, self._releasing = self._releasing, None
            await releasing
        if self._held:
            self._has_begun = True
            self._restore_head()
            await SpooledAnswer._release(self)

    def _release_soon(self) -> None:
        """Let the head go without the body. What is held from here on is not a part of that."""
        self._restore_head()
        (head,), self._held = self._held, []
        self._has_begun = True
        give = self._give(head)
        self._releasing = asyncio.get_running_loop().create_task(give, context=self._context)

    def _restore_head(self) -> None:
        """Undo what the application did to the head in the belief that it was sent."""
        copy, self._copy = self._copy, None
        if copy is not None and differs(copy, self._held[0]):
            self._held[0] = copy

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_start(message: Message) -> bool:
    try:
        return message.get("type") in STARTS
    except Exception:  # noqa: BLE001  # not a message, but not ours to refuse
        return False


async def _swallow(_message: Message) -> None:
    """The client has its refusal."""


def _copied(head: Message) -> Message | None:
    """Copy a head as deep as applications change them; None where that is not to be had."""
    try:
        headers = head.get("headers")
        return {**head, "headers": headers.copy()} if type(headers) is list else {**head}
    except Exception:  # noqa: BLE001  # not a message, but not ours to refuse
        return None
