"""The lifespan that passes through: the log starts with the application and drains after it.

Frameworks that refuse the lifespan scope outright (Django) get it answered here, so that a server
waits for the drain under them too. Everything else passes untouched, message by message.
"""

from auditlog.capture.asgi_types import ASGIApp, Message, Receive, Scope, Send
from auditlog.capture.recorder import Recorder

_ENDS = frozenset(
    {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}
)


class Lifespan:
    """One lifespan of one application."""

    __slots__ = ("_receive", "_received", "_recorder", "_send", "_started")

    def __init__(self, recorder: Recorder, receive: Receive, send: Send) -> None:
        self._recorder = recorder
        self._receive = receive
        self._send = send
        self._received = False
        self._started = False

    async def receive(self) -> Message:
        """Pass a message to the application; at the startup message, start the log."""
        message = await self._receive()
        self._received = True
        if message.get("type") == "lifespan.startup":
            await self._start()
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server; before the last one, drain the log."""
        if message.get("type") in _ENDS:
            await self.end()
        await self._send(message)

    async def end(self) -> None:
        """Undo the start, once."""
        if self._started:
            self._started = False
            await self._recorder.aclose()

    async def answer(self) -> bool:
        """Live the whole lifespan for an application that refused it before hearing a word.

        Returns:
            False when the application has heard something: then its exception is its answer.
        """
        if self._received:
            return False
        await self.receive()
        await self._send({"type": "lifespan.startup.complete"})
        await self.receive()
        await self.send({"type": "lifespan.shutdown.complete"})
        return True

    async def _start(self) -> None:
        self._started = True
        await self._recorder.start()


async def pass_lifespan(
    app: ASGIApp, recorder: Recorder, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run an application's lifespan with the log's life inside it."""
    lifespan = Lifespan(recorder, receive, send)
    try:
        await app(scope, lifespan.receive, lifespan.send)
    except Exception:
        if not await lifespan.answer():
            raise
    finally:
        await lifespan.end()
