"""The served application behind quotas: each client, known by its request id, has its own.

But for the one that is called `same`, as those that compare bytes are. What is under `/told` is the
same, and tells what is left.
"""

import os
from typing import Any

import served

from auditlog import AuditLog, AuditMiddleware, Level, Outcome, Policy, Rule
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import Quota
from auditlog.quota.quotas import Quotas
from auditlog.records import QuotaLogRecord, Record
from auditlog.ticket import Ticket

LIMIT, VOLUME, PLENTY = 2, 10, 1_000_000
QUOTAS = (
    Quota("few", LIMIT, "day", per="key", routes=("/read", "/status", "/ws/*", "/told/*")),
    Quota("volume", VOLUME, "day", counts="bytes", per="key", routes=("/stream", "/starlette/**")),
    Quota("leased", PLENTY, "day"),
)


class Trail(served.Trail):
    """Counts the rows of requests alone: a decision's names no request."""

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        counts = AuditLog if isinstance(record, QuotaLogRecord) else served.Trail
        return counts.submit(self, record, ticket)


def _client(scope: Any) -> str | None:
    name = dict(scope["headers"])[b"x-request-id"].decode()
    return None if name == "same" else name


async def _told(scope: Any, receive: Any, send: Any) -> None:
    await served.bare({**scope, "path": scope["path"].removeprefix("/told")}, receive, send)


# What is under `/-/` waits for this one.
served._trail = trail = Trail(os.environ["AUDITLOG_DSN"])
quotas = Quotas(trail, QUOTAS, timeout_s=served.TIMEOUT_S)
_silent = QuotaMiddleware(served.bare, quotas=quotas, key=_client)
_telling = QuotaMiddleware(_told, quotas=quotas, key=_client, headers=True)


async def _either(scope: Any, receive: Any, send: Any) -> None:
    is_told = scope.get("path", "").startswith("/told/")
    await (_telling if is_told else _silent)(scope, receive, send)


app = AuditMiddleware(
    _either,
    audit=trail,
    policy=Policy((Rule(name="control", paths=("/-/**",), level=Level.NONE),)),
)
