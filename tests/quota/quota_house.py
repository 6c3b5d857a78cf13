"""An application with quotas around it, and the audit middleware around them."""

from collections.abc import Callable
from typing import Any

from asgi_driver import END, START, Run, drive, http_scope, websocket_scope
from auditlog import AuditMiddleware, LogRecord
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import Quota
from auditlog.testing import MemoryQuotas, MemorySink

REFUSED = "audit.quota_refused"
ACCEPT, CLOSE = {"type": "websocket.accept"}, {"type": "websocket.close"}
DENIABLE = {"extensions": {"websocket.http.response": {}}}
AGAIN_LATER = {"type": "websocket.close", "code": 1013}


class House:
    """An application, the quotas around it, and the log around them.

    Args:
        app: The application.
        quotas: What is limited.
        options: Of the middleware.
    """

    def __init__(
        self, app: Any, *quotas: Quota, sink: MemorySink | None = None, **options: Any
    ) -> None:
        self.sink = sink or MemorySink()
        self.quotas = MemoryQuotas(self.sink, quotas)
        self.app: Any = QuotaMiddleware(app, quotas=self.quotas, **options)
        self.app = AuditMiddleware(self.app, audit=self.sink)

    async def get(self, incoming: Any = (), **changes: Any) -> Run:
        """One request, a GET unless it is said."""
        return await drive(self.app, http_scope(**changes), incoming)

    async def connect(self, **changes: Any) -> Run:
        """One WebSocket."""
        return await drive(self.app, websocket_scope(**changes), [{"type": "websocket.connect"}])

    def requests(self) -> list[LogRecord]:
        """The rows of requests."""
        return [row for row in self.sink.records if isinstance(row, LogRecord)]

    def statuses(self) -> list[int | None]:
        """Theirs."""
        return [row.response_status for row in self.requests()]


def headers_of(run: Run) -> dict[bytes, bytes]:
    """Those of the answer; no name stands twice."""
    headers: list[tuple[bytes, bytes]] = run.sent[0]["headers"]
    assert len(dict(headers)) == len(headers)
    return dict(headers)


def counted(*, until: int = 10**9) -> tuple[Callable[[], int], Any]:
    """How often an application was called, and that."""
    calls = iter(range(until))
    count = 0

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        nonlocal count
        count = next(calls) + 1
        await send(START)
        await send(END)

    return lambda: count, app
