"""Log lines said while a lock of the sink is held: kept, until whoever has let go of it tells them.

A handler of the application's takes a lock of its own, and may submit a record while it has that:
a line logged from within the sink's would have the two threads wait for each other for ever.
"""

import logging

from auditlog.reporting import Reporter


class DeferredReporter(Reporter):
    """Keeps the last line of each reason; safe from any thread, and in a signal handler."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter
        self._kept: dict[str, tuple[str, int]] = {}

    def report(self, reason: str, message: str, *, level: int = logging.WARNING) -> None:
        """Keep a line; see `Reporter.report`."""
        self._kept[reason] = (message, level)

    def tell(self) -> None:
        """Log what was kept; not while a lock is held that a `submit` wants."""
        while self._kept:
            try:
                reason, (message, level) = self._kept.popitem()
            except KeyError:
                return  # another thread was faster
            self._reporter.report(reason, message, level=level)
