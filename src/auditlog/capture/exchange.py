"""One request in flight, whatever its protocol: what all of them know and how it becomes a row.

A capture makes one exchange per request, feeds it what passes by, and calls `finish` once. The
exchange asks the policy, redacts, and hands a `LogRecord` to the recorder. It holds everything of
its request and shares nothing with another.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from auditlog.capture.client_address import TrustedProxies
from auditlog.capture.context import Annotations
from auditlog.capture.policy import Decision, Level, Policy
from auditlog.capture.recorder import Recorder
from auditlog.capture.redaction.redactor import Redactor
from auditlog.capture.trace import raw_correlation
from auditlog.records import LogLevel, LogRecord, RequestOutcome, StatusSource
from auditlog.reporting import describe

Identify: TypeAlias = Callable[[Any], str | None]
"""Asked about the request's source: the ASGI scope, or the context of an RPC."""
Identity: TypeAlias = tuple[str | None, str | None, str | None]

_INFO, _WARN, _ERROR = (int(level) for level in (LogLevel.INFO, LogLevel.WARN, LogLevel.ERROR))
_CORRELATION = [(b"traceparent", b"-"), (b"x-request-id", b"-")]
_CORRELATION_KEPT = {"traceparent": ["-"], "x-request-id": ["-"]}
_NOTHING, _NO_HEADERS = Level.NONE, Level.METADATA
# Plain strings: an enumeration's member costs a call where a string costs nothing.
OK = str(RequestOutcome.OK)
CLIENT_ERROR = str(RequestOutcome.CLIENT_ERROR)
DENIED = str(RequestOutcome.DENIED)
SERVER_ERROR = str(RequestOutcome.SERVER_ERROR)
CLIENT_DISCONNECT = str(RequestOutcome.CLIENT_DISCONNECT)
INCOMPLETE = str(RequestOutcome.INCOMPLETE)
CANCELLED = str(RequestOutcome.CANCELLED)
DEADLINE = str(RequestOutcome.DEADLINE)
UNKNOWN = str(RequestOutcome.UNKNOWN)
WIRE, DERIVED, NONE = str(StatusSource.WIRE), str(StatusSource.DERIVED), str(StatusSource.NONE)

_LEVEL_OF = {
    OK: _INFO,
    CLIENT_ERROR: _WARN,
    DENIED: _WARN,
    SERVER_ERROR: _ERROR,
    CLIENT_DISCONNECT: _WARN,
    INCOMPLETE: _ERROR,
    CANCELLED: _WARN,
    DEADLINE: _WARN,
    UNKNOWN: _WARN,
}


@dataclass(frozen=True, slots=True)
class Capture:
    """What every exchange of one middleware or interceptor uses. Immutable, shared."""

    recorder: Recorder
    policy: Policy
    redactor: Redactor
    proxies: TrustedProxies
    user_id: Identify | None = None
    instance_id: Identify | None = None
    resource_owner: Identify | None = None
    max_body_bytes: int = 16 * 1024
    echo_request_id: bool = False
    tenant: str = ""
    """The tenant of a request that names none, as the rules see it."""
    asks: bool = False
    """Whether the application has callables of its own for user, tenant or organisation."""
    keeps_correlation: bool = False
    """Whether traceparent and x-request-id are among the headers that are kept, in clear."""

    @classmethod
    def of(
        cls, recorder: Recorder, policy: Policy, *, asks: bool, **identify: Identify | None
    ) -> "Capture":
        """Build the shared parts from the recorder's settings.

        Raises:
            SettingsError: a setting that cannot work.
        """
        settings = recorder.settings
        redactor = Redactor(
            headers=settings.capture_headers,
            fields=settings.redact_fields,
            key=settings.redact_key,
            key_id=settings.redact_key_id,
        )
        return cls(
            recorder,
            policy,
            redactor,
            TrustedProxies(settings.trusted_proxies, header=settings.trusted_proxy_header),
            max_body_bytes=settings.max_body_bytes,
            echo_request_id=settings.echo_request_id,
            tenant=settings.instance_id,
            asks=asks,
            keeps_correlation=redactor.headers(_CORRELATION) == _CORRELATION_KEPT,
            **identify,
        )


class Exchange(Annotations):
    """The protocol's part fills these in; `finish` reads them."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "capture",
        "ended_ns",
        "error_type",
        "method",
        "outcome",
        "path",
        "raw_headers",
        "source",
        "started_ns",
        "started_us",
        "status",
        "status_source",
    )

    protocol = 0
    route_key: str | None = None
    """The metadata key of the route, where it is not told otherwise."""
    status: int | None
    error_type: str | None

    def __init__(
        self,
        capture: Capture,
        source: Any,
        method: str,
        path: str,
        raw_headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        # What handlers may say. Made for every request: one store after another from one None.
        self.user_id = self.resource_owner = self.instance_id = None
        self.aggregate_type = self.aggregate_id = self.event_type = self.event_sequence = None
        self.message = self.level = None
        self.metadata = {}
        self.skipped = False
        self.capture = capture
        self.source = source
        self.method = method
        self.path = path
        self.raw_headers = raw_headers
        # The wall clock says when, the monotonic one how long: the wall may be set meanwhile.
        self.started_us = time.time_ns() // 1000
        self.started_ns = time.perf_counter_ns()
        self.ended_ns = self.bytes_in = self.bytes_out = 0
        self.status = self.error_type = self.log_id = None
        self.status_source = NONE
        self.outcome = UNKNOWN

    def finish(self, error: BaseException | None) -> None:
        """Conclude, decide and submit; never raises, whatever the application did."""
        try:
            self.conclude(error)
            if not self.ended_ns:
                self.ended_ns = time.perf_counter_ns()
            if not self.skipped:
                self._submit()
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            self._submit_remains(failure)

    def conclude(self, error: BaseException | None) -> None:
        """Fix status, its source and the outcome."""
        raise NotImplementedError

    def route(self) -> str | None:
        """The template, or full method name, that served the request."""
        raise NotImplementedError

    def target(self) -> str:
        """The request's target, redacted, for `request_url`."""
        raise NotImplementedError

    def knows_user(self) -> bool:
        """Tell whether the source names a user whom no handler has to name."""
        raise NotImplementedError

    def facts(self, headers: dict[str, list[str]] | None) -> dict[str, Any]:
        """Begin the metadata: outcome, source of the status, and the connection's.

        Args:
            headers: Those that are stored; None when none are.
        """
        raise NotImplementedError

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add how this request went on the wire."""
        raise NotImplementedError

    def _submit(self) -> None:
        capture = self.capture
        if capture.asks or self.knows_user():
            self.user_id, self.resource_owner, self.instance_id = self.identity()
        route = self.route()
        decision = capture.policy.decide(
            self.protocol,
            self.method,
            self.path,
            route,
            self.status,
            self.outcome,
            self.user_id,
            self.instance_id or capture.tenant,
        )
        if decision.level is _NOTHING:
            return
        headers = (
            None if decision.level is _NO_HEADERS else capture.redactor.headers(self.raw_headers)
        )
        capture.recorder.submit(self._record(decision, route, headers))

    def _record(
        self, decision: Decision, route: str | None, headers: dict[str, list[str]] | None
    ) -> LogRecord:
        outcome, level, message = self.outcome, self.level, self.message
        if level is None:
            # A background task may break after the client was served.
            level = _ERROR if self.error_type and outcome is OK else _LEVEL_OF[outcome]
        low_priority = decision.low_priority
        # By position, in the order of the record's fields: by name it takes 1.6 times as long.
        return LogRecord(
            self.started_us,
            self.protocol,
            self.target(),
            self.method,
            headers,
            self.status,
            (self.ended_ns - self.started_ns) // 1_000_000,
            self.user_id,
            self.resource_owner,
            self.aggregate_type,
            self.aggregate_id,
            self.event_type,
            self.event_sequence,
            level,
            message if message is None else self.capture.redactor.text(message),
            self._metadata(decision, route, headers),
            self.instance_id,
            self.log_id,
            None,
            outcome is OK if low_priority is None else low_priority,
        )

    def _metadata(
        self, decision: Decision, route: str | None, headers: dict[str, list[str]] | None
    ) -> dict[str, Any]:
        metadata = self.facts(headers)
        if route is not None and self.route_key is not None:
            metadata[self.route_key] = route
        if decision.rule is not None:
            metadata["audit.rule"] = decision.rule
        if self.error_type is not None:
            metadata["error.type"] = self.error_type
        self.describe(metadata, decision)
        if not self.metadata:
            return metadata
        # What we say comes first, for a row that is too large is cut from the end, and last, for
        # it is not overwritten by what a handler says.
        return {**metadata, **self.capture.redactor.json(self.metadata), **metadata}

    @property
    def recorder(self) -> Recorder:
        """The log to which the request's row goes."""
        return self.capture.recorder

    def identity(self) -> Identity:
        """Return user, organisation and tenant; asks the callables for what no handler has said."""
        capture = self.capture
        user_id, resource_owner, instance_id = self.user_id, self.resource_owner, self.instance_id
        if user_id is None and capture.user_id is not None:
            user_id = self._ask(capture.user_id)
        if resource_owner is None and capture.resource_owner is not None:
            resource_owner = self._ask(capture.resource_owner)
        if instance_id is None and capture.instance_id is not None:
            instance_id = self._ask(capture.instance_id)
        return user_id, resource_owner, instance_id

    def trace(self) -> tuple[str | None, str | None]:
        """Return trace id and parent span id."""
        return raw_correlation(self.raw_headers)[:2]

    def _ask(self, identify: Identify) -> str | None:
        try:
            answer = identify(self.source)
            return None if answer is None else str(answer)
        except Exception as error:  # noqa: BLE001  # the application's code may do anything
            # Not its repr: that of a partial shows the arguments.
            name = getattr(identify, "__qualname__", type(identify).__name__)
            self.capture.recorder.reporter.report(
                "auditlog.identify_failed", f"{name} raised {describe(error)}"
            )
            return None

    def _submit_remains(self, failure: Exception) -> None:
        """Record what is certain when the rest could not be put together."""
        capture = self.capture
        try:
            capture.recorder.submit(
                LogRecord(
                    occurrence_date=self.started_us,
                    protocol=self.protocol,
                    request_method=self.method,
                    response_status=self.status,
                    response_time_ms=(self.ended_ns - self.started_ns) // 1_000_000,
                    user_id=self.user_id,
                    resource_owner=self.resource_owner,
                    aggregate_type=self.aggregate_type,
                    aggregate_id=self.aggregate_id,
                    event_type=self.event_type,
                    event_sequence=self.event_sequence,
                    log_level=_ERROR,
                    instance_id=self.instance_id,
                    log_id=self.log_id,
                    metadata={
                        "audit.outcome": self.outcome,
                        "audit.status_source": self.status_source,
                        "audit.capture_error": type(failure).__name__,
                    },
                )
            )
            capture.recorder.reporter.report(
                "auditlog.capture_incomplete", f"a row lacks details: {describe(failure)}"
            )
        except Exception as error:  # noqa: BLE001  # the last net
            capture.recorder.lose(error)
