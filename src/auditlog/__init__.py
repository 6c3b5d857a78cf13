"""The audit trail of a Python service: one request, one row in its own PostgreSQL.

from auditlog import AuditLog, AuditMiddleware

app.add_middleware(AuditMiddleware, audit=AuditLog("postgresql://..."))
"""

from auditlog.capture.application.audited import audited
from auditlog.capture.application.bound import bound
from auditlog.capture.application.call import annotate_event
from auditlog.capture.application.execution import Execution
from auditlog.capture.asgi import AuditMiddleware
from auditlog.capture.context import annotate, skip
from auditlog.capture.policy import Level, Policy, Rule
from auditlog.errors import (
    AuditLogError,
    EmbeddedError,
    MigrationError,
    PolicyError,
    QuotaError,
    SettingsError,
    UnauditedError,
)
from auditlog.log import AuditLog
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import Crossing, Decision, Quota, QuotaExceeded
from auditlog.quota.quotas import Quotas
from auditlog.records import (
    ExecutionLogRecord,
    LogLevel,
    LogRecord,
    Outcome,
    Protocol,
    QuotaLogRecord,
    RequestOutcome,
    StatusSource,
)
from auditlog.settings import Settings
from auditlog.sink.queue.stats import Health, HealthStatus, Stats

__version__ = "0.1.0"

__all__ = [
    "AuditLog",
    "AuditLogError",
    "AuditMiddleware",
    "Crossing",
    "Decision",
    "EmbeddedError",
    "Execution",
    "ExecutionLogRecord",
    "Health",
    "HealthStatus",
    "Level",
    "LogLevel",
    "LogRecord",
    "MigrationError",
    "Outcome",
    "Policy",
    "PolicyError",
    "Protocol",
    "Quota",
    "QuotaError",
    "QuotaExceeded",
    "QuotaLogRecord",
    "QuotaMiddleware",
    "Quotas",
    "RequestOutcome",
    "Rule",
    "Settings",
    "SettingsError",
    "Stats",
    "StatusSource",
    "UnauditedError",
    "annotate",
    "annotate_event",
    "audited",
    "bound",
    "skip",
]
