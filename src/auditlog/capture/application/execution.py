"""`Execution`: the lines that one run of an action leaves in `logstore.execution_logs`.

What leaves the block as an exception becomes a last line with its stack trace, and goes on
unchanged. Tenant and request are those of the place where the execution was made, so it may be
handed to threads. State and duration of a run are not kept here: these are its lines.
"""

import sys
from collections.abc import Callable, Mapping
from traceback import TracebackException
from typing import Any, Self, TypeAlias, cast

from auditlog.capture.application.event import sentence
from auditlog.capture.application.surroundings import bound_metadata, surroundings
from auditlog.capture.context import text_of
from auditlog.capture.redaction.redactor import Redactor
from auditlog.records import ExecutionLogRecord, LogLevel, Outcome
from auditlog.reporting import describe

HandOver: TypeAlias = Callable[[Callable[[], ExecutionLogRecord]], Outcome]
"""Submits what the function makes; never raises."""

# The encoder gives the column a quarter of a row, and would keep the beginning.
_SHARE_OF_ROW = 4
# A long entry is the error's message, of which the beginning counts. UTF-8 has up to four bytes.
_SHARE_OF_TRACE = 8
_CUT = "(the beginning is cut)\n"


class Execution:
    """One run; made by `AuditLog.execution`. Every method works from any thread, in any order."""

    def __init__(
        self,
        hand_over: HandOver,
        redactor: Redactor,
        max_row_bytes: int,
        *,
        execution_id: object,
        target_id: object,
        instance_id: object,
    ) -> None:
        self.execution_id = text_of(execution_id)
        self.target_id = text_of(target_id)
        facts = surroundings()
        self.instance_id = facts.instance_id if instance_id is None else text_of(instance_id)
        self._links = facts.links()
        self._bound = facts.metadata
        self._hand_over = hand_over
        self._redactor = redactor
        self._max_trace_bytes = max_row_bytes // _SHARE_OF_ROW

    def info(self, message: object, /, **metadata: Any) -> Outcome:
        """Leave a line that tells of progress."""
        return self._write(LogLevel.INFO, message, metadata)

    def warn(self, message: object, /, **metadata: Any) -> Outcome:
        """Leave a line that somebody should look at."""
        return self._write(LogLevel.WARN, message, metadata)

    def error(self, message: object, /, **metadata: Any) -> Outcome:
        """Leave a line that tells of a failure."""
        return self._write(LogLevel.ERROR, message, metadata)

    def debug(self, message: object, /, **metadata: Any) -> Outcome:
        """Leave a line that only helps to find a mistake."""
        return self._write(LogLevel.DEBUG, message, metadata)

    def exception(
        self, error: BaseException | str | None = None, message: object = None, /, **metadata: Any
    ) -> Outcome:
        """Leave a line with the stack trace of an exception that was caught.

        Args:
            error: The one being handled without it. A text in its place is the message of that
                one, as in `logging`.
            message: The class of the exception without it; its own words are in the trace.
            metadata: More, stored as JSON. Fields with a secret's name are redacted.
        """
        caught = sys.exception()
        # Its type is asked, not its __class__, which may be foreign code.
        if issubclass(type(error), BaseException):
            caught = cast("BaseException", error)
        elif error is not None:
            message = error
        if message is None:
            message = "no exception" if caught is None else type(caught).__name__
        # What is none of Exception's was asked for: an interrupt, a cancellation, an exit.
        failed = caught is None or isinstance(caught, Exception)
        return self._write(LogLevel.ERROR if failed else LogLevel.WARN, message, metadata, caught)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self.exception(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: object, error: BaseException | None, _traceback: object
    ) -> None:
        if error is not None:
            self.exception(error)

    def _write(
        self,
        level: LogLevel,
        message: object,
        metadata: Mapping[str, Any],
        error: BaseException | None = None,
    ) -> Outcome:
        return self._hand_over(lambda: self._record(level, message, metadata, error))

    def _record(
        self,
        level: LogLevel,
        message: object,
        metadata: Mapping[str, Any],
        error: BaseException | None,
    ) -> ExecutionLogRecord:
        redactor, links = self._redactor, self._links
        trace = None
        if error is not None:
            links = {"error.type": type(error).__name__, **links}
            trace = _end_of_trace(error, redactor, self._max_trace_bytes)
        said = {**self._bound, **bound_metadata(), **metadata}
        return ExecutionLogRecord(
            self.execution_id,
            self.target_id,
            sentence(redactor, message),
            int(level),
            trace,
            {**links, **redactor.json(said), **links} if said else links or None,
            self.instance_id,
        )


def _end_of_trace(error: BaseException, redactor: Redactor, max_bytes: int) -> str:
    """Format a stack trace, redacted; of one that is too long the end, which names the error."""
    try:
        entries = list(TracebackException.from_exception(error, compact=True).format())
    except Exception as failure:  # noqa: BLE001  # a hostile exception, or no stack left
        return f"(no stack trace: {describe(failure)})"
    kept: list[str] = []
    left = max_bytes - len(_CUT)
    for entry in reversed(entries):
        # One by one: of a text with very many names the redactor hides the end.
        text = _beginning(redactor.text(entry[:max_bytes]), max_bytes // _SHARE_OF_TRACE)
        left -= len(text.encode(errors="replace"))
        if left < 0:
            kept.append(_CUT)
            break
        kept.append(text)
    return "".join(reversed(kept))


def _beginning(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]}... (cut)\n"
