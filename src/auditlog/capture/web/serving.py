"""How the application is called: at once, or with what has to be done and waited for around it.

In memory mode there is nothing: the middleware then calls it by itself, which costs least.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from auditlog.capture.shared import Capture
from auditlog.capture.web.asgi_types import ASGIApp, Scope, Send
from auditlog.capture.web.committed import serve_committed
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.capture.web.refusal import NOT_CARRIED_OUT, retry_after, scope_refusal
from auditlog.capture.web.spooled import serve_spooled
from auditlog.settings import Settings

Serve: TypeAlias = Callable[[ASGIApp, AsgiExchange, Scope], Awaitable[None]]
"""Calls the application for a request; the row is made by then, or left to `finish`."""


def serving(capture: Capture) -> Serve | None:
    """Return what the settings and the policy ask for; None: nothing but the application."""
    settings = capture.recorder.settings
    serve: Serve | None = None
    if settings.durability == "commit":
        serve = serve_committed
    else:
        if settings.durability == "spool":
            serve = serve_spooled
        if capture.policy.announces:
            serve = _announcing(serve or serve_plainly)
    if settings.on_overflow == "block":
        serve = _when_there_is_room(serve or serve_plainly)
    return serve


async def serve_plainly(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
    """Call the application."""
    await app(scope, exchange.receive, exchange.outgoing())


async def refuse_unread(scope: Scope, send: Send, settings: Settings) -> None:
    """Answer a request of which nothing can be told, where none is served without a row."""
    for message in scope_refusal(scope, NOT_CARRIED_OUT, retry_after(settings)):
        await send(message)


def _announcing(serve: Serve) -> Serve:
    """Make a received row first, if a rule asks for one."""

    async def announce_and_serve(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
        exchange.announce()
        await serve(app, exchange, scope)

    return announce_and_serve


def _when_there_is_room(serve: Serve) -> Serve:
    """Wait for room in the queue first, unless a rule exempts the request."""

    async def wait_and_serve(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
        if not exchange.is_exempt():
            await exchange.recorder.room()
        await serve(app, exchange, scope)

    return wait_and_serve
