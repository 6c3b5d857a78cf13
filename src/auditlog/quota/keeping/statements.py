"""The .sql files beside this one."""

from functools import partial

from auditlog.statements import statement as _statement

statement = partial(_statement, "auditlog.quota.keeping")
"""Return the statement of `NAME.sql`."""
