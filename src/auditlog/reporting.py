"""The library's own log lines: one per reason and interval, never a row's content.

A leaf that every stage may use. The application configures logging; nothing here prints. Errors
are told by their class and SQLSTATE, since messages and contexts of the server quote the row.
"""

import logging
import threading
import time
from contextlib import suppress

INTERVAL_S = 20.0

logger = logging.getLogger("auditlog")


class Reporter:
    """Logs each reason at most once in `INTERVAL_S`, with the number of times it stayed silent."""

    def __init__(self) -> None:
        # Re-entrant: a signal handler may submit, and so report, while its thread is in `report`.
        self._lock = threading.RLock()
        self._silent_until: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def report(self, reason: str, message: str, *, level: int = logging.WARNING) -> None:
        """Log `message` unless the same reason was logged just now.

        Args:
            reason: One of a small fixed set of words, `auditlog.<noun>_<verb>`.
            message: What happened and what mends it; no values from a record.
            level: A level of the standard library's.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._silent_until.get(reason, 0.0):
                self._suppressed[reason] = self._suppressed.get(reason, 0) + 1
                return
            self._silent_until[reason] = now + INTERVAL_S
            suppressed = self._suppressed.pop(reason, 0)
        again = f" ({suppressed} more since the last such line)" if suppressed else ""
        # A handler of the application may raise; neither a request nor the writer may end by that.
        with suppress(Exception):
            logger.log(level, "%s: %s%s", reason, message, again, extra={"suppressed": suppressed})


def describe(error: BaseException) -> str:
    """Name an error by class and SQLSTATE, without its text."""
    sqlstate = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} (SQLSTATE {sqlstate})" if sqlstate else type(error).__name__
