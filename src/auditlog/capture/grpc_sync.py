"""`AuditInterceptor` for the threaded `grpc.server`: one `LogRecord` per RPC.

    audit = AuditLog("postgresql://…")
    server = grpc.server(ThreadPoolExecutor(10), interceptors=[AuditInterceptor(audit)])
    ...
    with audit:  # a thread writes, and what is left when the server has stopped is written
        server.start()
        server.wait_for_termination()

Put it first, so that it sees what other interceptors refuse. Messages, exceptions and statuses pass
unchanged. A handler whose client has left runs on, and what it says is waited for, but for 10 s at
most: the row then comes without. `annotate()` works in handlers, generators, and interceptors
behind this one. An error in here is counted and logged, and never becomes an error of the RPC,
unless `durability` is `commit`.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc

from auditlog.capture.context import current
from auditlog.capture.policy import Policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.rpc.durable_threaded import exchange_class, refusing
from auditlog.capture.rpc.standins import stand_in, unwatched
from auditlog.capture.rpc.threaded import ThreadedExchange
from auditlog.capture.shared import Capture, Identify


class AuditInterceptor(grpc.ServerInterceptor):
    """Record every RPC that passes.

    Args:
        audit: The log to write to. It starts with the first RPC; drain it as shown above.
        policy: What to record; from `policy_file` of the settings, or the default one.
        user_id: Asked, with the `ServicerContext`, before the handler runs and again when it has
            run, if it has not named the user. Without an answer, it is who the client's
            certificate says.
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

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Find the method's handler, and watch what it does; on the server's only thread."""
        outer = current.get()
        if isinstance(outer, ThreadedExchange) and outer.resolving:
            return continuation(handler_call_details)  # installed twice
        try:
            exchange = self._exchange_class(self._capture, handler_call_details)
        except Exception as error:  # noqa: BLE001  # details that are not what they should be
            with suppress(Exception):  # a log of the application's own
                self._capture.recorder.lose(error)
            if self._capture.recorder.settings.durability == "commit":
                return refusing(self._capture.recorder.settings)
            return continuation(handler_call_details)
        # It is never set back: the context is the RPC's own, and ends with it.
        current.set(exchange)
        try:
            handler = continuation(handler_call_details)
        except BaseException as error:
            exchange.refuse(error)
            raise
        exchange.resolving = False
        try:
            return stand_in(exchange, handler)
        except Exception as failure:  # noqa: BLE001  # not a handler of grpcio's, perhaps
            exchange.note_unreadable(failure)
            return unwatched(exchange, handler)
