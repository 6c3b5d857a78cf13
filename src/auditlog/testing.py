"""Test doubles for those who use auditlog: look at records, without PostgreSQL.

    from auditlog.testing import MemorySink

    def test_the_user_is_named():
        sink = MemorySink()
        client = TestClient(AuditMiddleware(app, audit=sink))
        client.get("/orders/42")
        assert sink.records[0].user_id == "7"

For an application that builds its own `AuditLog`, `capture(audit)` listens in. Decorated functions
find either by themselves, where it is the only one. `MemoryQuotas` counts in the test's process:

    quotas = MemoryQuotas(sink, [Quota("exports", limit=1, counts="reported", per="user")])
    quotas.counter.advance(86_400)
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from auditlog.capture.application.events import ApplicationEvents
from auditlog.log import AuditLog
from auditlog.quota.deciding.memory import MemoryCounter
from auditlog.quota.quotas import Quotas
from auditlog.records import LogRecord, Outcome, Record
from auditlog.settings import Settings
from auditlog.sink.encoding.encode import Encoder
from auditlog.ticket import Ticket


class MemorySink(ApplicationEvents):
    """Takes the place of an `AuditLog`, and keeps what it is given.

    Every record is encoded as a real log would, so a value that would break there breaks here.
    `record_within` leaves the connection alone, be it what it may: the row stays here when the
    transaction is rolled back.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())
        self.records: list[Record] = []
        self.errors: list[BaseException] = []
        self.starts = 0
        self.durable_in_time = True
        """Do rows become durable, for those who wait? False is a database that hangs."""
        self._encoder = Encoder(self.settings)
        self._make_known()

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        """Keep a copy of a record: the caller may reuse it."""
        self._encoder.encode(record)
        self.records.append(copy.copy(record))
        if ticket is not None:
            ticket.expect()
            ticket.settle(self.durable_in_time)
        return Outcome.ACCEPTED

    async def durable(self, ticket: Ticket) -> bool:
        """Tell what `durable_in_time` said when the rows were submitted."""
        return ticket.wait(0)

    def durable_in_thread(self, ticket: Ticket) -> bool:
        """Do what `durable` does."""
        return ticket.wait(0)

    async def room(self) -> None:
        """Wait for nothing: there is always room."""

    def lose(self, error: BaseException) -> None:
        """Keep what made a record impossible."""
        self.errors.append(error)

    async def start(self) -> None:
        """Count a start."""
        self.starts += 1

    async def aclose(self) -> None:
        """Undo a start."""
        self.starts -= 1

    def _insert(self, _connection: Any, record: LogRecord) -> None:
        self.submit(record)

    async def _ainsert(self, _connection: Any, record: LogRecord) -> None:
        self.submit(record)


class MemoryQuotas(Quotas):
    """Takes the place of `Quotas`, and keeps the counters in this process.

    No database is asked for other definitions. The clock stands still until the test sets it.
    """

    counter: MemoryCounter
    """`advance` and `set_clock` move its clock; with `away` it is as if no database answered."""

    def _make_counter(self) -> MemoryCounter:
        self._catalogue.read(())
        self.counter = MemoryCounter(self._recording.crossed)
        return self.counter


@contextmanager
def capture(audit: AuditLog) -> Iterator[list[Record]]:
    """Collect what an application submits to its log, and keep it from the database.

    Yields:
        The records so far, in the order of their submission.
    """
    sink = MemorySink(audit.settings)
    # It is the log that decorated functions are to find.
    sink._make_unknown()
    with patch.multiple(
        audit,
        submit=sink.submit,
        lose=sink.lose,
        durable=sink.durable,
        durable_in_thread=sink.durable_in_thread,
        room=sink.room,
        start=sink.start,
        aclose=sink.aclose,
        # `with audit` starts a writer of its own, on a thread.
        _begin=lambda _: None,
        _insert=sink._insert,
        _ainsert=sink._ainsert,
    ):
        yield sink.records
