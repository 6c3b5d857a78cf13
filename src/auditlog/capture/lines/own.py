"""Which records of `logging` come from this library's own work, and so never become rows."""

import asyncio
import logging

_LIBRARY = "auditlog"
_WRITER_THREAD = "auditlog"
_WRITER_TASK = "auditlog.writer"
"""The names that the sink gives; a record may have travelled to another thread since."""


def is_own(record: logging.LogRecord) -> bool:
    """Tell whether it is the library's, or its driver's or its loop's about the writer's work."""
    root = record.name.partition(".")[0]
    if root == _LIBRARY:
        return True
    if root not in {"psycopg", "asyncio"}:
        return False
    return (
        record.threadName == _WRITER_THREAD
        or getattr(record, "taskName", None) == _WRITER_TASK  # from Python 3.12 on
        or _runs_in_writer()
        # Of slow callbacks the loop tells outside of any task, and names the task.
        or (root == "asyncio" and _WRITER_TASK in record.getMessage())
    )


def _runs_in_writer() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return False
    return task is not None and task.get_name() == _WRITER_TASK
