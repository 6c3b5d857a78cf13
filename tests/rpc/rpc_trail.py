"""A `MemorySink` that tells when a row has come, and by whose request it was."""

import threading
from typing import Any

from auditlog import LogRecord, Outcome, Settings
from auditlog.records import Record
from auditlog.testing import MemorySink

WAIT_S = 10.0


class Trail(MemorySink):
    """Rows by the request's id."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._changed = threading.Condition()

    def submit(self, record: Record) -> Outcome:
        with self._changed:
            outcome = super().submit(record)
            self._changed.notify_all()
        return outcome

    def of(self, request_id: str) -> list[LogRecord]:
        """Return the rows of a request so far."""
        return [row for row in self.rows() if metadata(row).get("audit.request_id") == request_id]

    def rows(self) -> list[LogRecord]:
        with self._changed:
            return [record for record in self.records if isinstance(record, LogRecord)]

    def one(self, request_id: str) -> LogRecord:
        """Wait for a request's row, which must be the only one."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(request_id), WAIT_S), "no row"
        (row,) = self.of(request_id)
        return row

    def wait_for(self, count: int) -> list[LogRecord]:
        """Wait until there are so many rows at least."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.records) >= count, WAIT_S), (
                f"{len(self.records)} of {count} rows"
            )
        return self.rows()


def metadata(row: LogRecord) -> dict[str, Any]:
    return dict(row.metadata or {})
