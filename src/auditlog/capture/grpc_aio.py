"""`AuditInterceptor` for `grpc.aio.server`: one `LogRecord` per RPC.

    audit = AuditLog("postgresql://…")
    server = grpc.aio.server(interceptors=[AuditInterceptor(audit)])
    ...
    await server.start()
    async with audit:  # writes what is left when the server has stopped
        await server.wait_for_termination()

Put it first, so that it sees what other interceptors refuse. Messages, exceptions and statuses pass
unchanged, and a handler stays what it was: coroutine, asynchronous generator or plain function.
The row is put together when the RPC is over, when nobody waits for it any more, unless `durability`
asks for it before. An error in here is counted and logged, and never becomes an error of the RPC,
unless `durability` is `commit`.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import grpc.aio

from auditlog.capture.context import current
from auditlog.capture.policy import Policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.rpc.aio import AioExchange
from auditlog.capture.rpc.durable_aio import exchange_class, refusing
from auditlog.capture.shared import Capture, Identify


class AuditInterceptor(grpc.aio.ServerInterceptor):
    """Record every RPC that passes.

    Args:
        audit: The log to write to. It starts with the first RPC; drain it as shown above.
        policy: What to record; from `policy_file` of the settings, or the default one.
        user_id: Asked, with the `ServicerContext`, before the handler runs and again when it has
            run, if it has not named the user: a call that was cut off by then has forgotten its
            peer. Without an answer, it is who the client's certificate says.
        instance_id: Likewise for the tenant.
        resource_owner: Likewise for the organisation.

    Raises:
        PolicyError: the policy file is invalid.
        SettingsError: a setting that cannot work.
    """

    def __init__(
        self,
        audit: Recorder,
        *,
        policy: Policy | None = None,
        user_id: Identify | None = None,
        instance_id: Identify | None = None,
        resource_owner: Identify | None = None,
    ) -> None:
        self._capture = Capture.of(
            audit,
            policy,
            user_id=user_id,
            instance_id=instance_id,
            resource_owner=resource_owner,
        )
        self._exchange_class = exchange_class(audit.settings)
        self._waits_for_room = audit.settings.on_overflow == "block"

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Any]],
        handler_call_details: Any,
    ) -> Any:
        """Find the method's handler, and watch what it does."""
        outer = current.get()
        if isinstance(outer, AioExchange) and outer.resolving:
            return await continuation(handler_call_details)  # installed twice
        try:
            exchange = self._exchange_class(self._capture, handler_call_details)
        except Exception as error:  # noqa: BLE001  # details that are not what they should be
            with suppress(Exception):  # a log of the application's own
                self._capture.recorder.lose(error)
            if self._capture.recorder.settings.durability == "commit":
                return refusing(self._capture.recorder.settings)
            return await continuation(handler_call_details)
        # It is never set back: the context is the RPC's own, and ends with it.
        current.set(exchange)
        try:
            if self._waits_for_room and not exchange.is_exempt():
                await exchange.wait_for_room()
            handler = await continuation(handler_call_details)
        except BaseException as error:
            exchange.refuse(error)
            raise
        return exchange.wrap(handler)
