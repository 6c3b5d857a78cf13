"""An RPC as quotas see it, and what a client is told whose RPC they refuse.

What both interceptors have in common; how a handler is run is each one's own.
"""

import re
import time
from collections.abc import Callable
from math import ceil
from typing import Any, Final, TypeAlias

import grpc

from auditlog.capture.context import current
from auditlog.capture.recorder import Recorder
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.names import NAMES
from auditlog.capture.shared import Identify, refuse_coroutine
from auditlog.quota.admitting.admission import (
    Admission,
    Traffic,
    admit,
    admit_in_thread,
    key_of,
)
from auditlog.quota.answering.fields import UNAVAILABLE_RETRY_S, problem_of
from auditlog.quota.answering.status_details import encode_status, quota_failure, retry_info
from auditlog.quota.model import Basis, Decision, QuotaExceeded
from auditlog.quota.quotas import Quotas

Refusal: TypeAlias = tuple[Any, str, tuple[tuple[str, str | bytes], ...]]
"""A status, its text, and the trailing metadata, as `abort` takes them."""
NOT_FOUND: Final = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
"""What a server answers for a method that is not there."""
OTHER: Final = "_OTHER"
"""All methods that are not there: clients invent their names, of which no counter is made. It is
what OpenTelemetry's conventions call them.
"""
_MAKERS: Final[dict[tuple[bool, bool], tuple[str, Callable[..., Any]]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
_HEALTH: Final = "/grpc.health.v1.Health/"
_DETAILS: Final = "grpc-status-details-bin"
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback: a client whose policy
# retries does so after as many milliseconds, and never if they are negative.
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_NEVER: Final = -1
_MAX_PUSHBACK_MS: Final = 60_000
"""A client that is to come again sits in its call until then, and nobody does that for a day."""
# Names of methods that fetch: https://google.aip.dev/131, 132 and 231, and customary verbs of those
# that https://google.aip.dev/136 maps to GET. What has another name may change something.
_FETCHES: Final = re.compile(
    r"(Get|BatchGet|List|Search|Query|Find|Fetch|Read|Lookup|Count|Watch)(?![a-z])"
)


class Gate:
    """Asks quotas about RPCs, for one interceptor.

    Raises:
        SettingsError: `key` is a coroutine function.
    """

    __slots__ = ("_key", "_quotas")

    def __init__(self, quotas: Quotas, key: Identify | None) -> None:
        refuse_coroutine("key", key)
        self._quotas = quotas
        self._key = key

    @property
    def recorder(self) -> Recorder:
        """The log to which rows of quotas go."""
        return self._quotas.recorder

    async def admit(self, path: str, context: Any) -> None:
        """Wait for the decision about the RPC at hand.

        Args:
            path: Its full method, or `OTHER`.
            context: As its handler gets it.

        Raises:
            QuotaExceeded: it must not be carried out.
        """
        _heed(await admit(self._quotas, self._traffic(path, context)))

    def admit_in_thread(self, path: str, context: Any) -> None:
        """Do what `admit` does, in the thread of a handler; blocks."""
        _heed(admit_in_thread(self._quotas, self._traffic(path, context)))

    def forget_kind(self) -> None:
        """Let the row of a method that is not there have no kind, as it has without quotas."""
        exchange = _exchange_at_hand()
        if exchange is not None:
            exchange.kind = None

    def note_outside(self) -> None:
        """Say that no audit interceptor is in front."""
        self.recorder.reporter.report(
            "auditlog.quota_outside",
            "a QuotaInterceptor brings its own AuditInterceptor, with no more than the settings:"
            " put yours before it in the list of interceptors",
        )

    def _traffic(self, path: str, context: Any) -> Traffic:
        method, exchange = NAMES[path].method, _exchange_at_hand()
        return Traffic(
            method=method,
            path=path,
            is_write=path is not OTHER and is_write(method),
            address=None if exchange is None else _address_of(exchange),
            api_key=key_of(self._key, context, self.recorder.reporter),
            holder=exchange,
        )


def is_limited(path: str) -> bool:
    """Tell whether a method is counted: not so health checks, or a quota would end the service.

    They are those of https://github.com/grpc/grpc/blob/master/doc/health-checking.md.
    """
    return not path.startswith(_HEALTH)


def is_write(method: str) -> bool:
    """Tell whether a method may change something, by its name."""
    return _FETCHES.match(method) is None


def refusal_of(decision: Decision) -> Refusal:
    """Return what a client gets whose RPC is refused, and let the RPC's row say why.

    RESOURCE_EXHAUSTED; while the database is away UNAVAILABLE, which is no fault of the client's.
    """
    exchange = _exchange_at_hand()
    if exchange is not None:
        exchange.metadata["audit.quota_refused"] = decision.quota.id
    message: str = problem_of(decision)["detail"]
    if decision.basis is Basis.UNAVAILABLE:
        return _refusal(grpc.StatusCode.UNAVAILABLE, message, UNAVAILABLE_RETRY_S * 1000)
    failure = quota_failure(decision.quota.id, decision.quota.limit, message)
    delay_ms = max(1, ceil(decision.resets_in_s * 1000))
    return _refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message, delay_ms, failure)


def rewired(handler: Any, wrap: Callable[[Any], Any]) -> Any:
    """Return a handler of the same kind whose function is what `wrap` makes of it."""
    kind, make = _MAKERS[bool(handler.request_streaming), bool(handler.response_streaming)]
    behaviour = wrap(getattr(handler, kind))
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def unknown(behaviour: Any) -> Any:
    """Return a handler that takes any RPC, and reads nothing of it."""
    return grpc.stream_stream_rpc_method_handler(behaviour)


def _refusal(code: Any, message: str, delay_ms: int, *details: bytes) -> Refusal:
    status = encode_status(code.value[0], message, retry_info(delay_ms), *details)
    return code, message, ((_DETAILS, status), (_PUSHBACK, str(_pushback_ms(delay_ms))))


def _heed(admission: Admission) -> None:
    if admission.refusal is not None:
        raise QuotaExceeded(admission.refusal)


def _exchange_at_hand() -> GrpcExchange | None:
    """Return the RPC that is served here, as the audit interceptor in front sees it."""
    holder = current.get()
    return holder if isinstance(holder, GrpcExchange) else None


def _address_of(exchange: GrpcExchange) -> str | None:
    return exchange.client_address()


def _pushback_ms(delay_ms: int) -> int:
    exchange = _exchange_at_hand()
    patience_ms = _MAX_PUSHBACK_MS
    if exchange is not None and exchange.deadline_ms is not None:
        elapsed_ms = (time.perf_counter_ns() - exchange.started_ns) // 1_000_000
        patience_ms = min(patience_ms, exchange.deadline_ms - elapsed_ms)
    # Beyond its deadline, a client would wait in vain, and never hear of the quota.
    return delay_ms if delay_ms < patience_ms else _NEVER
