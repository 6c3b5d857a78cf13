"""`AuditMiddleware`: ASGI traffic → one `LogRecord` per HTTP request or WebSocket.

Pure ASGI, stateless, for any framework. Every message and every exception passes unchanged, byte
for byte and object for object; scopes of other types are not looked at. An error in here is counted
and logged, and never becomes an error of the request, unless `durability` is `commit`.
"""

from collections.abc import Callable
from typing import Any

from auditlog.capture.context import current
from auditlog.capture.policy import Policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.shared import Capture, Identify
from auditlog.capture.web.asgi_types import ASGIApp, Receive, Scope, Send
from auditlog.capture.web.http import HttpExchange
from auditlog.capture.web.lifespan import pass_lifespan
from auditlog.capture.web.serving import refuse_unread, serving
from auditlog.capture.web.websocket import WebSocketExchange

# The scope key that keeps a middleware that is installed twice from recording twice.
_SEEN = "auditlog.seen"
_EXCHANGES: dict[
    Any, Callable[[Capture, Scope, Receive, Send], HttpExchange | WebSocketExchange]
] = {
    "http": HttpExchange,
    "websocket": WebSocketExchange,
}


class AuditMiddleware:
    """Record every request that passes.

    Args:
        app: The application inside.
        audit: The log to write to; started and drained with the application's lifespan.
        policy: What to record; from `policy_file` of the settings, or the default one.
        user_id: Asked, with the scope, after the application ran, when no handler has named the
            user; `scope["user"]` of Starlette's `AuthenticationMiddleware` without it. For a row
            that is written when the request begins, it is asked then, too.
        instance_id: Likewise for the tenant.
        resource_owner: Likewise for the organisation.

    Raises:
        PolicyError: the policy file is invalid.
        SettingsError: a setting that cannot work.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        audit: Recorder,
        policy: Policy | None = None,
        user_id: Identify | None = None,
        instance_id: Identify | None = None,
        resource_owner: Identify | None = None,
    ) -> None:
        self.app = app
        self.audit = audit
        self._capture = Capture.of(
            audit,
            policy,
            default_user=authenticated_user,
            user_id=user_id,
            instance_id=instance_id,
            resource_owner=resource_owner,
        )
        self._serve = serving(self._capture)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        make = None if _SEEN in scope else _EXCHANGES.get(scope.get("type"))
        if make is None:
            await self._pass(scope, receive, send)
            return
        try:
            exchange = make(self._capture, scope, receive, send)
        except Exception as error:  # noqa: BLE001  # a scope that is not what it should be
            self.audit.lose(error)
            if self.audit.settings.durability == "commit":
                await refuse_unread(scope, send, self.audit.settings)
            else:
                await self.app(scope, receive, send)
            return
        scope[_SEEN] = True
        outer = current.get()
        current.set(exchange)
        try:
            if self._serve is None:
                await self.app(scope, exchange.receive, exchange.outgoing())
            else:
                await self._serve(self.app, exchange, scope)
        except BaseException as error:
            exchange.finish(error)
            raise
        else:
            exchange.finish(None)
        finally:
            # A scope may be served again: a cascade tries one application after the other.
            scope.pop(_SEEN, None)
            # Not by token: a coroutine may be closed in another context than it began in, and
            # what is current there is not ours to replace.
            if current.get() is exchange:
                current.set(outer)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("type") == "lifespan":
            await pass_lifespan(self.app, self.audit, scope, receive, send)
        else:
            await self.app(scope, receive, send)


def authenticated_user(scope: Scope) -> str | None:
    """Name the user whom an authentication middleware has put into the scope, if it did."""
    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    for attribute in ("identity", "username", "display_name"):
        try:
            name = getattr(user, attribute, None)
        except NotImplementedError:  # Starlette's BaseUser, where a subclass has no identity
            continue
        if name:
            return str(name)
    return None
