"""`durability="spool"`: the row is in the spool before the client can have its whole answer.

Stands between the application and the exchange, and between that and the server: with the last
message the exchange concludes as if it had been sent, then it is. A client that turns out to be
gone just then has a row that says `ok`. Nothing else changes on the way, in either direction.
"""

from auditlog.capture.web.asgi_types import ASGIApp, Message, Scope, Send
from auditlog.capture.web.ending import Ending
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.ticket import Ticket


async def serve_spooled(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
    """Call the application; its row is in the spool before the end of its answer."""
    answer = SpooledAnswer(exchange)
    try:
        await app(scope, exchange.receive, answer.send)
    except Exception as error:
        await answer.end(error)
        raise
    await answer.end(None)


class SpooledAnswer:
    """One answer on its way out."""

    __slots__ = ("_after", "_exchange", "_forward", "_held", "_is_last", "_server")

    def __init__(self, exchange: AsgiExchange) -> None:
        self._exchange = exchange
        self._is_last = Ending(exchange.source).is_last
        self._forward = exchange.outgoing()
        self._server = exchange.server
        self._held: list[Message] = []
        """What the exchange has seen as sent, and the server has not been given."""
        self._after: Send | None = None
        """Where messages go once the row is made."""

    async def send(self, message: Message) -> None:
        """Pass a message on; before the last one, make the row."""
        if self._after is not None:
            await self._after(message)
            return
        try:
            is_last = self._is_last(message)
        except Exception:  # noqa: BLE001  # not a message, but not ours to refuse
            is_last = False
        if is_last:
            await self._hold(message)
            self._exchange.mark_end()
            await self._conclude(None)
        else:
            await self._pass(message)

    async def end(self, error: Exception | None) -> None:
        """Make the row of an application that did not end its answer, before others do that."""
        if self._after is None and not self._exchange.disconnected:
            await self._conclude(error)

    async def _pass(self, message: Message) -> None:
        await self._forward(message)

    async def _hold(self, message: Message) -> None:
        """Let the exchange see a message as sent, and keep it."""
        self._exchange.server = self._keep
        try:
            await self._forward(message)
        finally:
            self._exchange.server = self._server

    async def _keep(self, message: Message) -> None:
        self._held.append(message)

    async def _conclude(self, error: Exception | None) -> None:
        """Make the row, and pass on what was held back for it."""
        self._after = self._server
        exchange = self._exchange
        recorder = exchange.capture.recorder
        if recorder.settings.spool_fsync != "always":
            exchange.finish_before_end(error)
        else:
            exchange.ticket = ticket = Ticket()
            exchange.finish_before_end(error)
            # If it is not in time, that is counted, and the request goes on.
            await recorder.durable(ticket)
        await self._release()

    async def _release(self) -> None:
        while self._held:
            await self._give(self._held.pop(0))

    async def _give(self, message: Message) -> None:
        try:
            await self._server(message)
        except OSError:
            self._exchange.disconnected = True
            raise
