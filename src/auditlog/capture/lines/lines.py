"""One line of a log → one record, handed to the audit log: the job that both doors share.

A door reads what its framework gives it into a `Line`. From here on nothing raises, waits or
prints. A line that is logged while another one is being recorded on the same thread comes out of
that very work, and is dropped: otherwise it could go round for ever.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from auditlog.capture.application.event import event_record
from auditlog.capture.application.events import ApplicationEvents
from auditlog.records import LogLevel, LogRecord

Source = TypeVar("Source")

_DEBUG, _INFO = int(LogLevel.DEBUG), int(LogLevel.INFO)
_WARN, _ERROR = int(LogLevel.WARN), int(LogLevel.ERROR)
_COLUMNS = ("user_id", "resource_owner", "instance_id", "target")


@dataclass(slots=True)
class Line:
    """What was logged, whichever the framework."""

    message: object
    level: int
    """A `LogLevel`."""
    fields: dict[str, Any]
    """What was given beside the message; the line's own, and taken apart by `Lines`."""
    logger: str | None = None
    function: str | None = None
    occurrence_us: int | None = None
    error_type: str | None = None
    traces: dict[str, str] = field(default_factory=dict)
    """Stack traces by their metadata key, if they are wanted at all."""
    capture_error: str | None = None
    """The type of what went wrong when the line was read."""


class Lines:
    """Records lines in one log. Thread-safe.

    Raises:
        TypeError: `audit` is no log, such as the name of one.
    """

    def __init__(self, audit: ApplicationEvents) -> None:
        if not isinstance(audit, ApplicationEvents):
            raise TypeError(
                f"audit must be an AuditLog, not {type(audit).__name__}; a logging configuration"
                " names it as 'ext://package.module.audit'"
            )
        self._audit = audit

    def take(self, read: Callable[[Source], Line | None], source: Source) -> None:
        """Record the line that `read` makes of the source, if any; never raises."""
        if getattr(_thread, "is_busy", False):
            return
        _thread.is_busy = True
        try:
            line = read(source)
            if line is not None:
                self._audit.submit(self._record(line))
        except Exception as error:  # noqa: BLE001  # never an error of whoever logs
            with suppress(Exception):  # a second RecursionError, for one
                self._audit.lose(error)
        finally:
            _thread.is_busy = False

    def report(self, reason: str, message: str) -> None:
        """Say what is wrong with how lines arrive, once in a while."""
        self._audit.reporter.report(reason, message)

    def _record(self, line: Line) -> LogRecord:
        own: dict[str, Any] = {}
        if line.logger is not None:
            own["otel.scope.name"] = line.logger
        if line.function is not None:
            own["code.function.name"] = line.function
        if line.capture_error is not None:
            own["audit.capture_error"] = line.capture_error
        fields = line.fields
        named = {name: fields.pop(name) for name in _COLUMNS if name in fields}
        record = event_record(
            self._audit.redactor,
            fields.pop("event_type", None),
            **named,
            message=line.message,
            level=line.level,
            # A line tells of something; whether that went well is not known.
            outcome=None,
            error_type=line.error_type,
            occurrence_date=line.occurrence_us,
            # Ours first, where nothing is cut, and last as details, where nobody overwrites it.
            metadata={**own, **fields, **line.traces} if fields or line.traces else own,
            details=own,
        )
        record.low_priority = line.level in (_INFO, _DEBUG)
        return record


def log_level(number: int) -> int:
    """Map a level of the standard library's, or one between two of them, to a `LogLevel`."""
    if number >= logging.ERROR:
        return _ERROR
    if number >= logging.WARNING:
        return _WARN
    return _INFO if number >= logging.INFO else _DEBUG


_thread = threading.local()
