"""How the application is called: at once, or with what has to be done and waited for around it.

In memory mode there is nothing: the middleware then calls it by itself, which costs least.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from auditlog.capture.shared import Capture
from auditlog.capture.web.asgi_types import ASGIApp, Scope
from auditlog.capture.web.committed import serve_committed
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.capture.web.spooled import serve_spooled

Serve: TypeAlias = Callable[[ASGIApp, AsgiExchange, Scope], Awaitable[None]]
"""Calls the application for a request; the row is made by then, or left to `finish`."""


def serving(capture: Capture) -> Serve | None:
    """Return what the settings ask for; None: nothing but the application."""
    settings = capture.recorder.settings
    serve: Serve | None = serve_announced if capture.policy.announces else None
    if settings.durability == "spool":
        serve = serve_spooled
    elif settings.durability == "commit":
        serve = serve_committed
    if settings.on_overflow == "block":
        return _when_there_is_room(serve or serve_plainly)
    return serve


async def serve_plainly(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
    """Call the application."""
    await app(scope, exchange.receive, exchange.outgoing())


async def serve_announced(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
    """Call the application, after a received row if a rule asks for one."""
    exchange.announce()
    await app(scope, exchange.receive, exchange.outgoing())


def _when_there_is_room(serve: Serve) -> Serve:
    async def serve_then(app: ASGIApp, exchange: AsgiExchange, scope: Scope) -> None:
        if not exchange.is_exempt():
            await exchange.recorder.room()
        await serve(app, exchange, scope)

    return serve_then
