"""`QuotaInterceptor` for the threaded `grpc.server`: an RPC beyond a quota is not carried out.

    interceptors = [AuditInterceptor(audit), QuotaInterceptor(quotas)]
    server = grpc.server(ThreadPoolExecutor(10), interceptors=interceptors)
    ...
    with audit, quotas:  # what is held in advance is given back, then the log is drained
        server.start()
        server.wait_for_termination()

Put it behind the audit interceptor, so that a refused RPC has its row, and behind those that find
out who asks. It decides in the handler's thread, never in the server's own; a client that is
refused gets RESOURCE_EXHAUSTED, and is told when to come again. `QuotaExceeded`, raised by a
handler, becomes the same. Everything else passes unchanged.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

import grpc

from auditlog.capture.context import current
from auditlog.capture.grpc_sync import AuditInterceptor
from auditlog.capture.rpc.threaded import ThreadedExchange
from auditlog.capture.shared import Identify
from auditlog.quota.admitting.gate import (
    NOT_FOUND,
    OTHER,
    Gate,
    is_limited,
    refusal_of,
    rewired,
    unknown,
)
from auditlog.quota.model import QuotaExceeded
from auditlog.quota.quotas import Quotas


class QuotaInterceptor(grpc.ServerInterceptor):
    """Count every RPC that passes, and refuse what goes beyond a quota.

    Args:
        quotas: They begin with the first RPC; end them as shown above.
        key: Asked, with the `ServicerContext`, for the client's API key, for quotas per key. Only
            a hash is stored of it.

    Raises:
        PolicyError: the policy file is invalid; it is read for RPCs that no audit interceptor in
            front has seen.
        SettingsError: a setting that cannot work, or `key` is a coroutine function.
    """

    def __init__(self, quotas: Quotas, *, key: Identify | None = None) -> None:
        self._gate = Gate(quotas, key)
        self._audit = AuditInterceptor(quotas.recorder)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Find the method's handler, and put its quotas before it; on the server's only thread."""

        def find(details: Any) -> Any:
            return self._limit(details.method, continuation(details))

        outer = current.get()
        if isinstance(outer, ThreadedExchange) and outer.resolving:
            return find(handler_call_details)
        self._gate.note_outside()
        return self._audit.intercept_service(find, handler_call_details)

    def _limit(self, path: str, handler: Any) -> Any:
        if handler is None:
            return unknown(_Rejecting(self._gate, OTHER, _not_found))
        if not is_limited(path):
            return handler
        kind = _Streaming if handler.response_streaming else _Limited
        return rewired(handler, partial(kind, self._gate, path))


class _Limited:
    """One method's function, behind its quotas; has all attributes of what it stands for."""

    def __init__(self, gate: Gate, path: str, behaviour: Callable[..., Any]) -> None:
        self._gate = gate
        self._path = path
        self._behaviour = behaviour

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behaviour, name)

    def __call__(self, request: Any, context: Any, *send: Callable[[Any], None]) -> Any:
        """Run it, if it may; one that is given a function to send with is grpcio's experiment."""
        try:
            self._gate.admit_in_thread(self._path, context)
            return self._behaviour(request, context, *send)
        except QuotaExceeded as exceeded:
            _refuse(context, exceeded)


class _Streaming(_Limited):
    """Of a handler that returns an iterator."""

    def __call__(self, request: Any, context: Any, *send: Callable[[Any], None]) -> Any:
        responses = _Limited.__call__(self, request, context, *send)
        return responses if send else _Responses(responses, context)


class _Rejecting(_Limited):
    """Of a method that is not there, which is counted like any other."""

    def __call__(self, request: Any, context: Any, *send: Callable[[Any], None]) -> Any:
        self._gate.forget_kind()
        return _Limited.__call__(self, request, context, *send)


class _Responses:
    """The handler's own iterator, which may raise `QuotaExceeded` at any message."""

    __slots__ = ("_context", "_responses")

    def __init__(self, responses: Any, context: Any) -> None:
        self._responses = responses
        self._context = context

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._responses)
        except QuotaExceeded as exceeded:
            _refuse(self._context, exceeded)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._responses, name)


def _refuse(context: Any, exceeded: QuotaExceeded) -> NoReturn:
    code, details, trailing_metadata = refusal_of(exceeded.decision)
    context.set_trailing_metadata(trailing_metadata)
    context.abort(code, details)
    raise exceeded  # the context is not grpcio's


def _not_found(_: Any, context: Any) -> None:
    context.abort(*NOT_FOUND)
