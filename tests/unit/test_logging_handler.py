"""`AuditHandler`: what a line of `logging` becomes."""

import logging
import logging.config
import logging.handlers
import sys
from typing import Any

import pytest

from auditlog import LogLevel, bound
from auditlog.capture.stdlib import AuditHandler
from auditlog.testing import MemorySink
from log_lines import metadata, only

NAME = "tests.application"

trail = MemorySink()
"""What a logging configuration names as `ext://test_logging_handler.trail`."""


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


@pytest.mark.usefixtures("handler")
def test_line_becomes_a_row(sink: MemorySink, log: logging.Logger) -> None:
    """Named fields go to their columns, the others to the metadata."""
    log.warning(
        "login refused for %s",
        "ann",
        extra={
            "user_id": 7,
            "resource_owner": "org-1",
            "instance_id": "tenant-1",
            "event_type": "login.refused",
            "target": ("user", 7),
            "ip": "10.0.0.1",
        },
    )
    record = only(sink)
    assert record.message == "login refused for ann"
    assert (record.user_id, record.resource_owner, record.instance_id) == (
        "7",
        "org-1",
        "tenant-1",
    )
    assert (record.event_type, record.aggregate_type, record.aggregate_id) == (
        "login.refused",
        "user",
        "7",
    )
    assert record.log_level == LogLevel.WARN
    assert record.metadata == {
        "otel.scope.name": NAME,
        "code.function.name": "test_line_becomes_a_row",
        "ip": "10.0.0.1",
    }


@pytest.mark.usefixtures("handler")
def test_line_without_fields(sink: MemorySink, log: logging.Logger) -> None:
    """What is not said is null, and no outcome is made up."""
    log.info("started")
    record = only(sink)
    assert (record.event_type, record.user_id, record.aggregate_type) == (None, None, None)
    assert "audit.outcome" not in metadata(sink)


@pytest.mark.usefixtures("handler")
def test_time_is_the_lines(sink: MemorySink, log: logging.Logger) -> None:
    """However late the handler comes to see it."""
    record = log.makeRecord(NAME, logging.INFO, "f.py", 1, "m", (), None)
    record.created = 1_700_000_000.25
    log.handle(record)
    assert only(sink).occurrence_date == 1_700_000_000_250_000


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize(
    ("number", "level"),
    [
        (1, LogLevel.DEBUG),
        (logging.DEBUG, LogLevel.DEBUG),
        (15, LogLevel.DEBUG),
        (logging.INFO, LogLevel.INFO),
        (25, LogLevel.INFO),
        (logging.WARNING, LogLevel.WARN),
        (39, LogLevel.WARN),
        (logging.ERROR, LogLevel.ERROR),
        (logging.CRITICAL, LogLevel.ERROR),
        (99, LogLevel.ERROR),
    ],
)
def test_levels(sink: MemorySink, log: logging.Logger, number: int, level: LogLevel) -> None:
    """A level of the application's own belongs to the one below it."""
    log.log(number, "m")
    assert only(sink).log_level == level
    assert only(sink).low_priority == (level in (LogLevel.DEBUG, LogLevel.INFO))


@pytest.mark.usefixtures("handler")
def test_secrets_are_redacted(sink: MemorySink, log: logging.Logger) -> None:
    """In the message, in the fields, at any depth."""
    log.error(
        "refused: password=%s at https://u:%s@host/?token=%s",
        *("hunter2",) * 3,
        extra={"api_key": "hunter2", "request": {"cookie": ["hunter2"]}, "url": "/?token=hunter2"},
    )
    assert "hunter2" not in str(only(sink))
    assert "password=[REDACTED]" in str(only(sink).message)


@pytest.mark.usefixtures("handler")
def test_surroundings_apply_where_the_line_says_nothing(
    sink: MemorySink, log: logging.Logger
) -> None:
    """What is bound, and not over what is said."""
    with bound(user_id="job", instance_id="tenant", run=7):
        log.info("m", extra={"user_id": "ann"})
    record = only(sink)
    assert (record.user_id, record.instance_id) == ("ann", "tenant")
    assert metadata(sink)["run"] == 7


@pytest.mark.usefixtures("handler")
def test_fields_do_not_pass_for_the_librarys(sink: MemorySink, log: logging.Logger) -> None:
    """What the handler itself says is not overwritten."""
    log.info("m", extra={"otel.scope.name": "another", "code.function.name": "another"})
    assert metadata(sink) == {
        "otel.scope.name": NAME,
        "code.function.name": "test_fields_do_not_pass_for_the_librarys",
    }


@pytest.mark.usefixtures("handler")
def test_fields_do_not_end_an_exchange(sink: MemorySink, log: logging.Logger) -> None:
    """A client that names another one's request cannot make it look complete."""
    log.info("m", extra={"audit.stage": "complete", "audit.exchange_id": "x", "k": 1})
    assert metadata(sink).keys() & {"audit.stage", "audit.exchange_id"} == set()


def test_configured_by_a_dictionary() -> None:
    """The log is named by where it is."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "trail": {
                    "()": "auditlog.capture.stdlib.AuditHandler",
                    "audit": f"ext://{__name__}.trail",
                    "stack_traces": True,
                    "level": "WARNING",
                }
            },
            "loggers": {NAME: {"handlers": ["trail"], "level": "DEBUG"}},
        }
    )
    log = logging.getLogger(NAME)
    log.info("too low")
    log.warning("high enough")
    log.handlers.clear()
    assert only(trail).message == "high enough"


@pytest.mark.parametrize("audit", ["myapp.trail", None, logging])
def test_what_is_no_log(audit: Any) -> None:
    """Said at the start, not at the first line."""
    with pytest.raises(TypeError, match=r"ext://package\.module\.audit"):
        AuditHandler(audit)


@pytest.mark.usefixtures("handler")
def test_filters_are_heard(sink: MemorySink, handler: AuditHandler, log: logging.Logger) -> None:
    """As with every handler; from Python 3.12 on they may give another record."""
    handler.addFilter(lambda record: record.getMessage() != "no")
    log.info("no")
    log.info("yes")
    assert only(sink).message == "yes"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a filter only says yes or no")
@pytest.mark.usefixtures("handler")
def test_filter_that_gives_another_record(
    sink: MemorySink, handler: AuditHandler, log: logging.Logger
) -> None:
    """It takes the place of the first."""
    other = logging.LogRecord(NAME, 20, "f.py", 1, "another", (), None)
    handler.addFilter(lambda _: other)  # type: ignore[arg-type,return-value]
    log.info("m")
    assert only(sink).message == "another"


@pytest.mark.usefixtures("handler")
def test_line_is_left_as_it_was(sink: MemorySink, log: logging.Logger) -> None:
    """The handlers behind this one see what they would have seen without it."""
    extra = {"user_id": 7, "event_type": "x", "token": "hunter2"}
    record = log.makeRecord(NAME, 20, "f.py", 1, "%s", ("m",), None, extra=extra)
    before = dict(vars(record))
    log.handle(record)
    assert vars(record) == before
    assert len(sink.records) == 1
