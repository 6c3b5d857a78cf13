"""`install`: gives a client of an application, with the middleware around it or without."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from auditlog import AuditMiddleware, LogRecord, Policy
from auditlog.testing import MemorySink
from tuples import encoded

EVERYTHING = Policy(())
Install = Callable[..., TestClient]


def _bare(app: Any, _sink: MemorySink) -> Any:
    return app


def _outermost(app: Any, sink: MemorySink) -> Any:
    return AuditMiddleware(app, audit=sink, policy=EVERYTHING)


def _added(app: Any, sink: MemorySink) -> Any:
    app.add_middleware(AuditMiddleware, audit=sink, policy=EVERYTHING)
    return app


def _twice(app: Any, sink: MemorySink) -> Any:
    return _outermost(_added(app, sink), sink)


@pytest.fixture(params=[_bare, _outermost, _added, _twice], ids=lambda each: each.__name__[1:])
def install(request: pytest.FixtureRequest) -> Iterator[Install]:
    """Gives a client of an application, which has the middleware or not, once or twice.

    Afterwards each request has one whole row, and the log is closed as often as it was opened.
    """
    sink = MemorySink()
    requests: list[str] = []

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            requests.append(scope["path"])
        await apps[0](scope, receive, send)

    apps: list[Any] = []

    def client(app: Any, **options: Any) -> TestClient:
        apps.append(request.param(app, sink))
        return TestClient(counting, **options)

    yield client
    records = [record for record in sink.records if isinstance(record, LogRecord)]
    assert len(records) == (0 if request.param is _bare else len(requests))
    for record in records:
        assert "audit.capture_error" not in encoded(record)["metadata"]
    assert (sink.errors, sink.starts) == ([], 0)
