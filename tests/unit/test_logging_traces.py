"""`AuditHandler` and exceptions: their types always, their stack traces only on demand."""

import logging
import logging.config
import logging.handlers
import queue
import time
import traceback
from typing import Any

import pytest

from auditlog import Outcome, Settings
from auditlog.capture.lines.traces import MAX_TRACE_CHARS
from auditlog.capture.stdlib import AuditHandler
from auditlog.testing import MemorySink
from log_lines import metadata, only

NAME = "tests.application"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def log() -> logging.Logger:
    """A logger of the application's, which nobody else hears."""
    return logging.Logger(NAME, level=1)  # noqa: LOG001  # pytest hears all others


@pytest.fixture
def handler(sink: MemorySink, log: logging.Logger) -> AuditHandler:
    handler = AuditHandler(sink)
    log.addHandler(handler)
    return handler


@pytest.fixture
def tracing(sink: MemorySink, log: logging.Logger) -> AuditHandler:
    handler = AuditHandler(sink, stack_traces=True)
    log.addHandler(handler)
    return handler


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("line", ["Traceback", "  Traceback", "  | Traceback", "\n  + Stack"])
def test_text_that_looks_like_traces_takes_no_time(
    sink: MemorySink, log: logging.Logger, line: str
) -> None:
    """A message may hold whatever a client sent: the time is linear in its length."""
    title = "(most recent call last):\n"
    started = time.thread_time()
    log.info("m\n%s", f"Traceback {title}" + f"{line} {title}" * 30_000)
    log.info("m\n%s", f"{line} {title}" * 30_000)
    assert time.thread_time() - started < 1
    assert len(sink.records) == 2


@pytest.mark.usefixtures("handler")
def test_exception_gives_its_type_only(sink: MemorySink, log: logging.Logger) -> None:
    """A stack trace may hold secrets: nobody gets one without asking."""
    try:
        raise LookupError("the secret")
    except LookupError:
        log.exception("failed", stack_info=True)
    record = only(sink)
    assert record.message == "failed"
    assert metadata(sink)["error.type"] == "LookupError"
    assert "the secret" not in str(record)
    assert "Stack (most" not in str(record)


@pytest.mark.usefixtures("tracing")
def test_stack_traces_on_demand(sink: MemorySink, log: logging.Logger) -> None:
    """Redacted, each under its key."""
    try:
        raise LookupError("password=hunter2 was wrong")
    except LookupError:
        log.exception("failed", stack_info=True)
    trace = metadata(sink)["exception.stacktrace"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("LookupError: password=[REDACTED] was wrong\n")
    assert "hunter2" not in str(only(sink))
    assert metadata(sink)["code.stacktrace"].startswith("Stack (most recent call last):")


@pytest.mark.usefixtures("tracing")
def test_long_trace_keeps_its_end(sink: MemorySink, log: logging.Logger) -> None:
    """Cut at a line, so that no value stands without its name."""

    def descend(depth: int) -> None:
        if depth:
            return ascend(depth - 1)
        raise LookupError("\n".join(["token=hunter2"] * 2000))

    def ascend(depth: int) -> None:
        descend(depth)

    try:
        descend(20)
    except LookupError:
        log.exception("failed")
    lines = metadata(sink)["exception.stacktrace"].splitlines()
    assert len(lines) == MAX_TRACE_CHARS // len("token=hunter2\n")
    assert set(lines) == {"token=[REDACTED]"}


@pytest.mark.usefixtures("tracing")
def test_long_line_in_a_trace_keeps_its_beginning(sink: MemorySink, log: logging.Logger) -> None:
    """Where the type of the exception stands, and the name of what may be a secret."""
    log.error("failed", exc_info=LookupError("token=" + "hunter2" * 5000))
    trace = metadata(sink)["exception.stacktrace"]
    assert trace.startswith("LookupError: token=[REDACTED]")
    assert "hunter2" not in trace


class HostileError(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no")


@pytest.mark.usefixtures("tracing")
def test_exception_that_cannot_be_shown_costs_its_trace(
    sink: MemorySink, log: logging.Logger
) -> None:
    """And not the line."""
    log.error("failed", exc_info=HostileError())
    assert only(sink).message == "failed"
    assert metadata(sink)["error.type"] == "HostileError"
    assert metadata(sink)["exception.stacktrace"] == "(no stack trace: RuntimeError)"


@pytest.mark.parametrize("stack_traces", [False, True])
def test_message_that_is_a_trace(
    sink: MemorySink, log: logging.Logger, *, stack_traces: bool
) -> None:
    """It is one, although the application has made a text of it."""
    log.addHandler(AuditHandler(sink, stack_traces=stack_traces))
    try:
        raise LookupError("the secret")
    except LookupError:
        log.error(traceback.format_exc())
    assert only(sink).message == ""
    assert metadata(sink)["error.type"] == "LookupError"
    assert ("the secret" in str(only(sink))) is stack_traces


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("exc_info", [True, (None, None, None), ValueError("x")], ids=repr)
def test_every_form_of_exc_info(sink: MemorySink, log: logging.Logger, exc_info: Any) -> None:
    """Also where there is no exception at all."""
    log.error("m", exc_info=exc_info)
    expected = "ValueError" if isinstance(exc_info, ValueError) else None
    assert metadata(sink).get("error.type") == expected


@pytest.mark.parametrize("stack_traces", [False, True])
def test_queue_handler_in_between(
    sink: MemorySink, log: logging.Logger, *, stack_traces: bool
) -> None:
    """It makes one text of message and trace; they are taken apart again."""
    lines: queue.Queue[Any] = queue.Queue()
    log.addHandler(logging.handlers.QueueHandler(lines))
    listener = logging.handlers.QueueListener(lines, AuditHandler(sink, stack_traces=stack_traces))
    listener.start()
    try:
        raise LookupError("password=hunter2\nValueError: not this one")
    except LookupError:
        log.exception("failed for %s", "ann", extra={"user_id": 7}, stack_info=True)
    listener.stop()
    record = only(sink)
    assert (record.message, record.user_id) == ("failed for ann", "7")
    assert metadata(sink)["error.type"] == "LookupError"
    assert ("exception.stacktrace" in metadata(sink)) is stack_traces
    assert "hunter2" not in str(record)
    assert "Traceback" not in str(record.message)


def test_row_fits_its_limit(log: logging.Logger) -> None:
    """However long message, fields and traces are."""
    sink = MemorySink(Settings(max_row_bytes=16384))
    log.addHandler(AuditHandler(sink, stack_traces=True))
    try:
        raise LookupError("x" * 100_000)
    except LookupError:
        log.exception("m" * 100_000, extra={f"k{n}": "v" * 1000 for n in range(100)})
    table, row = sink._encoder.encode(only(sink))
    assert table == 0
    assert len(row) <= 16384
    assert b'"otel.scope.name"' in row
    assert sink.submit(only(sink)) is Outcome.ACCEPTED
