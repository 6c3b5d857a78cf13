"""An event dictionary of structlog → a `Line`; it is read, never changed.

Read as it is before the renderer: tracebacks may still be `exc_info`, or a text under `exception`
already. No import of structlog is needed. Types are asked for by `type`: `isinstance` may run the
code of a foreign object.
"""

from typing import Any

from auditlog.capture.lines.lines import Line, log_level
from auditlog.capture.lines.traces import (
    CODE_TRACE,
    EXCEPTION_TRACE,
    STACK_TITLE,
    cut,
    exception_of,
    trace_of,
    type_in,
)
from auditlog.records import LogLevel

_LEVELS = {
    "debug": int(LogLevel.DEBUG),
    "info": int(LogLevel.INFO),
    "msg": int(LogLevel.INFO),
    "warning": int(LogLevel.WARN),
    "warn": int(LogLevel.WARN),
    "error": int(LogLevel.ERROR),
    "err": int(LogLevel.ERROR),
    "exception": int(LogLevel.ERROR),
    "critical": int(LogLevel.ERROR),
    "fatal": int(LogLevel.ERROR),
}
# What has a column or a key of its own, and what structlog keeps for itself.
_NO_FIELDS = frozenset(
    {
        "event",
        "level",
        "level_number",
        "timestamp",
        "logger",
        "exc_info",
        "exception",
        "stack_info",
        "_record",
        "_from_structlog",
    }
)


def line_of_event(
    method: str, event_dict: dict[str, Any], *, logger: str | None, stack_traces: bool
) -> Line:
    """Read an event; `logger` is the name to take where the event has none."""
    name = event_dict.get("logger")
    error, text = exception_of(event_dict.get("exc_info")), event_dict.get("exception")
    line = Line(
        event_dict.get("event"),
        _level(method, event_dict),
        {key: value for key, value in event_dict.items() if key not in _NO_FIELDS},
        logger=name if type(name) is str else logger,
    )
    if error is not None:
        line.error_type = type(error).__name__
    elif type(text) is str:
        line.error_type = type_in(text)
    elif type(text) is list and text and type(text[0]) is dict:
        # structlog.processors.dict_tracebacks, whose first stack is that of what was raised last.
        line.error_type = text[0].get("exc_type")
    stack = event_dict.get("stack")
    # The name is structlog's, but an application may well have a stack of its own.
    is_trace = type(stack) is str and stack.startswith(STACK_TITLE)
    if is_trace:
        del line.fields["stack"]
    if stack_traces:
        if error is not None:
            line.traces[EXCEPTION_TRACE] = trace_of(error)
        elif type(text) is str:
            line.traces[EXCEPTION_TRACE] = cut(text)
        if is_trace:
            line.traces[CODE_TRACE] = cut(str(stack))
    return line


def _level(method: str, event_dict: dict[str, Any]) -> int:
    for word in (event_dict.get("level"), method):
        level = _LEVELS.get(word.lower()) if type(word) is str else None
        if level is not None:
            return level
    number = event_dict.get("level_number")
    return log_level(number) if type(number) is int else int(LogLevel.INFO)
