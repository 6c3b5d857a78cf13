"""Every error that auditlog raises.

AuditLogError
├── SettingsError      a setting that cannot work; says which and what would
├── PolicyError        an invalid policy; names the line or the rule
├── MigrationError     the schema cannot be brought to this version
├── EmbeddedError      the embedded PostgreSQL cannot be had; says how to get it
├── NotRunningError    flush or health asked of a log that was never started
└── UnencodableError   a value PostgreSQL cannot store; never leaves the sink

None of them ever reaches a request: `submit()` does not raise.
"""


class AuditLogError(Exception):
    """The base: catch it to catch everything that this package raises."""


class SettingsError(AuditLogError, ValueError):
    """A setting that cannot work."""


class PolicyError(AuditLogError, ValueError):
    """An invalid policy; the message names the line or the rule."""


class MigrationError(AuditLogError):
    """The schema cannot be brought to this version."""


class EmbeddedError(AuditLogError):
    """The embedded PostgreSQL cannot be had; the message says how to get it."""


class NotRunningError(AuditLogError):
    """The log was never started, or has been closed."""


class UnencodableError(AuditLogError, ValueError):
    """A value PostgreSQL cannot store as it is; the sink repairs it and marks the row."""
