"""The library's own log lines, through every failure at once: few, and never a row's content."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import trail
from auditlog import AuditLog, HealthStatus, LogRecord
from proxies import Proxy
from trail import quick

MARKER = "marker-of-a-row"


@pytest.fixture
def proxy(any_dsn: str) -> Iterator[Proxy]:
    with Proxy(any_dsn) as proxy:
        yield proxy


def marked(**changes: Any) -> LogRecord:
    """A record with the marker in every field that may hold a text."""
    texts = dict.fromkeys(
        ("user_id", "resource_owner", "aggregate_type", "aggregate_id", "event_type", "message"),
        MARKER,
    )
    everywhere: dict[str, Any] = texts | {
        "request_url": f"/{MARKER}",
        "request_method": MARKER,
        "request_headers": {"x": [MARKER]},
        "metadata": {MARKER: MARKER},
        "instance_id": MARKER,
    }
    return LogRecord(**(everywhere | changes))


async def test_no_log_line_has_content_of_a_row(
    any_dsn: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Through every kind of failure, at the lowest level, from every logger there is."""
    caplog.set_level(logging.DEBUG)
    settings = quick(statement_timeout_s=0.2, connect_timeout_s=2.0, max_queued_rows=30)
    async with AuditLog(proxy.dsn, settings=settings) as audit:
        audit.submit(marked())
        assert await audit.flush(20)
        audit.submit(marked(log_id=MARKER))
        audit.submit(marked(log_id=MARKER))
        assert await audit.flush(20)
        proxy.lose_answers = 2
        audit.submit(marked(metadata={"x": object(), MARKER: float("nan")}))
        assert await audit.flush(20)
        await trail.change(any_dsn, "ALTER TABLE logstore.logs RENAME TO hidden")
        audit.submit(marked())
        await trail.failing(audit, HealthStatus.FAILED)
        await trail.change(any_dsn, "ALTER TABLE logstore.hidden RENAME TO logs")
        assert await audit.flush(20)
        await trail.change(
            any_dsn, f"ALTER TABLE logstore.logs ADD CHECK (message <> '{MARKER}') NOT VALID"
        )
        audit.submit(marked())
        assert await audit.flush(20)
        proxy.fall_silent()
        for _ in range(40):
            audit.submit(marked(message=None))
        audit.submit({"x": MARKER})  # type: ignore[arg-type]
        audit.lose(ValueError(MARKER))
        await trail.failing(audit, HealthStatus.DEGRADED)
        proxy.speak()
        assert await audit.flush(20)
        trail.terminate_writers(any_dsn)
        audit.submit(marked(message=None))
        assert await audit.flush(20)
    stats = audit.stats()
    assert {"overflow", "unencodable", "capture"} == set(stats.dropped_by_reason)
    assert stats.dead_lettered
    own = [record for record in caplog.records if record.name == "auditlog"]
    reasons = [record.getMessage().partition(":")[0] for record in own]
    assert len(reasons) == len(set(reasons))
    assert {"auditlog.write_failed", "auditlog.row_rejected", "auditlog.queue_full"} <= set(reasons)
    for record in caplog.records:
        assert MARKER not in f"{record.getMessage()} {record.args} {record.exc_info}"
