"""`durability="commit"`: no audit, no answer.

A received row is committed before the application runs, the complete row before the client can have
its whole answer. Until then the head of the answer is held back, so that what cannot be audited is
refused with 503; an answer whose head had to go before its end is broken off instead. The client of
a WebSocket is told by the close code 1013.
"""

import asyncio
from contextlib import suppress
from contextvars import Context, copy_context
from math import ceil
from typing import Final

from auditlog.capture.web.asgi_types import ASGIApp, Message, Scope
from auditlog.capture.web.ending import STARTS
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.capture.web.refusal import ANSWER_WITHHELD, NOT_CARRIED_OUT
from auditlog.capture.web.spooled import SpooledAnswer
from auditlog.errors import UnauditedError

MAX_HOLD_S: Final = 0.1
"""How long the head of an answer waits for its body. An event stream may have none for an hour,
and its client waits for the head; other applications have the body ready within milliseconds."""


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

    __slots__ = ("_context", "_has_begun", "_releasing", "_timer")

    def __init__(self, exchange: AsgiExchange) -> None:
        SpooledAnswer.__init__(self, exchange)
        self._has_begun = False
        """Has the client the head of an answer?"""
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._context: Context | None = None

    async def refuse(self) -> None:
        """Answer for an application that does not run. The row tells of it later."""
        exchange = self._exchange
        exchange.refused, exchange.ticket = True, None
        retry_after_s = ceil(exchange.recorder.settings.commit_timeout_s)
        await self._send_refusal(NOT_CARRIED_OUT, retry_after_s)

    async def end(self, error: Exception | None) -> None:
        """Wait for the row of an application that did not end its answer, before others do that.

        Raises:
            OSError: of the server, for a message that was held back.
        """
        if self._after is None and not self._exchange.disconnected:
            with suppress(UnauditedError):
                await self._conclude(error)

    def close(self) -> None:
        """Send nothing more by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _pass(self, message: Message) -> None:
        if self._held or self._has_begun or not _is_start(message):
            await self._release()
            await self._forward(message)
        else:
            await self._hold(message)
            self._context = copy_context()
            # Not in that one: a timer that is cancelled keeps its context until it would be due.
            self._timer = asyncio.get_running_loop().call_later(
                MAX_HOLD_S, self._release_soon, context=Context()
            )

    async def _conclude(self, error: Exception | None) -> None:
        self.close()
        # Also if the wait is cancelled: whatever the application sends then is not audited.
        self._after = _break_off
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

    async def _release(self) -> None:
        self.close()
        if self._releasing is not None:
            releasing, self._releasing = self._releasing, None
            await releasing
        if self._held:
            self._has_begun = True
            await SpooledAnswer._release(self)

    def _release_soon(self) -> None:
        """Let the head go without the body. What is held from here on is not a part of that."""
        (head,), self._held = self._held, []
        self._has_begun = True
        give = self._give(head)
        self._releasing = asyncio.get_running_loop().create_task(give, context=self._context)

    async def _give(self, head: Message) -> None:
        await self._server(head)


def _is_start(message: Message) -> bool:
    try:
        return message.get("type") in STARTS
    except Exception:  # noqa: BLE001  # not a message, but not ours to refuse
        return False


async def _swallow(_message: Message) -> None:
    """The client has its refusal."""


async def _break_off(_message: Message) -> None:
    raise UnauditedError("the answer is broken off: its row is not committed")
