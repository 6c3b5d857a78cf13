"""`AuditHandler`: a handler of the standard library's `logging` whose lines become rows.

    logging.getLogger("app.security").addHandler(AuditHandler(audit))
    log.warning("refused %s", name, extra={"user_id": name, "event_type": "login.refused"})

In a configuration: `{"()": "auditlog.capture.stdlib.AuditHandler", "audit": "ext://app.trail"}`.
It never raises, waits or prints. Lines of this library are not taken, nor what psycopg and asyncio
tell of its writer's work: the trail must not feed on itself.
"""

import logging
from typing import Any

from auditlog.capture.application.events import ApplicationEvents
from auditlog.capture.context import text_of
from auditlog.capture.lines.event_dict import line_of_event
from auditlog.capture.lines.lines import Line, Lines, log_level
from auditlog.capture.lines.own import is_own
from auditlog.capture.lines.traces import (
    CODE_TRACE,
    EXCEPTION_TRACE,
    cut,
    exception_of,
    split_off,
    trace_of,
    type_in,
)
from auditlog.capture.lines.twins import expect_twins, is_twin

# What every record has; all else is of the application's `extra`.
_STANDARD = frozenset(
    {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName", "_logger", "_name"}
)


class AuditHandler(logging.Handler):
    """Submits a row for each line that it is given.

    Level, logger, function and the fields of `extra` go along; `user_id`, `resource_owner`,
    `instance_id`, `event_type` and `target` among these to their columns. What is not said is taken
    from `bound` and from the request being served. A formatter is not asked.

    Args:
        audit: The `AuditLog`, or a `MemorySink`.
        level: The lowest level of the standard library's to take.
        stack_traces: Also store stack traces, redacted; they may hold secrets that nobody finds.

    Raises:
        TypeError: `audit` is no log.
    """

    def __init__(
        self,
        audit: ApplicationEvents,
        level: int | str = logging.NOTSET,
        *,
        stack_traces: bool = False,
    ) -> None:
        super().__init__(level)
        self._lines = Lines(audit)
        self._audit = audit
        self._stack_traces = stack_traces
        expect_twins()

    def handle(self, record: logging.LogRecord) -> bool:
        """Do as every handler does, but without its lock: nothing here is shared.

        With it a thread that logs from within a lock of the application's, and another one whose
        arguments take that lock while they are formatted, would wait for each other.
        """
        passed: Any = self.filter(record)
        if passed:
            # From Python 3.12 on, a filter may give another record in place of this one.
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Submit the row of a line; what goes wrong is counted and reported by the log."""
        self._lines.take(self._read, record)

    def _read(self, record: logging.LogRecord) -> Line | None:
        if is_own(record):
            return None
        occurrence_us = int(record.created * 1_000_000)
        if type(record.msg) is dict and hasattr(record, "_logger"):
            # structlog.stdlib.ProcessorFormatter.wrap_for_formatter made it.
            if is_twin(self._audit, record.msg):
                return None
            line = line_of_event(
                record.levelname, record.msg, logger=record.name, stack_traces=self._stack_traces
            )
            line.occurrence_us = occurrence_us
            return line
        message, capture_error = _message_of(record)
        message, traces = split_off(message)
        line = Line(
            message,
            log_level(record.levelno),
            {name: value for name, value in vars(record).items() if name not in _STANDARD},
            logger=record.name,
            function=record.funcName,
            occurrence_us=occurrence_us,
            capture_error=capture_error,
        )
        self._add_traces(line, record, traces)
        return line

    def _add_traces(self, line: Line, record: logging.LogRecord, text: str) -> None:
        error = exception_of(record.exc_info)
        if error is not None:
            line.error_type = type(error).__name__
        elif text:
            line.error_type = type_in(text)
        if not self._stack_traces:
            return
        if error is not None:
            line.traces[EXCEPTION_TRACE] = trace_of(error)
        elif text:
            line.traces[EXCEPTION_TRACE] = cut(text)
        if record.stack_info:
            line.traces[CODE_TRACE] = cut(record.stack_info)


def _message_of(record: logging.LogRecord) -> tuple[str, str | None]:
    """Return the formatted message; or what it was to be made of, and why it could not be."""
    try:
        return record.getMessage(), None
    except Exception as error:  # noqa: BLE001  # arguments that do not fit, or foreign code
        return text_of(record.msg), type(error).__name__
