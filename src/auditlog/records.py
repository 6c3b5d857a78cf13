"""The words of the domain: the three records that become rows, and their enumerations.

A record is filled by one owner (a capture, or the application) and handed over at
`AuditLog.submit`; from then on its bytes are fixed and it may be reused or thrown away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, StrEnum
from typing import Any, TypeAlias

Instant: TypeAlias = int | datetime
"""Microseconds since the Unix epoch, UTC, or a datetime (naive means UTC)."""


class Protocol(IntEnum):
    """What `logs.protocol` holds. WebSocket counts as HTTP: it begins as a request."""

    UNKNOWN = 0
    HTTP = 1
    GRPC = 2
    GRAPHQL = 3


class LogLevel(IntEnum):
    """What `log_level` holds. Numbers are names, not an order: DEBUG is 4. Use `severity`."""

    INFO = 1
    WARN = 2
    ERROR = 3
    DEBUG = 4

    @property
    def severity(self) -> int:
        """OpenTelemetry's SeverityNumber, which is ordered: DEBUG 5, INFO 9, WARN 13, ERROR 17."""
        return _SEVERITY[self]


_SEVERITY = {LogLevel.DEBUG: 5, LogLevel.INFO: 9, LogLevel.WARN: 13, LogLevel.ERROR: 17}


class Outcome(Enum):
    """What became of a submitted record, as far as `submit` can tell."""

    ACCEPTED = "accepted"
    SPOOLED = "spooled"
    DROPPED = "dropped"


class RequestOutcome(StrEnum):
    """`audit.outcome`: how the request ended, as the server knows it."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    DENIED = "denied"
    SERVER_ERROR = "server_error"
    CLIENT_DISCONNECT = "client_disconnect"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    UNKNOWN = "unknown"


class StatusSource(StrEnum):
    """`audit.status_source`: was the status sent, concluded, or never there?"""

    WIRE = "wire"
    DERIVED = "derived"
    NONE = "none"


@dataclass(slots=True)
class LogRecord:
    """One row of `logstore.logs`; the fields carry the columns' names.

    What is None is filled at submit where the column needs a value: `log_id` (UUIDv7),
    `log_date` and `occurrence_date` (now), `instance_id` (the setting of that name).
    """

    occurrence_date: Instant | None = None
    protocol: int = Protocol.UNKNOWN
    request_url: str | None = None
    request_method: str | None = None
    request_headers: Mapping[str, list[str]] | None = None
    response_status: int | None = None
    response_time_ms: int | None = None
    user_id: str | None = None
    resource_owner: str | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    event_type: str | None = None
    event_sequence: int | None = None
    log_level: int = LogLevel.INFO
    message: str | None = None
    metadata: Mapping[str, Any] | None = None
    instance_id: str | None = None
    log_id: str | None = None
    log_date: Instant | None = None
    low_priority: bool = False
    """Not a column: under `drop_low_priority` such records make room for the others."""


@dataclass(slots=True)
class ExecutionLogRecord:
    """One row of `logstore.execution_logs`: a line that the run of an action left."""

    execution_id: str
    target_id: str
    message: str
    log_level: int = LogLevel.INFO
    stack_trace: str | None = None
    metadata: Mapping[str, Any] | None = None
    instance_id: str | None = None
    log_id: str | None = None
    log_date: Instant | None = None
    low_priority: bool = False


@dataclass(slots=True)
class QuotaLogRecord:
    """One row of `logstore.quota_logs`: a decision about a limit."""

    quota_id: str
    previous_usage: int
    current_usage: int
    quota_limit: int
    resource_owner: str
    allowed: bool
    user_id: str | None = None
    action: str | None = None
    threshold_exceeded: bool = False
    instance_id: str | None = None
    log_id: str | None = None
    log_date: Instant | None = None
    low_priority: bool = False


Record: TypeAlias = LogRecord | ExecutionLogRecord | QuotaLogRecord
