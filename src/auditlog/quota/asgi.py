"""`QuotaMiddleware`: a request beyond a quota is not carried out.

Pure ASGI, for any framework, inside `AuditMiddleware`, so that a refused request has its row, and
behind what finds out who asks. What is let pass is passed on unchanged, message for message, but
for the RateLimit fields where they are asked for. An error in here never becomes the request's.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from auditlog.capture.asgi import AuditMiddleware
from auditlog.capture.context import current
from auditlog.capture.recorder import Recorder
from auditlog.capture.shared import Identify, refuse_coroutine
from auditlog.capture.web.asgi_types import ASGIApp, Message, Receive, Scope, Send
from auditlog.capture.web.ending import STARTS
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.capture.web.lifespan import pass_lifespan
from auditlog.quota.admitting.admission import Admission, Traffic, admit, key_of
from auditlog.quota.answering.fields import LIMIT, POLICY, fields_of
from auditlog.quota.answering.refusal import refusal_messages
from auditlog.quota.counting.counted import SAFE_METHODS
from auditlog.quota.model import Decision, QuotaExceeded
from auditlog.quota.quotas import Quotas
from auditlog.reporting import Reporter, describe

_Made = TypeVar("_Made")

_COUNTED: Final = frozenset({"http", "websocket"})
_BEGINNINGS: Final = STARTS | {"websocket.accept", "websocket.close"}
_OWN: Final = frozenset({POLICY, LIMIT})
_ASKED: Final = "auditlog.asked"
"""Names, in a scope, the quotas that were asked about it."""


class QuotaMiddleware:
    """Count every request that passes, and refuse what goes beyond a quota.

    Args:
        app: The application inside.
        quotas: Begun and ended with the application's lifespan.
        headers: Do answers within the limit tell what is left, too?
        key: Asked, with the scope, for the client's API key, for quotas per key. Only a hash is
            stored of it.

    Raises:
        PolicyError, SettingsError: as `AuditMiddleware` does, which it brings if none is outside.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        quotas: Quotas,
        headers: bool = False,
        key: Identify | None = None,
    ) -> None:
        refuse_coroutine("key", key)
        self.app = app
        self.quotas = quotas
        self._headers = headers
        self._key = key
        self._reporter = quotas.recorder.reporter
        self._life = cast("Recorder", _Life(quotas))
        # Steps back where there is one outside. A lifespan passes both: a start may be nested.
        self._audited = AuditMiddleware(self._pass, audit=quotas.recorder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope.get("type") not in _COUNTED:
            await self._audited(scope, receive, send)
            return
        exchange = _exchange_of(scope)
        if exchange is not None:
            await self._serve(exchange, scope, receive, send)
            return
        if current.get() is None:
            self._note_outside()
        await self._audited(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope.get("type")
        if kind == "lifespan":
            await pass_lifespan(self.app, self._life, scope, receive, send)
        elif kind in _COUNTED:
            exchange = current.get()
            known = exchange if isinstance(exchange, AsgiExchange) else None
            await self._serve(known, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(
        self, exchange: AsgiExchange | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        asked = scope.get(_ASKED, ())
        scope[_ASKED] = (*asked, self.quotas)
        try:
            # One for the application and one for what is mounted in it: a request is one of both.
            admission = None if self.quotas in asked else await self._ask(exchange, scope)
            await self._heed(admission, exchange, scope, receive, send)
        finally:
            # A scope may be served again: a cascade tries one application after the other.
            scope[_ASKED] = asked

    async def _ask(self, exchange: AsgiExchange | None, scope: Scope) -> Admission | None:
        traffic = self._safely(self._traffic, exchange, scope)
        return None if traffic is None else await admit(self.quotas, traffic)

    async def _heed(
        self,
        admission: Admission | None,
        exchange: AsgiExchange | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        if admission is not None and admission.refusal is not None:
            await self._refuse(admission.refusal, scope, send)
            return
        fields = None if admission is None else self._safely(self._fields, admission)
        answer = _Answer(send, fields or [], self._reporter)
        try:
            await self.app(scope, receive, answer.send)
        except QuotaExceeded as exceeded:
            if answer.has_begun:
                raise
            if exchange is not None:
                exchange.metadata["audit.quota_refused"] = exceeded.decision.quota.id
            await self._refuse(exceeded.decision, scope, send)

    async def _refuse(self, refusal: Decision, scope: Scope, send: Send) -> None:
        # A client that is gone needs no answer.
        with suppress(OSError):
            for message in refusal_messages(scope, refusal, self._reporter):
                await send(message)

    def _traffic(self, exchange: AsgiExchange | None, scope: Scope) -> Traffic:
        method = scope.get("method", "GET")
        address = None
        if exchange is not None:
            address = exchange.client_address()
        return Traffic(
            method,
            scope.get("path", "") if exchange is None else exchange.path,
            method not in SAFE_METHODS,
            address,
            key_of(self._key, scope, self._reporter),
            exchange,
        )

    def _fields(self, admission: Admission) -> list[tuple[bytes, bytes]]:
        return fields_of(admission.decisions) if self._headers else []

    def _safely(self, make: Callable[..., _Made], *arguments: Any) -> _Made | None:
        """Return what is made; None, and a log line, where that fails."""
        try:
            return make(*arguments)
        except Exception as error:  # noqa: BLE001  # never an error of the request
            self._reporter.report(
                "auditlog.quota_failed",
                f"a request is not held to its quotas, or not told of them: {describe(error)}",
            )
            return None

    def _note_outside(self) -> None:
        self._reporter.report(
            "auditlog.quota_outside",
            "a QuotaMiddleware brings its own AuditMiddleware, with the default policy and without"
            " callables: put yours around it",
        )


class _Answer:
    """One answer on its way out: has it begun, and does it tell what is left?"""

    __slots__ = ("_fields", "_reporter", "_send", "has_begun")

    def __init__(self, send: Send, fields: list[tuple[bytes, bytes]], reporter: Reporter) -> None:
        self._send = send
        self._fields = fields
        self._reporter = reporter
        self.has_begun = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if not self.has_begun:
            try:
                message = self._begun(message)
            except Exception as error:  # noqa: BLE001  # not a message, but not ours to refuse
                self._reporter.report(
                    "auditlog.message_unreadable",
                    f"a message that is not ASGI passed: {describe(error)}",
                )
        await self._send(message)

    def _begun(self, message: Message) -> Message:
        kind = message.get("type")
        self.has_begun = kind in _BEGINNINGS
        if not self._fields or kind not in STARTS:
            return message
        # The list goes into the copy in any case: the application's may be an iterator.
        headers = list(message.get("headers") or ())
        if not any(bytes(name).lower() in _OWN for name, _ in headers):
            headers += self._fields
        return {**message, "headers": headers}


class _Life:
    """The life of quotas, as `pass_lifespan` asks for it."""

    def __init__(self, quotas: Quotas) -> None:
        self.reporter = quotas.recorder.reporter
        self.start = quotas.start
        self.aclose = quotas.aclose


def _exchange_of(scope: Scope) -> AsgiExchange | None:
    """Return the request of a scope, as the audit middleware outside sees it.

    One application may be served by another, in the same task: what is current is then not ours.
    Whoever rewrites a scope on the way in, for a mount as an example, keeps its headers.
    """
    holder = current.get()
    if isinstance(holder, AsgiExchange) and holder.source.get("headers") is scope.get("headers"):
        return holder
    return None
