"""Exceptions that come with a line → their type, and their stack traces where these are wanted.

A trace shows source lines and the exception's message, and so may hold secrets that no name gives
away; that is why nobody gets one without asking. It is cut at whole lines, its end is kept.
"""

import re
import sys
import traceback
from typing import Any

from auditlog.reporting import describe

EXCEPTION_TRACE, CODE_TRACE = "exception.stacktrace", "code.stacktrace"
MAX_TRACE_CHARS = 8192

_TITLE = "(most recent call last):"
STACK_TITLE = f"Stack {_TITLE}"
# Also within a text: the QueueHandler of the standard library makes one of message and traces, and
# traceback.format_exc() may be all that was logged.
_IN_TEXT = re.compile(
    rf"(?:\A|\n)(?P<trace>(?:[ +|]*Exception Group )?(?:Traceback|Stack) {re.escape(_TITLE)}\n)"
)
# Behind the last frame, whose lines are indented, stands the type. From the start of a line, and
# without going back, so that the time is linear in the length of whatever text that is.
_TYPE = re.compile(rf"^Traceback {re.escape(_TITLE)}\n(?: .*+\n)*+([\w.]+)", re.MULTILINE)


def exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception of what `exc_info` may be: true, an exception or three values."""
    # Its type is asked, as neither its truth nor its __class__ may be: they are foreign code.
    kind = type(exc_info)
    if issubclass(kind, tuple):
        exc_info = exc_info[1] if len(exc_info) > 1 else None
    elif issubclass(kind, int):
        exc_info = sys.exception() if exc_info else None
    return exc_info if issubclass(type(exc_info), BaseException) else None


def trace_of(error: BaseException) -> str:
    """Return the stack trace as Python prints it, the end of it if it is long."""
    try:
        return cut("".join(traceback.format_exception(error)))
    except Exception as failure:  # noqa: BLE001  # a hostile exception, or no stack left
        return f"(no stack trace: {describe(failure)})"


def cut(trace: str) -> str:
    """Return the last lines that are not too many; of a last one that is too long, its beginning.

    No value loses the name in front of it, which would give it away as a secret.
    """
    if len(trace) <= MAX_TRACE_CHARS:
        return trace
    start = trace.find("\n", len(trace) - MAX_TRACE_CHARS, -1) + 1
    if start == 0:
        start = trace.rfind("\n", 0, -1) + 1
    return trace[start : start + MAX_TRACE_CHARS]


def type_in(trace: str) -> str | None:
    """Return the type of the exception that a trace in text form ends with."""
    types = _TYPE.findall(trace)
    return types[-1].rpartition(".")[2] if types else None


def split_off(message: str) -> tuple[str, str]:
    """Return a message without the traces that a formatter has put behind it, and these."""
    if _TITLE not in message:
        return message, ""
    found = _IN_TEXT.search(message)
    if found is None:
        return message, ""
    return message[: found.start()], message[found.start("trace") :]
