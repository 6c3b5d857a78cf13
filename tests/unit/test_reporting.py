"""`Reporter`: one line per reason and interval, and never in anybody's way."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from auditlog import reporting
from auditlog.reporting import INTERVAL_S, Reporter, describe


class Clock:
    """A monotonic clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reporting, "time", clock)
    return clock


def test_first_line_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """By the logger `auditlog`, at the level given."""
    Reporter().report("auditlog.queue_full", "rows are lost", level=logging.ERROR)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("auditlog", logging.ERROR)
    assert record.getMessage() == "auditlog.queue_full: rows are lost"


def test_same_reason_is_silent_for_the_interval(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """Then it says how often it was; another reason is not held back by it."""
    reporter = Reporter()
    for _ in range(100):
        reporter.report("auditlog.queue_full", "rows are lost")
    reporter.report("auditlog.write_failed", "the database is away")
    clock.now += INTERVAL_S - 0.001
    reporter.report("auditlog.queue_full", "rows are lost")
    assert len(caplog.records) == 2
    clock.now += 0.002
    reporter.report("auditlog.queue_full", "rows are lost")
    clock.now += INTERVAL_S
    reporter.report("auditlog.queue_full", "rows are lost")
    messages = caplog.messages[2:]
    assert messages == [
        "auditlog.queue_full: rows are lost (100 more since the last such line)",
        "auditlog.queue_full: rows are lost",
    ]


def test_interval_is_what_the_documents_promise() -> None:
    """One line per reason in twenty seconds."""
    assert INTERVAL_S == 20.0


def test_threads_log_one_line_between_them(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """And count each other's silence."""
    reporter = Reporter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reporter.report("auditlog.queue_full", "lost"), range(800)))
    assert len(caplog.records) == 1
    clock.now += INTERVAL_S
    reporter.report("auditlog.queue_full", "lost")
    assert "(799 more" in caplog.messages[1]


@pytest.fixture
def bad_handler() -> Iterator[None]:
    """A handler of an application that does not keep to the rules."""

    class Bad(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("a bad handler")

    handler = Bad()
    logging.getLogger("auditlog").addHandler(handler)
    yield
    logging.getLogger("auditlog").removeHandler(handler)


@pytest.mark.usefixtures("bad_handler")
def test_handler_that_raises_harms_nobody() -> None:
    """Neither the request that submits nor the writer ends by it."""
    Reporter().report("auditlog.queue_full", "rows are lost")


def test_handler_that_reports_again_does_not_wait_for_itself() -> None:
    """As when the application's log lines are audit records too."""
    reporter = Reporter()
    lines: list[str] = []

    class Again(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            reporter.report("auditlog.queue_full", "rows are lost")

    handler = Again()
    logger = logging.getLogger("auditlog")
    logger.addHandler(handler)
    thread = threading.Thread(
        target=reporter.report, args=("auditlog.queue_full", "rows are lost"), daemon=True
    )
    try:
        thread.start()
        thread.join(10)
    finally:
        logger.removeHandler(handler)
    assert not thread.is_alive()
    assert lines == ["auditlog.queue_full: rows are lost"]


def test_percent_signs_are_text(caplog: pytest.LogCaptureFixture) -> None:
    """A remedy may contain them: @ is %40 in a DSN."""
    Reporter().report("auditlog.write_failed", "100 %s of %d")
    assert caplog.messages == ["auditlog.write_failed: 100 %s of %d"]


def test_error_is_described_without_its_text() -> None:
    """Messages of the server quote the row."""
    assert describe(ValueError("secret")) == "ValueError"
    error = psycopg.errors.UniqueViolation("Key (log_id)=(secret) already exists.")
    assert describe(error) == "UniqueViolation (SQLSTATE 23505)"
