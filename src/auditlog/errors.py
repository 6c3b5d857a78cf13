"""Every error that auditlog raises.

AuditLogError
├── SettingsError      a setting that cannot work; says which and what would
├── PolicyError        an invalid policy; names the line or the rule
├── MigrationError     the schema cannot be brought to this version
├── PartitionError     a partition, an archive or a hold cannot be what was asked; says why
├── QuotaError         a quota that cannot work, or does not exist; says which and what would do
├── QuotaExceeded      a limit is reached: what was asked for is refused (auditlog.quota.model)
├── EmbeddedError      the embedded PostgreSQL cannot be had; says how to get it
└── UnauditedError     an answer is broken off, under `durability="commit"` only

`QuotaExceeded` is for handlers, which may let it pass: the middleware and the interceptors turn it
into an answer. None of the others ever reaches a request: `submit()` does not raise.
"""


class AuditLogError(Exception):
    """The base: catch it to catch everything that this package raises."""


class SettingsError(AuditLogError, ValueError):
    """A setting that cannot work."""


class PolicyError(AuditLogError, ValueError):
    """An invalid policy; the message names the line or the rule."""


class MigrationError(AuditLogError):
    """The schema cannot be brought to this version."""


class PartitionError(AuditLogError):
    """A partition, an archive or a hold cannot be what was asked; the message says what to do."""


class QuotaError(AuditLogError, ValueError):
    """A quota that cannot work, or does not exist; the message says what would do."""


class EmbeddedError(AuditLogError):
    """The embedded PostgreSQL cannot be had; the message says how to get it."""


class UnauditedError(AuditLogError):
    """An answer is broken off, because its row could not be committed in time."""
