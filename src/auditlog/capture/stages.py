"""The rows of a request that has more than one, and those of which little can be said.

`received` when it begins and `complete` when it has ended: both are tied by the exchange's id,
which is the `log_id` of the first. Functions from a request in flight to a record; none submits.
"""

from typing import Any, Final

from auditlog.capture.in_flight import InFlight
from auditlog.capture.policy import Decision, Level, Rule
from auditlog.records import LogLevel, LogRecord

RECEIVED: Final = "received"
COMPLETE: Final = "complete"
_INFO, _ERROR = int(LogLevel.INFO), int(LogLevel.ERROR)


def received_row(request: InFlight, level: Level, rule: Rule | None) -> LogRecord:
    """Say what is known when the request begins. The callables are asked again at its end."""
    capture = request.capture
    headers = None if level < Level.HEADERS else capture.redactor.headers(request.raw_headers)
    stated = {} if rule is None else {"audit.rule": rule.name}
    user_id, resource_owner, instance_id = request.identity()
    return LogRecord(
        occurrence_date=request.started_us,
        protocol=request.protocol,
        request_url=request.target(),
        request_method=request.method,
        request_headers=headers,
        user_id=user_id,
        resource_owner=resource_owner,
        instance_id=instance_id,
        log_id=request.exchange_id,
        metadata={**tie(request, RECEIVED), **request.facts(headers), **stated},
        # It makes room before its complete row does: that one alone is no false alarm.
        low_priority=rule is None or rule.low_priority is not False,
    )


def make_complete(request: InFlight, record: LogRecord, decision: Decision) -> None:
    """Make it the complete row of what was announced."""
    if record.log_id == request.exchange_id:
        record.log_id = None
    record.metadata = {**tie(request, COMPLETE), **(record.metadata or {})}
    if decision.low_priority is None:
        # Dropped, it would make the received row look like a crash.
        record.low_priority = False


def left_out_row(request: InFlight) -> LogRecord:
    """End what was announced and is left out: without an end it would look like a crash."""
    record = _bare_row(request, COMPLETE, _INFO, {"audit.left_out": True})
    record.instance_id = request.identity()[2]
    return record


def remains_row(request: InFlight, stage: str, failure: Exception) -> LogRecord:
    """Say what is certain when the rest could not be put together."""
    cause = {"audit.capture_error": type(failure).__name__}
    record = _bare_row(request, stage, _ERROR, cause)
    record.user_id, record.resource_owner = request.user_id, request.resource_owner
    record.aggregate_type, record.aggregate_id = request.aggregate_type, request.aggregate_id
    record.event_type, record.event_sequence = request.event_type, request.event_sequence
    return record


def tie(request: InFlight, stage: str) -> dict[str, Any]:
    """What ties the rows of an exchange; first in the metadata, where nothing is cut."""
    tied: dict[str, Any] = {"audit.stage": stage, "audit.exchange_id": request.exchange_id}
    if request.refused:
        tied["audit.refused"] = True
    return tied


def _bare_row(request: InFlight, stage: str, level: int, metadata: dict[str, Any]) -> LogRecord:
    """What needs no redactor, no policy and no proxies, and names nobody."""
    received = stage == RECEIVED
    own_id = request.log_id if received or request.log_id != request.exchange_id else None
    elapsed_ms = None if received else (request.ended_ns - request.started_ns) // 1_000_000
    return LogRecord(
        occurrence_date=request.started_us,
        protocol=request.protocol,
        request_method=request.method,
        response_status=request.status,
        response_time_ms=elapsed_ms,
        log_level=level,
        instance_id=request.instance_id,
        log_id=own_id,
        metadata={
            **({} if request.exchange_id is None else tie(request, stage)),
            "audit.outcome": request.outcome,
            "audit.status_source": request.status_source,
            **metadata,
        },
    )
