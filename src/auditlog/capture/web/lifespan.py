"""The lifespan that passes through: the log starts with the application and drains after it.

Applications that refuse the lifespan scope outright (Django), or leave it alone, get it answered
here, so that a server waits for the drain under them too. Everything else passes untouched,
message by message; an error of the log's own is reported and never becomes the lifespan's.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from auditlog.capture.recorder import Recorder
from auditlog.capture.web.asgi_types import ASGIApp, Message, Receive, Scope, Send
from auditlog.reporting import describe

# What `assert scope["type"] == "http"`, a table of handlers, or `scope["path"]` raise.
_REFUSALS = (AssertionError, KeyError, NotImplementedError)
_ENDS = frozenset(
    {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}
)


class Lifespan:
    """One lifespan of one application."""

    __slots__ = ("_receive", "_recorder", "_send", "_started", "untouched")

    def __init__(self, recorder: Recorder, receive: Receive, send: Send) -> None:
        self._recorder = recorder
        self._receive = receive
        self._send = send
        self._started = False
        self.untouched = True
        """Has the application neither heard nor said a word?"""

    async def receive(self) -> Message:
        """Pass a message to the application; at the startup message, start the log."""
        self.untouched = False
        message = await self._receive()
        if _type_of(message) == "lifespan.startup":
            self._started = True
            await self._safely(self._recorder.start)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server; before the last one, drain the log."""
        self.untouched = False
        if _type_of(message) in _ENDS:
            await self.end()
        await self._send(message)

    async def end(self) -> None:
        """Undo the start, once."""
        if self._started:
            self._started = False
            await self._safely(self._recorder.aclose)

    async def answer(self) -> None:
        """Live the whole lifespan for an application that does not."""
        await self.receive()
        await self._send({"type": "lifespan.startup.complete"})
        await self.receive()
        await self.send({"type": "lifespan.shutdown.complete"})

    async def _safely(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except Exception as error:  # noqa: BLE001  # never an error of the application
            self._recorder.reporter.report(
                "auditlog.lifespan_failed",
                f"the log could not be started or drained with the application: {describe(error)}",
                level=logging.ERROR,
            )


async def pass_lifespan(
    app: ASGIApp, recorder: Recorder, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run an application's lifespan with the log's life inside it."""
    lifespan = Lifespan(recorder, receive, send)
    try:
        try:
            await app(scope, lifespan.receive, lifespan.send)
        except Exception as error:
            if not (lifespan.untouched and _refuses(error)):
                raise
            recorder.reporter.report(
                "auditlog.lifespan_answered",
                f"the application refuses the lifespan scope ({describe(error)}), as it may",
                level=logging.INFO,
            )
        if lifespan.untouched:
            await lifespan.answer()
    finally:
        await lifespan.end()


def _refuses(error: Exception) -> bool:
    """Is it an answer to the scope's type, and not an application that cannot start?"""
    if isinstance(error, _REFUSALS):
        return True
    try:
        return "lifespan" in str(error)
    except Exception:  # noqa: BLE001  # the application's class, which passes as it is
        return False


def _type_of(message: Message) -> str | None:
    """Return a message's type; None for what is no message, which passes all the same."""
    kind = message.get("type") if isinstance(message, Mapping) else None
    return kind if isinstance(kind, str) else None
