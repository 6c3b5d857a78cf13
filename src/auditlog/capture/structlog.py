"""`AuditProcessor`: a processor of structlog's that submits a row of each event it sees.

    structlog.configure(processors=[merge_contextvars, add_log_level, AuditProcessor(audit),
                                    JSONRenderer()])

Its place is in front of the renderer, and of what turns exceptions into text. It hands the event
on as it is: the same dictionary, unchanged. Never raises, waits or prints, and needs no structlog.
"""

import logging
from typing import Any, TypeVar

from auditlog.capture.application.events import ApplicationEvents
from auditlog.capture.lines.event_dict import line_of_event
from auditlog.capture.lines.lines import Line, Lines
from auditlog.capture.lines.own import is_own
from auditlog.capture.lines.twins import remember

Event = TypeVar("Event")


class AuditProcessor:
    """Submits a row for each event, and returns the event.

    `event` becomes the message, and all else goes to the metadata; `user_id`, `resource_owner`,
    `instance_id`, `event_type` and `target` to their columns.

    Args:
        audit: The `AuditLog`, or a `MemorySink`.
        stack_traces: Also store stack traces, redacted; they may hold secrets that nobody finds.

    Raises:
        TypeError: `audit` is no log.
    """

    def __init__(self, audit: ApplicationEvents, *, stack_traces: bool = False) -> None:
        self._lines = Lines(audit)
        self._audit = audit
        self._stack_traces = stack_traces

    def __call__(self, logger: Any, method_name: str, event_dict: Event) -> Event:
        """Submit the row; what goes wrong is counted and reported by the log."""
        self._lines.take(self._read, (logger, method_name, event_dict))
        return event_dict

    def _read(self, call: tuple[Any, str, object]) -> Line | None:
        logger, method_name, event = call
        if not isinstance(event, dict):
            self._lines.report(
                "auditlog.processor_misplaced",
                "AuditProcessor was given an event that is rendered already, and made no row of it:"
                " move it in front of the renderer",
            )
            return None
        record: Any = event.get("_record")
        if issubclass(type(record), logging.LogRecord) and is_own(record):
            return None
        remember(self._audit, event)
        # The logger of the standard library has a name, that of structlog has none.
        name = getattr(record, "name", None) or getattr(logger, "name", None)
        return line_of_event(
            method_name,
            event,
            logger=name if isinstance(name, str) else None,
            stack_traces=self._stack_traces,
        )
