"""`AuditProcessor` in real chains of structlog's: what an event becomes, and that it goes on."""

import io
import json
import logging
from typing import Any, Never

import pytest
import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.processors import (
    JSONRenderer,
    StackInfoRenderer,
    TimeStamper,
    add_log_level,
    dict_tracebacks,
    format_exc_info,
)
from structlog.stdlib import ProcessorFormatter, add_log_level_number

import hostile
from auditlog import LogLevel, bound
from auditlog.capture.stdlib import AuditHandler
from auditlog.capture.structlog import AuditProcessor
from auditlog.testing import MemorySink
from log_lines import metadata, only
from naming import without_address

NAME = "tests.structlog"


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def logger_of(*processors: Any, output: io.StringIO) -> Any:
    """A logger with a chain of its own; nothing global is configured."""
    return structlog.wrap_logger(
        structlog.PrintLogger(output),
        wrapper_class=structlog.make_filtering_bound_logger("notset"),
        processors=[*processors],
        cache_logger_on_first_use=False,
    )


@pytest.fixture
def log(sink: MemorySink, output: io.StringIO) -> Any:
    """The chain of the documentation."""
    return logger_of(
        merge_contextvars,
        add_log_level,
        TimeStamper(fmt="iso"),
        AuditProcessor(sink),
        JSONRenderer(),
        output=output,
    )


def test_event_becomes_a_row_and_goes_on(sink: MemorySink, output: io.StringIO, log: Any) -> None:
    """The renderer behind prints what it would have printed."""
    log.warning("login refused", user_id=7, event_type="login.refused", target=("user", 7), ip="a")
    record = only(sink)
    assert (record.message, record.log_level, record.user_id) == (
        "login refused",
        LogLevel.WARN,
        "7",
    )
    assert (record.event_type, record.aggregate_type, record.aggregate_id) == (
        "login.refused",
        "user",
        "7",
    )
    assert metadata(sink) == {"ip": "a"}
    printed = json.loads(output.getvalue())
    assert printed.pop("timestamp")
    assert printed == {
        "event": "login refused",
        "level": "warning",
        "user_id": 7,
        "event_type": "login.refused",
        "target": ["user", 7],
        "ip": "a",
    }


def test_event_is_handed_on_as_it_is(sink: MemorySink) -> None:
    """The same object, unchanged, whatever it holds."""
    event = {"event": "m", "user_id": 7, "password": "hunter2", "exc_info": True}
    before = event.copy()
    assert AuditProcessor(sink)(None, "info", event) is event
    assert event == before
    assert "hunter2" not in str(only(sink))


@pytest.mark.parametrize(
    ("method", "level"),
    [
        ("debug", LogLevel.DEBUG),
        ("info", LogLevel.INFO),
        ("msg", LogLevel.INFO),
        ("warning", LogLevel.WARN),
        ("warn", LogLevel.WARN),
        ("error", LogLevel.ERROR),
        ("exception", LogLevel.ERROR),
        ("critical", LogLevel.ERROR),
        ("fatal", LogLevel.ERROR),
    ],
)
@pytest.mark.parametrize("with_level", [True, False])
def test_every_method(
    sink: MemorySink, output: io.StringIO, method: str, level: LogLevel, *, with_level: bool
) -> None:
    """By the level in the event, or by the name of the method."""
    processors = [add_log_level] if with_level else []
    log = logger_of(*processors, AuditProcessor(sink), JSONRenderer(), output=output)
    getattr(log, method)("m")
    assert only(sink).log_level == level


@pytest.mark.parametrize(
    ("event", "level"),
    [
        ({"level": "ERROR"}, LogLevel.ERROR),
        ({"level": "notice", "level_number": 25}, LogLevel.INFO),
        ({"level": "audit", "level_number": 35}, LogLevel.WARN),
        ({"level": 7}, LogLevel.INFO),
        ({}, LogLevel.INFO),
    ],
)
def test_levels_of_the_applications_own(
    sink: MemorySink, event: dict[str, Any], level: LogLevel
) -> None:
    """By their number, where one is there; never guessed to be worse than info."""
    AuditProcessor(sink)(None, "log", event)
    assert only(sink).log_level == level


async def test_asynchronous_methods(sink: MemorySink, log: Any) -> None:
    """The chain runs in a thread, which knows what is bound where the event was."""
    with bound(user_id="job"), bound_contextvars(order=42):
        await log.ainfo("m")
    assert only(sink).user_id == "job"
    assert metadata(sink) == {"order": 42}


def test_bound_loggers(sink: MemorySink, log: Any) -> None:
    """What is bound to the logger is in the event; structlog has it merged by then."""
    log.bind(user_id="ann", cart=1).bind(cart=2).error("m")
    assert only(sink).user_id == "ann"
    assert metadata(sink) == {"cart": 2}


@pytest.mark.parametrize("formatter", [None, format_exc_info, dict_tracebacks], ids=without_address)
def test_exception_gives_its_type_only(
    sink: MemorySink, output: io.StringIO, formatter: Any
) -> None:
    """In whatever form it comes by; its text and its trace stay out."""
    processors = [formatter] if formatter else []
    log = logger_of(*processors, AuditProcessor(sink), JSONRenderer(default=str), output=output)
    try:
        raise LookupError("the secret")
    except LookupError:
        log.exception("failed")
    assert metadata(sink) == {"error.type": "LookupError"}
    assert ("the secret" in output.getvalue()) is (formatter is not None)


@pytest.mark.parametrize("formatter", [None, format_exc_info], ids=without_address)
def test_stack_traces_on_demand(sink: MemorySink, output: io.StringIO, formatter: Any) -> None:
    """Redacted."""
    processors = [StackInfoRenderer(), *([formatter] if formatter else [])]
    processor = AuditProcessor(sink, stack_traces=True)
    log = logger_of(*processors, processor, JSONRenderer(default=str), output=output)
    try:
        raise LookupError("password=hunter2 was wrong")
    except LookupError:
        log.exception("failed", stack_info=True)
    trace = metadata(sink)["exception.stacktrace"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.rstrip().endswith("LookupError: password=[REDACTED] was wrong")
    assert metadata(sink)["code.stacktrace"].startswith("Stack (most recent call last):\n")


@pytest.mark.parametrize("stack_traces", [False, True])
def test_stack_of_the_applications_own_is_a_field(sink: MemorySink, *, stack_traces: bool) -> None:
    """Only what structlog has put there is a stack trace."""
    processor = AuditProcessor(sink, stack_traces=stack_traces)
    processor(None, "info", {"event": "deployed", "stack": "production"})
    assert metadata(sink) == {"stack": "production"}


@pytest.mark.parametrize("exc_info", [True, False, None, (None, None, None), ValueError("x")])
def test_every_form_of_exc_info(sink: MemorySink, exc_info: Any) -> None:
    """Also where there is no exception at all."""
    AuditProcessor(sink)(None, "error", {"event": "m", "exc_info": exc_info})
    expected = {"error.type": "ValueError"} if isinstance(exc_info, ValueError) else {}
    assert metadata(sink) == expected


@pytest.mark.parametrize("rendered", ["text", b"bytes", ((), {"event": "m"}), None])
def test_place_behind_the_renderer_is_reported(
    sink: MemorySink, caplog: pytest.LogCaptureFixture, rendered: Any
) -> None:
    """There is nothing to make a row of, and what was rendered goes on."""
    assert AuditProcessor(sink)(None, "info", rendered) is rendered
    assert sink.records == []
    assert sink.errors == []
    assert caplog.text.count("auditlog.processor_misplaced") == 1
    assert "move it in front of the renderer" in caplog.text


@pytest.mark.parametrize("number", range(len(hostile.OBJECTS)))
def test_hostile_values(sink: MemorySink, number: int) -> None:
    """One row each, and nothing raises."""
    value = hostile.OBJECTS[number]
    names = ("event", "level", "level_number", "logger", "exc_info", "exception", "stack", "key")
    columns = ("user_id", "resource_owner", "instance_id", "event_type", "target", "_record")
    processor = AuditProcessor(sink, stack_traces=True)
    for event in (dict.fromkeys(names, value), dict.fromkeys(columns, value), {7: value}):
        assert processor(None, "info", event) is event
    assert len(sink.records) == 3
    assert sink.errors == []


def test_submit_that_fails(log: Any, sink: MemorySink, output: io.StringIO) -> None:
    """The loss is counted, and the event goes on."""

    def refuse(_: object) -> Never:
        raise OSError

    sink.submit = refuse  # type: ignore[method-assign,assignment]
    log.info("m")
    assert [type(error) for error in sink.errors] == [OSError]
    assert json.loads(output.getvalue())["event"] == "m"


def test_dropped_event_leaves_no_row(sink: MemorySink, output: io.StringIO) -> None:
    """What a processor in front drops never comes by."""

    def drop(*_: object) -> Never:
        raise structlog.DropEvent

    logger_of(drop, AuditProcessor(sink), JSONRenderer(), output=output).info("m")
    assert sink.records == []


def stdlib_logger(*processors: Any, handlers: list[logging.Handler]) -> Any:
    """A logger of structlog's over one of the standard library's."""
    inner = logging.Logger(NAME, level=1)  # noqa: LOG001  # pytest hears all others
    inner.handlers = handlers
    return structlog.wrap_logger(
        inner, wrapper_class=structlog.stdlib.BoundLogger, processors=[*processors]
    )


CHAIN = (add_log_level, structlog.stdlib.add_logger_name, add_log_level_number)


@pytest.mark.parametrize("processors", [(), CHAIN], ids=["bare", "with names"])
def test_logger_of_the_standard_library(sink: MemorySink, processors: tuple[Any, ...]) -> None:
    """Its name goes along, once."""
    log = stdlib_logger(
        *processors,
        AuditProcessor(sink),
        JSONRenderer(),
        handlers=[logging.NullHandler()],
    )
    log.info("m")
    assert metadata(sink) == {"otel.scope.name": NAME}


def test_handler_alone_understands_events(sink: MemorySink) -> None:
    """As the formatter of structlog does: from the event, not from its text."""
    log = stdlib_logger(
        *CHAIN, ProcessorFormatter.wrap_for_formatter, handlers=[AuditHandler(sink)]
    )
    log.warning("login refused", user_id=7, ip="a")
    record = only(sink)
    assert (record.message, record.user_id, record.log_level) == (
        "login refused",
        "7",
        LogLevel.WARN,
    )
    assert metadata(sink) == {"otel.scope.name": NAME, "ip": "a"}


def test_processor_and_handler_give_one_row(sink: MemorySink) -> None:
    """The handler knows an event that the processor has recorded; in another log it is new."""
    other = MemorySink()
    log = stdlib_logger(
        *CHAIN,
        AuditProcessor(sink),
        ProcessorFormatter.wrap_for_formatter,
        handlers=[AuditHandler(sink), AuditHandler(other)],
    )
    for number in range(3):
        log.info("m", number=number)
    assert len(sink.records) == 3
    assert len(other.records) == 3


def test_event_that_never_reached_the_handler_hides_no_other(sink: MemorySink) -> None:
    """It was recorded, dropped on the way, and then a line of another library comes."""
    inner = logging.Logger(NAME, level=1)  # noqa: LOG001  # pytest hears all others
    inner.addHandler(AuditHandler(sink))
    event = {"event": "m"}
    AuditProcessor(sink)(inner, "info", event)
    inner.info("another")
    equal = {"event": "m"}
    inner.info(equal, extra={"_logger": inner, "_name": "info"})
    assert len(sink.records) == 3


def test_foreign_lines_in_the_formatter(sink: MemorySink) -> None:
    """In a `foreign_pre_chain` it sees lines of others, but takes none of the library's own."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        ProcessorFormatter(
            processor=JSONRenderer(default=str), foreign_pre_chain=[AuditProcessor(sink)]
        )
    )
    for name in ("auditlog", "auditlog.x", "application"):
        handler.handle(logging.LogRecord(name, 30, "f.py", 1, "m", (), None))
    assert only(sink).log_level == LogLevel.WARN
    assert metadata(sink) == {"otel.scope.name": "application"}
    assert len(output.getvalue().splitlines()) == 3


def test_what_is_no_log() -> None:
    """Said at the start, not at the first event."""
    with pytest.raises(TypeError, match="audit must be an AuditLog, not str"):
        AuditProcessor("myapp.trail")  # type: ignore[arg-type]
