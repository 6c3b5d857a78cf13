"""`auditlog.testing`: what users look at in their own tests, without PostgreSQL."""

import asyncio
from typing import Any

import httpx
import pytest

from auditlog import AuditLog, AuditMiddleware, LogRecord, Outcome, Settings, annotate
from auditlog.testing import MemorySink, capture

NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request, and says who asked."""
    if scope["type"] == "http":
        annotate(user_id=7, tags=["a"])
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


def get(application: Any, path: str) -> int:
    async def request() -> int:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get(path)).status_code

    return asyncio.run(request())


def test_memory_sink_takes_the_place_of_a_log() -> None:
    """As in the module's docstring: the middleware does not notice."""
    sink = MemorySink()
    assert get(AuditMiddleware(app, audit=sink), "/orders/42") == 201
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    assert (record.user_id, record.request_url, record.response_status) == ("7", "/orders/42", 201)
    assert record.metadata is not None
    assert record.metadata["tags"] == ["a"]
    assert sink.errors == []


def test_memory_sink_keeps_records_as_they_were_submitted() -> None:
    """A real log has encoded them by then, so the caller may use the object again."""
    sink = MemorySink()
    record = LogRecord(user_id="first")
    assert sink.submit(record) is Outcome.ACCEPTED
    record.user_id = "second"
    sink.submit(record)
    assert [kept.user_id for kept in sink.records if isinstance(kept, LogRecord)] == [
        "first",
        "second",
    ]


def test_memory_sink_refuses_what_is_no_record() -> None:
    """In a test the mistake may be loud; in production it is counted."""
    with pytest.raises(TypeError, match="a record is one of"):
        MemorySink().submit({"user_id": "7"})  # type: ignore[arg-type]


def test_memory_sink_counts_its_starts() -> None:
    """What a lifespan opens, it closes."""

    async def scenario(sink: MemorySink) -> None:
        await sink.start()
        assert sink.starts == 1
        await sink.aclose()

    sink = MemorySink()
    asyncio.run(scenario(sink))
    assert sink.starts == 0


def test_memory_sink_keeps_what_was_lost() -> None:
    """The errors themselves, for the test to look at."""
    sink = MemorySink()
    error = ValueError("x")
    sink.lose(error)
    assert sink.errors == [error]


def test_memory_sink_has_the_settings_it_is_given() -> None:
    """So that a test may look at other bounds."""
    assert MemorySink(Settings(batch_rows=7)).settings.batch_rows == 7


def test_capture_listens_to_the_log_of_an_application() -> None:
    """Inside nothing reaches the log, outside it is what it was."""
    audit = AuditLog(NOWHERE, settings=Settings())
    application = AuditMiddleware(app, audit=audit)
    with capture(audit) as records:
        assert get(application, "/captured") == 201
        assert [record.request_url for record in records if isinstance(record, LogRecord)] == [
            "/captured"
        ]
    assert audit.stats().submitted == 0
    assert "submit" not in vars(audit)
    audit.lose(ValueError())
    assert audit.stats().submitted == 1


def test_capture_keeps_a_log_that_is_used_as_a_context_manager_from_the_database() -> None:
    """No writer is started, neither here nor on a loop."""
    audit = AuditLog(NOWHERE, settings=Settings())

    async def job() -> None:
        async with audit:
            audit.record("event")

    with capture(audit) as records:
        with audit:
            audit.record("event")
            assert audit._runner is None
        asyncio.run(job())
    assert len(records) == 2
    assert audit._runner is None
    assert audit.stats().submitted == 0


def test_capture_ends_when_the_test_fails() -> None:
    """A failing test must not make the next one fail."""
    audit = AuditLog(NOWHERE, settings=Settings())
    with pytest.raises(KeyError), capture(audit):
        raise KeyError
    assert "submit" not in vars(audit)
