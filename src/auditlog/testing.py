"""Test doubles for those who use auditlog: look at records, without PostgreSQL.

    from auditlog.testing import MemorySink

    def test_the_user_is_named():
        sink = MemorySink()
        client = TestClient(AuditMiddleware(app, audit=sink))
        client.get("/orders/42")
        assert sink.records[0].user_id == "7"

For an application that builds its own `AuditLog`, `capture(audit)` listens in.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from auditlog.log import AuditLog
from auditlog.records import Outcome, Record
from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.encode import Encoder


class MemorySink:
    """Takes the place of an `AuditLog`, and keeps what it is given.

    Every record is encoded as a real log would, so a value that would break there breaks here.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.reporter = Reporter()
        self.records: list[Record] = []
        self.errors: list[BaseException] = []
        self.starts = 0
        self._encoder = Encoder(self.settings)

    def submit(self, record: Record) -> Outcome:
        """Keep a copy of a record: the caller may reuse it."""
        self._encoder.encode(record)
        self.records.append(copy.copy(record))
        return Outcome.ACCEPTED

    def lose(self, error: BaseException) -> None:
        """Keep what made a record impossible."""
        self.errors.append(error)

    async def start(self) -> None:
        """Count a start."""
        self.starts += 1

    async def aclose(self) -> None:
        """Undo a start."""
        self.starts -= 1


@contextmanager
def capture(audit: AuditLog) -> Iterator[list[Record]]:
    """Collect what an application submits to its log, and keep it from the database.

    Yields:
        The records so far, in the order of their submission.
    """
    sink = MemorySink(audit.settings)
    with patch.multiple(
        audit, submit=sink.submit, lose=sink.lose, start=sink.start, aclose=sink.aclose
    ):
        yield sink.records
