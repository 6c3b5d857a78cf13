"""`QuotaInterceptor` for `grpc.aio.server`: an RPC beyond a quota is not carried out.

    server = grpc.aio.server(interceptors=[AuditInterceptor(audit), QuotaInterceptor(quotas)])
    ...
    await server.start()
    async with audit, quotas:  # what is held in advance is given back, then the log is drained
        await server.wait_for_termination()

Put it behind the audit interceptor, so that a refused RPC has its row, and behind those that find
out who asks. It decides when the handler is about to run; a client that is refused gets
RESOURCE_EXHAUSTED, and is told when to come again. `QuotaExceeded`, raised by a handler, becomes
the same. Everything else passes unchanged, and a handler stays what it was: coroutine, asynchronous
generator or plain function.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final

import grpc
import grpc.aio

from auditlog.capture.context import current
from auditlog.capture.grpc_aio import AuditInterceptor
from auditlog.capture.rpc.aio import AioExchange
from auditlog.capture.rpc.inside_aio import COROUTINE, GENERATOR, PLAIN, flavour
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


class QuotaInterceptor(grpc.aio.ServerInterceptor):
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

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Find the method's handler, and put its quotas before it."""

        async def find(details: Any) -> Any:
            return self._limit(details.method, await continuation(details))

        outer = current.get()
        if isinstance(outer, AioExchange) and outer.resolving:
            return await find(handler_call_details)
        self._gate.note_outside()
        return await self._audit.intercept_service(find, handler_call_details)

    def _limit(self, path: str, handler: Any) -> Any:
        if handler is None:
            return unknown(_Limited(self._gate, OTHER, _not_found).reject)
        if not is_limited(path):
            return handler

        def stand_in(behaviour: Any) -> Any:
            limited = _Limited(self._gate, path, behaviour)
            return limited.stand_in(streams=handler.response_streaming)

        return rewired(handler, stand_in)


class _Limited:
    """One method's function, behind its quotas."""

    __slots__ = ("_behaviour", "_gate", "_path")

    def __init__(self, gate: Gate, path: str, behaviour: Callable[[Any, Any], Any]) -> None:
        self._gate = gate
        self._path = path
        self._behaviour = behaviour

    def stand_in(self, *, streams: bool) -> Any:
        """Return what the server is to run in the function's place: something of its kind."""
        kind = flavour(self._behaviour)
        if kind is PLAIN and streams:
            return self._generate_in_thread
        return getattr(self, _FLAVOURS[kind])

    async def reject(self, request: Any, context: Any) -> None:
        """Answer for a method that is not there, which is counted like any other."""
        self._gate.forget_kind()
        await self._answer(request, context)

    async def _answer(self, request: Any, context: Any) -> Any:
        """Run a coroutine function, whether it returns its answer or calls `context.write`."""
        try:
            await self._gate.admit(self._path, context)
            return await self._behaviour(request, context)
        except QuotaExceeded as exceeded:
            await context.abort(*refusal_of(exceeded.decision))

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            await self._gate.admit(self._path, context)
            async with aclosing(self._behaviour(request, context)) as responses:
                async for message in responses:
                    yield message
        except QuotaExceeded as exceeded:
            await context.abort(*refusal_of(exceeded.decision))

    def _answer_in_thread(self, request: Any, context: Any) -> Any:
        try:
            self._gate.admit_in_thread(self._path, context)
            return self._behaviour(request, context)
        except QuotaExceeded as exceeded:
            return context.abort(*refusal_of(exceeded.decision))

    def _generate_in_thread(self, request: Any, context: Any) -> Iterator[Any]:
        """Call the function in the thread, too, where there may be something to wait for."""
        try:
            self._gate.admit_in_thread(self._path, context)
            yield from self._behaviour(request, context)
        except QuotaExceeded as exceeded:
            # Not by `abort`: the loop may be sending what was yielded before, and of 1 000
            # clients 2 were left without an end then (grpcio 1.85, 2026-11-28); this way none.
            code, details, trailing_metadata = refusal_of(exceeded.decision)
            context.set_code(code)
            context.set_details(details)
            context.set_trailing_metadata(trailing_metadata)


async def _not_found(_: Any, context: Any) -> None:
    await context.abort(*NOT_FOUND)


_FLAVOURS: Final = {
    COROUTINE: "_answer",
    GENERATOR: "_generate",
    PLAIN: "_answer_in_thread",
}
