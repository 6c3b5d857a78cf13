"""One request in flight, whatever its protocol: what all of them know and how it becomes a row.

A capture makes one exchange per request, feeds it what passes by, and calls `finish` once. The
exchange asks the policy, redacts, and hands a `LogRecord` to the recorder. It holds everything of
its request and shares nothing with another.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from auditlog.capture.context import Annotations
from auditlog.capture.outcomes import LEVEL_OF, NONE, OK, UNKNOWN
from auditlog.capture.policy import Decision, Level, Rule
from auditlog.capture.recorder import Recorder
from auditlog.capture.shared import Capture, Identify
from auditlog.capture.trace import correlation, raw_correlation
from auditlog.records import LogLevel, LogRecord
from auditlog.reporting import describe

Identity: TypeAlias = tuple[str | None, str | None, str | None]

_INFO, _ERROR = int(LogLevel.INFO), int(LogLevel.ERROR)
_NOTHING, _NO_HEADERS = Level.NONE, Level.METADATA
_RECEIVED, _COMPLETE = "received", "complete"


class Operations(Protocol):
    """What a request turned out to carry, such as the operations of a GraphQL batch."""

    def submit(self) -> bool:
        """Submit a row for each of them; tell whether these stand for the request's own."""


class Exchange(Annotations):
    """The protocol's part fills these in; `finish` reads them."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "capture",
        "ended_ns",
        "error_type",
        "exchange_id",
        "method",
        "operations",
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
    disconnected = False
    """Is the client known to have left?"""
    status: int | None
    error_type: str | None
    operations: Operations | None
    """None but for a request in which something is carried that has rows of its own."""
    exchange_id: str | None
    """The `log_id` of the received row, once there is one: the request owes a complete row."""

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
        self.status = self.error_type = self.log_id = self.exchange_id = self.operations = None
        self.status_source = NONE
        self.outcome = UNKNOWN

    def announce(self) -> None:
        """Submit a row that says the request has begun, if a rule asks for it; never raises.

        Worth a call only where `policy.announces`. From then on the request owes a complete row,
        which `finish` submits whatever is left out of it: a received row without one is what a
        killed process leaves behind.
        """
        try:
            rule = self.capture.policy.wants_received(self.protocol, self.method, self.path)
            if rule is not None:
                # What refers to the request refers to this row: the other is still to come.
                self.exchange_id = self.row_id()
                self.capture.recorder.submit(self._received(rule))
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            if self.exchange_id is not None:
                self._submit_remains(failure, _RECEIVED)

    def finish(self, error: BaseException | None) -> None:
        """Conclude, decide and submit; never raises, whatever the application did."""
        try:
            self.conclude(error)
            if not self.ended_ns:
                self.ended_ns = time.perf_counter_ns()
            if (self.skipped or not self._submit()) and self.exchange_id is not None:
                self._submit_end()
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

    def peer(self) -> str | None:
        """Return the address of whoever connected; None where it has none."""
        raise NotImplementedError

    def facts(self, headers: dict[str, list[str]] | None) -> dict[str, Any]:
        """Begin the metadata: outcome, addresses and correlation.

        Args:
            headers: Those that are stored; None when none are.
        """
        capture = self.capture
        metadata: dict[str, Any] = {
            "audit.outcome": self.outcome,
            "audit.status_source": self.status_source,
        }
        peer = self.peer()
        address = capture.proxies.resolve(peer, self.raw_headers)
        if address:
            metadata["client.address"] = address
        if peer:
            metadata["network.peer.address"] = peer
        if headers is None or not capture.keeps_correlation:
            trace_id, span_id, request_id = raw_correlation(self.raw_headers)
        elif "traceparent" in headers or "x-request-id" in headers:
            # At half the cost (2026-11-24).
            trace_id, span_id, request_id = correlation(headers)
        else:
            return metadata
        if trace_id is not None:
            metadata["trace_id"] = trace_id
            metadata["span_id"] = span_id
        if request_id is not None:
            metadata["audit.request_id"] = request_id
        return metadata

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add how this request went on the wire."""
        raise NotImplementedError

    def _submit(self) -> bool:
        """Submit what the policy decides; return whether there is a row at all."""
        if self.operations is not None and self.operations.submit():
            return True
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
            return False
        headers = (
            None if decision.level is _NO_HEADERS else capture.redactor.headers(self.raw_headers)
        )
        capture.recorder.submit(self._record(decision, route, headers))
        return True

    def _record(
        self, decision: Decision, route: str | None, headers: dict[str, list[str]] | None
    ) -> LogRecord:
        outcome, level, message = self.outcome, self.level, self.message
        if level is None:
            # A background task may break after the client was served.
            level = _ERROR if self.error_type and outcome is OK else LEVEL_OF[outcome]
        low_priority = decision.low_priority
        # By position, in the order of the record's fields: by name it takes 1.6 times as long.
        record = LogRecord(
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
            # Fixed here: a task that outlives the request may still name it.
            self.row_id(),
            None,
            outcome is OK if low_priority is None else low_priority,
        )
        return record if self.exchange_id is None else self._completing(record, decision)

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
        said = {**metadata, **self.capture.redactor.json(self.metadata), **metadata}
        # A handler may pass on what a client sent, which must not end another's exchange.
        said.pop("audit.stage", None)
        said.pop("audit.exchange_id", None)
        return said

    def _stage(self, stage: str) -> dict[str, Any]:
        """What ties the two rows of an exchange; first in the metadata, where nothing is cut."""
        return {"audit.stage": stage, "audit.exchange_id": self.exchange_id}

    def _completing(self, record: LogRecord, decision: Decision) -> LogRecord:
        """Make it a complete row of what was announced."""
        if record.log_id == self.exchange_id:
            record.log_id = None
        record.metadata = {**self._stage(_COMPLETE), **(record.metadata or {})}
        if decision.low_priority is None:
            # Dropped, it would make the received row look like a crash.
            record.low_priority = False
        return record

    def _received(self, rule: Rule) -> LogRecord:
        """What is known when the request begins. The callables are asked again at its end."""
        capture = self.capture
        headers = None if rule.level < Level.HEADERS else capture.redactor.headers(self.raw_headers)
        user_id, resource_owner, instance_id = self.identity()
        return LogRecord(
            occurrence_date=self.started_us,
            protocol=self.protocol,
            request_url=self.target(),
            request_method=self.method,
            request_headers=headers,
            user_id=user_id,
            resource_owner=resource_owner,
            instance_id=instance_id,
            log_id=self.exchange_id,
            metadata={**self._stage(_RECEIVED), **self.facts(headers), "audit.rule": rule.name},
            # It makes room before its complete row does: that one alone is no false alarm.
            low_priority=rule.low_priority is not False,
        )

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

    def _submit_remains(self, failure: Exception, stage: str = _COMPLETE) -> None:
        """Record what is certain when the rest could not be put together."""
        capture = self.capture
        try:
            cause = {"audit.capture_error": type(failure).__name__}
            record = self._bare_record(stage, _ERROR, cause)
            record.user_id, record.resource_owner = self.user_id, self.resource_owner
            record.aggregate_type, record.aggregate_id = self.aggregate_type, self.aggregate_id
            record.event_type, record.event_sequence = self.event_type, self.event_sequence
            capture.recorder.submit(record)
            capture.recorder.reporter.report(
                "auditlog.capture_incomplete", f"a row lacks details: {describe(failure)}"
            )
        except Exception as error:  # noqa: BLE001  # the last net but one
            # A log of the application's own may fail here, too.
            with suppress(Exception):
                capture.recorder.lose(error)

    def _submit_end(self) -> None:
        """End what was announced and is left out: without an end it would look like a crash."""
        self.instance_id = self.identity()[2]
        self.capture.recorder.submit(self._bare_record(_COMPLETE, _INFO, {"audit.left_out": True}))

    def _bare_record(self, stage: str, level: int, metadata: dict[str, Any]) -> LogRecord:
        """What needs no redactor, no policy and no proxies, and names nobody."""
        announced = self.exchange_id is not None
        received = stage is _RECEIVED
        return LogRecord(
            occurrence_date=self.started_us,
            protocol=self.protocol,
            request_method=self.method,
            response_status=self.status,
            response_time_ms=None if received else (self.ended_ns - self.started_ns) // 1_000_000,
            log_level=level,
            instance_id=self.instance_id,
            log_id=None if not received and self.log_id == self.exchange_id else self.log_id,
            metadata={
                **(self._stage(stage) if announced else {}),
                "audit.outcome": self.outcome,
                "audit.status_source": self.status_source,
                **metadata,
            },
        )
